/** What the reader looks at: slice, window, overlays, chosen finding. Plain signals, shared by the parts of the study page. */

import { createMemo, createSignal } from 'solid-js';
import type { Finding, StudyDetail } from '../api/model.ts';
import { headward, type Slice } from '../dicomweb/geometry.ts';
import { keySlice, NO_OVERLAYS, type Overlays } from './overlays.ts';
import { findingColour, READER_COLOUR, type Rgb } from './palette.ts';
import { createPencil } from './pencil.ts';
import { createRuler } from './ruler.ts';
import { FIRST_WINDOW, type Window } from './windows.ts';

const FIRST_OPACITY = 0.6;

export type Session = ReturnType<typeof createSession>;

export function createSession(study: () => StudyDetail | null) {
  const [slices, setSlices] = createSignal<readonly Slice[]>([]);
  const [machine, setOverlays] = createSignal<Overlays>(NO_OVERLAYS);
  const [readerMasks, setReaderMasks] = createSignal<Overlays['masks'] | null>(null);
  const pencil = createPencil();
  const ruler = createRuler();
  const [series, setSeries] = createSignal<string | null>(null);
  const [asked, setAsked] = createSignal(0);
  const [shown, setShown] = createSignal<number | null>(null);
  const [window, setWindow] = createSignal<Window>(FIRST_WINDOW);
  const [mask, setMask] = createSignal(true);
  const [uncertainty, setUncertainty] = createSignal(false);
  const [opacity, setOpacity] = createSignal(FIRST_OPACITY);
  const [chosen, setChosen] = createSignal<string | null>(null);
  const [planes, setPlanes] = createSignal(false);

  /** What lies on the slices: the machine's mask, or the one of a reader that was chosen instead. */
  const overlays = createMemo<Overlays>(() => {
    const masks = readerMasks();
    return masks === null ? machine() : { ...machine(), masks };
  });
  const findings = createMemo<readonly Finding[]>(() => study()?.analysis?.report.findings ?? []);
  const chosenFinding = createMemo(() => findings().find(({ id }) => id === chosen()) ?? null);

  const go = (index: number) => setAsked(Math.min(Math.max(index, 0), Math.max(slices().length - 1, 0)));

  /** The slice to jump to: where the mask has most of the finding; without a mask, where the report says. */
  const sliceOf = (finding: Finding): number | null => {
    const drawn = keySlice(machine(), slices(), finding.segment);
    if (drawn !== null) return drawn;
    const told = finding.series === series() && finding.key_slice < slices().length;
    return told ? finding.key_slice : null;
  };

  /** Takes the slices of a series; the reader stays where he was, or starts at the key slice of the first finding. */
  const use = (uid: string, next: readonly Slice[]) => {
    const here = series() === uid ? slices()[asked()]?.sopInstanceUid : undefined;
    setOverlays(NO_OVERLAYS);
    if (series() !== uid) ruler.clear();
    setSeries(uid);
    setSlices(next);
    const [first] = findings();
    const again = next.findIndex((slice) => slice.sopInstanceUid === here);
    const key = first === undefined ? null : sliceOf(first);
    go(again >= 0 ? again : (key ?? Math.floor(next.length / 2)));
  };

  const jump = (finding: Finding) => {
    setChosen(finding.id);
    const index = sliceOf(finding);
    if (index !== null) go(index);
  };

  /** One colour a kind of finding, in the order in which the kinds come. */
  const colour = (finding: Finding | undefined): Rgb => {
    const kinds = [...new Set(findings().map(({ kind }) => kind))];
    return findingColour(Math.max(kinds.indexOf(finding?.kind ?? ''), 0));
  };

  return {
    slices,
    use,
    overlays,
    setOverlays,
    readerMasks,
    setReaderMasks,
    pencil,
    ruler,
    series,
    asked,
    go,
    /** Moves towards the head (positive) or the feet. */
    move: (steps: number) => go(asked() + steps * headward(slices())),
    shown,
    setShown,
    window,
    setWindow,
    mask,
    setMask,
    uncertainty,
    setUncertainty,
    opacity,
    setOpacity,
    findings,
    /** Whether three planes are shown instead of the slices; drawing and measuring happen on the slices. */
    planes: () => planes() && pencil.drawing() === null && ruler.tool() === null,
    setPlanes,
    chosenFinding,
    setChosen,
    sliceOf,
    jump,
    nextFinding: () => {
      const list = findings();
      const next = list[(list.findIndex(({ id }) => id === chosen()) + 1) % Math.max(list.length, 1)];
      if (next) jump(next);
    },
    colour,
    segmentColour: (segment: number) =>
      readerMasks() === null ? colour(findings().find((f) => f.segment === segment)) : READER_COLOUR,
  };
}
