/** Windows, overlays, opacity: each with its key. */

import { For, Show } from 'solid-js';
import { messages } from '../ui/messages.ts';
import { MeasureButtons } from './Measures.tsx';
import type { Session } from './session.ts';
import { PRESETS } from './windows.ts';

export function Toolbar(props: { session: Session; comparable: boolean; onFit: () => void }) {
  const isNow = (width: number, level: number) => {
    const { width: w, level: l } = props.session.window();
    return w === width && l === level;
  };
  return (
    <div class="toolbar" role="toolbar" aria-label={messages.viewer.toolbar}>
      <div class="buttons">
        <For each={PRESETS}>
          {(preset) => (
            <button
              type="button"
              aria-pressed={isNow(preset.width, preset.level)}
              aria-keyshortcuts={preset.key}
              title={messages.viewer.window(preset.width, preset.level)}
              onClick={() => props.session.setWindow(preset)}
            >
              {messages.viewer.windows[preset.name]} <kbd>{preset.key}</kbd>
            </button>
          )}
        </For>
      </div>
      <div class="buttons">
        <button
          type="button"
          data-toggle="mask"
          aria-pressed={props.session.mask()}
          aria-keyshortcuts="M"
          onClick={() => props.session.setMask((on) => !on)}
        >
          {messages.viewer.mask} <kbd>M</kbd>
        </button>
        <button
          type="button"
          data-toggle="uncertainty"
          aria-pressed={props.session.uncertainty()}
          aria-keyshortcuts="U"
          onClick={() => props.session.setUncertainty((on) => !on)}
        >
          {messages.viewer.uncertainty} <kbd>U</kbd>
        </button>
        <Show when={props.session.scores() !== null}>
          <button
            type="button"
            data-toggle="contours"
            aria-pressed={props.session.contours()}
            aria-keyshortcuts="C"
            onClick={() => props.session.setContours((on) => !on)}
          >
            {messages.viewer.contours} <kbd>C</kbd>
          </button>
        </Show>
        <Show when={props.session.overlays().hasAnatomy}>
          <button
            type="button"
            data-toggle="anatomy"
            aria-pressed={props.session.anatomy()}
            aria-keyshortcuts="R"
            onClick={() => props.session.setAnatomy((on) => !on)}
          >
            {messages.viewer.anatomy} <kbd>R</kbd>
          </button>
        </Show>
      </div>
      <button
        type="button"
        data-toggle="planes"
        aria-pressed={props.session.planes()}
        aria-keyshortcuts="V"
        onClick={() => props.session.setPlanes(!props.session.planes())}
      >
        {messages.planes.name} <kbd>V</kbd>
      </button>
      <Show when={props.comparable}>
        <button
          type="button"
          data-toggle="compare"
          aria-pressed={props.session.comparing()}
          aria-keyshortcuts="P"
          onClick={() => props.session.setComparing((on) => !on)}
        >
          {messages.compare.name} <kbd>P</kbd>
        </button>
      </Show>
      <MeasureButtons ruler={props.session.ruler} />
      <label class="opacity">
        {messages.viewer.opacity}
        <input
          type="range"
          min="0"
          max="1"
          step="0.05"
          value={props.session.opacity()}
          onInput={(event) => props.session.setOpacity(event.currentTarget.valueAsNumber)}
        />
      </label>
      <div class="buttons end">
        <button
          type="button"
          aria-keyshortcuts="N"
          disabled={props.session.findings().length === 0}
          onClick={() => props.session.nextFinding()}
        >
          {messages.viewer.nextFinding} <kbd>N</kbd>
        </button>
        <button type="button" aria-keyshortcuts="0" onClick={() => props.onFit()}>
          {messages.viewer.fit} <kbd>0</kbd>
        </button>
      </div>
    </div>
  );
}
