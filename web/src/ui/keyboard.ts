/** Keys of a page, left alone while the reader types or a dialog is open. */

import { onCleanup, onMount } from 'solid-js';

/** Calls `handle` for each key; it returns whether it used it. */
export function onKeys(handle: (key: string) => boolean): void {
  const listen = (event: KeyboardEvent) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (document.querySelector('dialog[open]') !== null) return;
    const target = event.target as HTMLElement | null;
    if (target?.closest('input, textarea, select') && event.key !== 'Escape') return;
    // Enter and the space bar press what has the focus.
    if ((event.key === 'Enter' || event.key === ' ') && target?.closest('button, a, summary')) return;
    if (handle(event.key)) event.preventDefault();
  };
  onMount(() => document.addEventListener('keydown', listen));
  onCleanup(() => document.removeEventListener('keydown', listen));
}
