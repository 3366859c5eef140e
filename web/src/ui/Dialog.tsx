/** A modal dialog with a title; the browser keeps the focus inside and closes it on Escape. */

import { createUniqueId, type JSX, onMount } from 'solid-js';

export function Dialog(props: { title: string; onClose?: () => void; children: JSX.Element }) {
  const title = createUniqueId();
  let dialog: HTMLDialogElement | undefined;
  onMount(() => dialog?.showModal());
  return (
    <dialog
      ref={dialog}
      aria-labelledby={title}
      onCancel={(event) => {
        // Without a way to close it, the dialog is one that must be answered.
        if (props.onClose === undefined) event.preventDefault();
      }}
      onClose={() => props.onClose?.()}
    >
      <h2 id={title}>{props.title}</h2>
      {props.children}
    </dialog>
  );
}
