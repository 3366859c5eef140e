/** The readers' masks of one study as the page holds them: which there are, which one is shown, and how one is drawn and saved. */

import { createEffect, createMemo, createSignal, on, onCleanup } from 'solid-js';
import { sentence } from '../api/client.ts';
import { getCorrections, saveCorrection, volumeMl } from '../api/corrections.ts';
import type { Correction, Finding, StudyDetail } from '../api/model.ts';
import { mayJudge, setSigningIn, who } from '../api/session.ts';
import { retrieve } from '../dicomweb/client.ts';
import { readSegmentation } from '../dicomweb/segmentation.ts';
import { millilitres } from '../ui/format.ts';
import { messages } from '../ui/messages.ts';
import { resultsOn } from '../viewer/overlays.ts';
import type { Session } from '../viewer/session.ts';

/** What is drawn where nobody says of what. */
const ANY_BLEED = 'haemorrhage';

/** What a mask is of: the answer to one question. */
interface Subject {
  question: string;
  /** As the mask is saved: the kind of its findings if they are of one, else the question. */
  kind: string;
  /** The findings that it begins with. */
  findings: readonly Finding[];
}

export type Masks = ReturnType<typeof createMasks>;

export function createMasks(study: () => StudyDetail | null, session: Session) {
  const [all, setAll] = createSignal<Correction[]>([]);
  const [shown, setShown] = createSignal<Correction | null>(null);
  const [busy, setBusy] = createSignal(false);
  const [trouble, setTrouble] = createSignal<string | null>(null);
  const [said, setSaid] = createSignal('');
  let loaded = false;
  /** What is under the pencil. */
  const [drawn, setDrawn] = createSignal({ kind: ANY_BLEED, edited: false });

  const analysis = () => study()?.analysis ?? null;
  const analysisId = createMemo(() => analysis()?.id ?? null);
  const corrections = createMemo(() => all().filter((c) => c.analysis === analysisId()));

  /** What can be drawn on the series that is shown: one subject a question that was asked of it. */
  const subjects = createMemo((): Subject[] => {
    const known = analysis();
    if (known === null) return [];
    const { answers } = known.report;
    const asked = resultsOn(known, session.series()).flatMap(({ question }) => question ?? []);
    const questions = [...new Set(asked)];
    return (questions.length > 0 ? questions : [ANY_BLEED]).map((question) => {
      const models = answers.filter((answer) => answer.question === question).map(({ model }) => model);
      const findings = session.here().filter(({ model }) => models.includes(model));
      const kinds = new Set(findings.map(({ kind }) => kind));
      const [only] = kinds;
      return { question, kind: only !== undefined && kinds.size === 1 ? only : question, findings };
    });
  });
  const [picked, setPicked] = createSignal<string | null>(null);
  /** The one that was picked, else that of the chosen finding, else the first with a finding. */
  const subject = (): Subject | null => {
    const all = subjects();
    const chosen = session.chosenFinding()?.id;
    return (
      all.find(({ question }) => question === picked()) ??
      all.find(({ findings }) => findings.some(({ id }) => id === chosen)) ??
      all.find(({ findings }) => findings.length > 0) ??
      all[0] ??
      null
    );
  };

  const load = async () => {
    const uid = study()?.study_instance_uid;
    if (uid === undefined) return;
    try {
      const next = await getCorrections(uid);
      const news = loaded ? next.filter(({ id }) => !all().some((known) => known.id === id)) : [];
      const others = news.filter(({ reader_name: reader }) => reader === null || reader !== who()?.name);
      if (others.length > 0) setSaid(messages.presence.drew(others.at(-1)?.reader ?? ''));
      loaded = true;
      setAll(next);
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
    const about = subject();
    if (known === null || about === null) return;
    if (!mayJudge()) return void setSigningIn(true);
    const series = study()?.series.find((s) => s.series_instance_uid === session.series());
    if (!series?.chosen) return void setSaid(messages.draw.otherSeries);
    const { masks } = session.overlays();
    const reader = shown();
    const numbers = about.findings.map(session.numberOf);
    const begins = new Map(
      [...masks].map(([uid, of]) => [uid, of.filter(({ segment }) => reader || numbers.includes(segment))]),
    );
    // Begun on nothing, a correction would save that the machine's mask is wrong everywhere.
    const there = [...begins.values()].some((of) => of.length > 0);
    if (about.findings.length > 0 && !there) return void setSaid(messages.draw.loading);
    const kind = reader?.kind ?? about.kind;
    session.setMask(true);
    setDrawn({ kind, edited: about.findings.length > 0 });
    session.pencil.open(known.id, kind, session.slices(), begins);
  };

  const save = async () => {
    const [known, uid, drawing] = [analysis(), study()?.study_instance_uid, session.pencil.drawing()];
    if (known === null || uid === undefined || drawing === null || busy()) return;
    setBusy(true);
    setTrouble(null);
    try {
      const saved = await saveCorrection(uid, {
        analysis: known.id,
        ...drawn(),
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

  return {
    corrections,
    shown,
    show: setShown,
    subjects,
    subject,
    setSubject: setPicked,
    busy,
    trouble,
    said,
    load,
    draw,
    save,
  };
}
