/** The readers' masks of one study as the page holds them: which there are, which one is shown, and how one is drawn and saved. */

import { createEffect, createMemo, createSignal, on, onCleanup } from 'solid-js';
import { sentence } from '../api/client.ts';
import { getCorrections, saveCorrection, volumeMl } from '../api/corrections.ts';
import type { Correction, StudyDetail } from '../api/model.ts';
import { mayJudge, setSigningIn } from '../api/session.ts';
import { retrieve } from '../dicomweb/client.ts';
import { readSegmentation } from '../dicomweb/segmentation.ts';
import { millilitres } from '../ui/format.ts';
import { messages } from '../ui/messages.ts';
import type { Session } from '../viewer/session.ts';

/** What is drawn where the analysis found nothing, or bleeds of several kinds. */
const ANY_BLEED = 'haemorrhage';

/** The kind of a mask that begins with these findings: theirs, if they are of one. */
const kindOf = (findings: readonly { kind: string }[]) => {
  const kinds = new Set(findings.map(({ kind }) => kind));
  const [only] = kinds;
  return only !== undefined && kinds.size === 1 ? only : ANY_BLEED;
};

export type Masks = ReturnType<typeof createMasks>;

export function createMasks(study: () => StudyDetail | null, session: Session) {
  const [all, setAll] = createSignal<Correction[]>([]);
  const [shown, setShown] = createSignal<Correction | null>(null);
  const [busy, setBusy] = createSignal(false);
  const [trouble, setTrouble] = createSignal<string | null>(null);
  const [said, setSaid] = createSignal('');

  const analysis = () => study()?.analysis ?? null;
  const analysisId = createMemo(() => analysis()?.id ?? null);
  const corrections = createMemo(() => all().filter((c) => c.analysis === analysisId()));

  const load = async () => {
    const uid = study()?.study_instance_uid;
    if (uid === undefined) return;
    try {
      setAll(await getCorrections(uid));
    } catch (error) {
      setTrouble(sentence(error));
    }
  };

  createEffect(
    on([shown, session.slices, analysisId], ([correction, slices, id]) => {
      session.setReaderMasks(null);
      const uid = study()?.study_instance_uid;
      if (correction === null || uid === undefined || slices.length === 0) return;
      // A mask of an earlier answer is not shown on a later one.
      if (correction.analysis !== id) return void setShown(null);
      let current = true;
      onCleanup(() => {
        current = false;
      });
      retrieve(uid, correction).then(
        (bytes) => {
          if (!current) return;
          try {
            session.setReaderMasks(readSegmentation(bytes, slices).bySource);
          } catch (error) {
            setTrouble(messages.placement.refused(messages.draw.masks, sentence(error)));
          }
        },
        (error) => current && setTrouble(sentence(error)),
      );
    }),
  );

  /** Begins to draw on the analysed series, or says why not. */
  const draw = () => {
    const known = analysis();
    const chosen = study()?.series.find((s) => s.chosen)?.series_instance_uid;
    if (known === null || chosen === undefined) return;
    if (!mayJudge()) return void setSigningIn(true);
    if (session.series() !== chosen) return void setSaid(messages.draw.otherSeries);
    // Begun on nothing, a correction would save that the machine's mask is wrong everywhere.
    if (known.seg !== null && session.overlays().masks.size === 0) return void setSaid(messages.draw.loading);
    session.setMask(true);
    session.pencil.open(known.id, session.slices(), session.overlays());
  };

  const save = async () => {
    const [known, uid, drawing] = [analysis(), study()?.study_instance_uid, session.pencil.drawing()];
    if (known === null || uid === undefined || drawing === null || busy()) return;
    setBusy(true);
    setTrouble(null);
    try {
      const saved = await saveCorrection(uid, {
        analysis: known.id,
        kind: kindOf(session.findings()),
        edited: session.findings().length > 0,
        slices: drawing.runs(),
      });
      session.pencil.discard();
      setAll((before) => [...before.filter(({ id }) => id !== saved.id), saved]);
      setShown(saved);
      setSaid(messages.draw.saved(millilitres(volumeMl(saved))));
    } catch (error) {
      setTrouble(sentence(error));
    } finally {
      setBusy(false);
    }
  };

  return { corrections, shown, show: setShown, busy, trouble, said, load, draw, save };
}
