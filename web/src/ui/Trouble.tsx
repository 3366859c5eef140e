/** An error as a sentence, with a way to try again. */

import { Show } from 'solid-js';
import { messages } from './messages.ts';

export function Trouble(props: { text: string; retry?: () => void }) {
  return (
    <div class="trouble" role="alert">
      <p>{props.text}</p>
      <Show when={props.retry} keyed>
        {(retry) => (
          <button type="button" onClick={() => retry()}>
            {messages.errors.retry}
          </button>
        )}
      </Show>
    </div>
  );
}
