/** The list of keys. */

import { For } from 'solid-js';
import { Dialog } from './Dialog.tsx';
import { messages } from './messages.ts';

export function Help(props: { keys: readonly (readonly [string, string])[]; onClose: () => void }) {
  return (
    <Dialog title={messages.help.title} onClose={props.onClose}>
      <dl class="keys">
        <For each={props.keys}>
          {([key, what]) => (
            <>
              <dt>
                <kbd>{key}</kbd>
              </dt>
              <dd>{what}</dd>
            </>
          )}
        </For>
      </dl>
      <form method="dialog">
        <button type="submit">{messages.help.close}</button>
      </form>
    </Dialog>
  );
}
