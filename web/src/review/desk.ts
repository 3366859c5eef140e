/** The verdicts of one study as the page holds them, and how the reader gives one. */

import { createEffect, createSignal, on } from 'solid-js';
import { ApiError, getWorklist, sentence } from '../api/client.ts';
import type { NewVerdict, StudyDetail, Verdict, Word } from '../api/model.ts';
import { mayJudge, setSigningIn, who } from '../api/session.ts';
import { getVerdicts, giveVerdict, holding } from '../api/verdicts.ts';
import { messages } from '../ui/messages.ts';
import { keep, sent } from './outbox.ts';

/** Studies among which the next one is looked for. */
const AHEAD = 200;

/** A verdict that wants its reason before it is given. */
export interface Pending {
  finding: string | null;
  verdict: 'reject' | 'missed';
}

export function createDesk(study: () => StudyDetail | null) {
  const [verdicts, setVerdicts] = createSignal<Verdict[]>([]);
  const [trouble, setTrouble] = createSignal<string | null>(null);
  const [pending, setPending] = createSignal<Pending | null>(null);
  const [busy, setBusy] = createSignal(false);
  const [said, setSaid] = createSignal('');
  let loaded = false;

  const load = async () => {
    const uid = study()?.study_instance_uid;
    if (uid === undefined) return;
    try {
      const all = await getVerdicts(uid);
      const news = loaded ? all.filter(({ id }) => !verdicts().some((known) => known.id === id)) : [];
      const others = news.filter(({ reader_name: reader }) => reader !== who()?.name);
      if (others.length > 0) setSaid(messages.presence.said(others.at(-1)?.reader ?? ''));
      loaded = true;
      setVerdicts(all);
    } catch (error) {
      setTrouble(sentence(error));
    }
  };

  /** Gives a verdict; asks for the reason first where one is wanted. Answers whether it was recorded, or kept until the server can be reached. */
  const give = async (
    finding: string | null,
    verdict: Word,
    reason: string | null = null,
    note: string | null = null,
  ): Promise<boolean> => {
    const known = study();
    if (!known?.analysis || busy()) return false;
    if (!mayJudge()) {
      setSigningIn(true);
      return false;
    }
    const wantsReason = verdict === 'missed' || (verdict === 'reject' && finding !== null);
    if (wantsReason && reason === null) {
      setPending({ finding, verdict: verdict === 'missed' ? 'missed' : 'reject' });
      return false;
    }
    const body: NewVerdict = { analysis: known.analysis.id, finding, verdict, reason, note };
    setBusy(true);
    setTrouble(null);
    try {
      const row = await giveVerdict(known.study_instance_uid, body);
      setVerdicts((all) => [...all.filter(({ id }) => id !== row.id), row]);
      setPending(null);
      return true;
    } catch (error) {
      if (error instanceof ApiError && error.status === 0 && keepForLater(known.study_instance_uid, body)) {
        setPending(null);
        return true;
      }
      setTrouble(sentence(error));
      return false;
    } finally {
      setBusy(false);
    }
  };

  /** Keeps a verdict that did not reach the server; answers whether there was room. */
  const keepForLater = (uid: string, verdict: NewVerdict): boolean => {
    const after = holding(verdicts(), verdict.analysis, verdict.finding)?.id ?? null;
    try {
      keep({ reader: who()?.name ?? '', study: uid, verdict, after, refused: null });
      return true;
    } catch {
      return false;
    }
  };
  createEffect(on(sent, () => void load(), { defer: true }));

  const current = (finding: string | null): Verdict | null => {
    const analysis = study()?.analysis;
    return analysis ? holding(verdicts(), analysis.id, finding) : null;
  };

  /** The first other study of the worklist that nobody has read; null when there is none. */
  const next = async (): Promise<string | null> => {
    const { studies } = await getWorklist('read=false', 0, AHEAD);
    const others = studies.filter((s) => s.study_instance_uid !== study()?.study_instance_uid);
    const ready = others.find((s) => s.state !== 'arriving' && s.state !== 'analysing');
    return ready?.study_instance_uid ?? null;
  };

  return { verdicts, said, trouble, pending, setPending, busy, load, give, current, next };
}

export type Desk = ReturnType<typeof createDesk>;
