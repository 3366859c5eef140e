/**
 * Verdicts that could not be sent: kept in this browser, and sent as the same reader when the server is there again.
 *
 * What is kept is UIDs and words, nothing of the patient but a note that the reader wrote.
 * A verdict that others have overtaken meanwhile is not sent: its reader looks again.
 */

import { createEffect, createSignal, on, onCleanup } from 'solid-js';
import { ApiError, sentence } from '../api/client.ts';
import type { NewVerdict, Verdict } from '../api/model.ts';
import { mayJudge, who } from '../api/session.ts';
import { getVerdicts, giveVerdict, holding } from '../api/verdicts.ts';
import { connected } from '../live.ts';
import { messages } from '../ui/messages.ts';

const PLACE = 'ictus-outbox';
const AGAIN_MS = 10_000;

export interface Kept {
  reader: string;
  study: string;
  verdict: NewVerdict;
  /** The verdict that held for the same question when this one was given. */
  after: string | number | null;
  /** Why the server did not take it. */
  refused: string | null;
}

function read(): Kept[] {
  try {
    return JSON.parse(localStorage.getItem(PLACE) ?? '[]') as Kept[];
  } catch {
    return [];
  }
}

const [kept, setKept] = createSignal<readonly Kept[]>(read());
/** Grows when a kept verdict was sent. */
const [sent, setSent] = createSignal(0);

export { sent };

/** What the reader here has waiting. */
export const waiting = () => kept().filter(({ reader }) => reader === who()?.name);

/** Puts one away; throws when the browser has no room, since then nothing is kept. */
function write(change: (all: readonly Kept[]) => readonly Kept[]): void {
  // Another tab may have kept or sent something.
  const next = change(read());
  localStorage.setItem(PLACE, JSON.stringify(next));
  setKept(next);
}

const same = (a: Kept) => (b: Kept) =>
  JSON.stringify({ ...a, refused: null }) !== JSON.stringify({ ...b, refused: null });

export function keep(one: Kept): void {
  write((all) => [...all.filter(same(one)), one]);
}

export function forget(one: Kept): void {
  write((all) => all.filter(same(one)));
}

/** Whether a verdict says what another one wanted to say. */
export function saysTheSame(row: Verdict, wanted: NewVerdict): boolean {
  return row.verdict === wanted.verdict && row.reason === wanted.reason && row.note === wanted.note;
}

async function send(one: Kept): Promise<void> {
  const { study, verdict } = one;
  const now = holding(await getVerdicts(study), verdict.analysis, verdict.finding);
  // The answer to it may have been what was lost.
  if (now !== null && saysTheSame(now, verdict) && now.reader_name === who()?.name) return forget(one);
  if ((now?.id ?? null) !== one.after) throw new Error(messages.outbox.overtaken);
  await giveVerdict(study, verdict);
  forget(one);
}

let sending = false;

async function sendAll(): Promise<void> {
  if (sending || !mayJudge()) return;
  sending = true;
  try {
    for (const one of waiting().filter(({ refused }) => refused === null)) {
      await send(one);
      setSent((n) => n + 1);
    }
  } catch (error) {
    const later =
      error instanceof ApiError && (error.status === 0 || error.status === 401 || error.status >= 500);
    const [first] = waiting().filter(({ refused }) => refused === null);
    if (!later && first !== undefined) keep({ ...first, refused: sentence(error) });
  } finally {
    sending = false;
  }
}

/** Sends what waits for as long as the calling component lives. */
export function startOutbox(): void {
  createEffect(on([who, connected], () => void sendAll()));
  const again = setInterval(() => void sendAll(), AGAIN_MS);
  const online = () => void sendAll();
  addEventListener('online', online);
  onCleanup(() => {
    clearInterval(again);
    removeEventListener('online', online);
  });
}
