/** The masks that readers drew: who, when, how much, and which one is on the slices. */

import { For, Show } from 'solid-js';
import { volumeMl } from '../api/corrections.ts';
import { kind, millilitres, moment } from '../ui/format.ts';
import { messages } from '../ui/messages.ts';
import type { Masks } from './masks.ts';

const said = messages.draw;

export function Corrections(props: { masks: Masks; drawing: boolean }) {
  return (
    <section data-part="corrections">
      <h2>{said.masks}</h2>
      <ol class="verdicts">
        <Show when={props.masks.corrections().length > 0}>
          <li>
            <button
              type="button"
              class="small"
              aria-pressed={props.masks.shown() === null}
              onClick={() => props.masks.show(null)}
            >
              {said.machine}
            </button>
          </li>
        </Show>
        <For each={props.masks.corrections()}>
          {(correction) => (
            <li>
              <button
                type="button"
                class="small"
                data-correction={correction.id}
                aria-pressed={props.masks.shown()?.id === correction.id}
                onClick={() => props.masks.show(correction)}
              >
                {said.of(correction.reader)}
              </button>{' '}
              {kind(correction.kind)} <b class="num">{millilitres(volumeMl(correction))}</b>
              <small class="num">{moment(correction.at)}</small>
            </li>
          )}
        </For>
      </ol>
      <Show when={!props.drawing && props.masks.trouble()} keyed>
        {(text) => (
          <p class="notice" role="alert">
            {text}
          </p>
        )}
      </Show>
      <Show when={props.masks.subjects().length > 1}>
        <select
          aria-label={said.subject}
          disabled={props.drawing}
          value={props.masks.subject()?.question ?? ''}
          onChange={(event) => props.masks.setSubject(event.currentTarget.value)}
        >
          <For each={props.masks.subjects()}>
            {({ question }) => <option value={question}>{kind(question)}</option>}
          </For>
        </select>
      </Show>
      <button
        type="button"
        class="small"
        aria-keyshortcuts="D"
        aria-pressed={props.drawing}
        onClick={() => props.masks.draw()}
      >
        {said.begin} <kbd>D</kbd>
      </button>
    </section>
  );
}
