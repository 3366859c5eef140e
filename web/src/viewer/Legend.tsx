/** What the colours over the image mean, in words. */

import { For, Show } from 'solid-js';
import { kind } from '../ui/format.ts';
import { messages } from '../ui/messages.ts';
import { css, READER_COLOUR, type Rgb, uncertaintyGradient } from './palette.ts';
import type { Session } from './session.ts';

export function Legend(props: { session: Session }) {
  const kinds = () => {
    const first = new Map(props.session.findings().map((f) => [f.kind, f]));
    return [...first.values()];
  };
  const byReader = () => props.session.pencil.drawing() !== null || props.session.readerMasks() !== null;
  return (
    <div class="legend">
      <Show when={props.session.mask()}>
        <Show
          when={byReader()}
          fallback={
            <Show
              when={props.session.overlays().masks.size > 0}
              fallback={<p class="dim">{messages.viewer.noMask}</p>}
            >
              <For each={kinds()}>
                {(finding) => <Swatch colour={props.session.colour(finding)} name={kind(finding.kind)} />}
              </For>
            </Show>
          }
        >
          <Swatch colour={READER_COLOUR} name={messages.draw.legend} />
        </Show>
      </Show>
      <Show when={props.session.uncertainty()}>
        <Show
          when={props.session.overlays().maps.size > 0}
          fallback={<p class="dim">{messages.viewer.noMap}</p>}
        >
          <p>{messages.viewer.legend}</p>
          <div class="bar" style={{ background: uncertaintyGradient('to right') }} />
          <p class="ends">
            <span>{messages.viewer.legendLow}</span>
            <span>{messages.viewer.legendHigh}</span>
          </p>
          <p class="dim">{messages.viewer.legendNote}</p>
        </Show>
      </Show>
    </div>
  );
}

function Swatch(props: { colour: Rgb; name: string }) {
  return (
    <p>
      <span
        class="swatch"
        style={{ 'border-color': css(props.colour), background: css(props.colour, 0.4) }}
      />
      {props.name}
    </p>
  );
}
