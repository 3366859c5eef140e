/** The one event stream of the page, shared by whoever shows something that changes. */

import { createEffect, createSignal, onCleanup } from 'solid-js';
import { listen } from './api/events.ts';
import { keyVersion, keyWanted } from './api/key.ts';
import type { StudyEvent } from './api/model.ts';

type Listener = (event: StudyEvent | 'reload') => void;

const listeners = new Set<Listener>();
const [connected, setConnected] = createSignal(true);

export { connected };

/** Opens the stream for as long as the calling component lives, anew with each key. */
export function startLive(): void {
  createEffect(() => {
    keyVersion();
    if (keyWanted()) return;
    const tell = (event: StudyEvent | 'reload') => {
      for (const listener of listeners) listener(event);
    };
    let first = true;
    const stop = listen({
      study: tell,
      opened: () => {
        setConnected(true);
        // The pages load themselves at first; later openings follow a loss.
        if (!first) tell('reload');
        first = false;
      },
      lost: () => setConnected(false),
    });
    onCleanup(stop);
  });
}

/** Calls back for each event, and with `reload` when some may have been missed. */
export function onLive(listener: Listener): void {
  listeners.add(listener);
  onCleanup(() => listeners.delete(listener));
}
