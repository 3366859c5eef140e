/** Who else has the study open, and what they did meanwhile. */

import { createEffect, createMemo, createSignal, on, onCleanup } from 'solid-js';
import { json, request } from '../api/client.ts';
import { who } from '../api/session.ts';
import { onLive } from '../live.ts';

export interface Present {
  name: string;
  since: string;
  drawing: boolean;
}

/** The server takes a page that is silent for three times as long for closed. */
const EVERY_MS = 15_000;
/** Events come in bursts; the server is asked once for those that fall into this time. */
const GATHER_MS = 250;

/** Tells the server that the signed-in reader is here, for as long as the calling component lives. */
export function createPresence(uid: string, drawing: () => boolean) {
  const [others, setOthers] = createSignal<readonly Present[]>([]);
  const path = `/api/studies/${encodeURIComponent(uid)}/presence`;
  const isPerson = createMemo(() => who()?.person ?? false);
  let told = false;
  let gathering: ReturnType<typeof setTimeout> | undefined;
  const tell = async () => {
    if (!isPerson()) return setOthers([]);
    told = true;
    const headers = { 'Content-Type': 'application/json' };
    const body = JSON.stringify({ drawing: drawing() });
    // Whoever cannot be reached is not there; the page says elsewhere that the connection is lost.
    setOthers(await json<Present[]>(path, { method: 'POST', headers, body }).catch(() => []));
  };
  const leave = () => {
    if (!told) return;
    told = false;
    void request(path, 'application/json', { method: 'DELETE', keepalive: true }).catch(() => undefined);
  };
  createEffect(on([isPerson, drawing], () => void tell()));
  // Somebody came, left, took up or put down a mask.
  onLive((event) => {
    if (event !== 'reload' && event.study_instance_uid !== uid) return;
    // An analysis under way tells of each step.
    clearTimeout(gathering);
    gathering = setTimeout(() => void tell(), GATHER_MS);
  });
  const timer = setInterval(() => void tell(), EVERY_MS);
  addEventListener('pagehide', leave);
  onCleanup(() => {
    clearInterval(timer);
    clearTimeout(gathering);
    removeEventListener('pagehide', leave);
    leave();
  });
  return others;
}
