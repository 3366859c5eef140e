/** Says which verdicts wait in this browser, and which of them were refused. */

import { For, Show } from 'solid-js';
import { follow, studyPath } from '../router.ts';
import { messages } from '../ui/messages.ts';
import { forget, waiting } from './outbox.ts';

const said = messages.outbox;

export function Outbox() {
  const refused = () => waiting().filter((one) => one.refused !== null);
  const unsent = () => waiting().length - refused().length;
  return (
    <div role="status" class="outbox">
      <Show when={unsent() > 0}>
        <p class="notice" data-outbox={unsent()}>
          {said.waits(unsent())}
        </p>
      </Show>
      <For each={refused()}>
        {(one) => (
          <p class="notice">
            {said.refused(one.refused ?? '')}{' '}
            <a href={studyPath(one.study)} onClick={follow}>
              {said.look}
            </a>{' '}
            <button type="button" class="small" onClick={() => forget(one)}>
              {said.forget}
            </button>
          </p>
        )}
      </For>
    </div>
  );
}
