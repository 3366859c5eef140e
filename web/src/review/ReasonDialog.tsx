/** Asks why a finding is rejected, or what was missed: one digit gives the reason and the verdict. */

import { createSignal, For, onCleanup, onMount } from 'solid-js';
import { Dialog } from '../ui/Dialog.tsx';
import { messages } from '../ui/messages.ts';
import type { Desk, Pending } from './desk.ts';

const said = messages.review;
const REASONS = {
  reject: [
    'artefact',
    'calcification',
    'normal_anatomy',
    'postoperative',
    'old_blood',
    'tumour',
    'wrong_place',
    'wrong_size',
    'other',
  ],
  missed: [
    'intraparenchymal',
    'intraventricular',
    'subarachnoid',
    'subdural',
    'epidural',
    'infarct',
    'occlusion',
    'other',
  ],
} as const;

export function ReasonDialog(props: { desk: Desk; pending: Pending }) {
  const [note, setNote] = createSignal('');
  const reasons = () => REASONS[props.pending.verdict];
  const choose = (reason: string) =>
    void props.desk.give(props.pending.finding, props.pending.verdict, reason, note().trim() || null);
  const listen = (event: KeyboardEvent) => {
    if ((event.target as HTMLElement).closest('textarea')) return;
    const reason = reasons()[Number(event.key) - 1];
    if (reason === undefined) return;
    event.preventDefault();
    choose(reason);
  };
  onMount(() => document.addEventListener('keydown', listen));
  onCleanup(() => document.removeEventListener('keydown', listen));
  return (
    <Dialog title={said.why[props.pending.verdict]} onClose={() => props.desk.setPending(null)}>
      <ol class="reasons">
        <For each={reasons()}>
          {(reason, index) => (
            <li>
              <button type="button" data-reason={reason} onClick={() => choose(reason)}>
                <kbd>{index() + 1}</kbd> {said.reasons[reason] ?? reason}
              </button>
            </li>
          )}
        </For>
      </ol>
      <label>
        {said.note}
        <textarea rows="2" maxLength={2000} onInput={(event) => setNote(event.currentTarget.value)} />
      </label>
    </Dialog>
  );
}
