/** What the reader looks at: slice, window, overlays, chosen finding. Plain signals, shared by the parts of the study page. */

import { createMemo, createSignal } from 'solid-js';
import type { Finding, StudyDetail } from '../api/model.ts';
import { headward, type Slice } from '../dicomweb/geometry.ts';
import { keySlice, type MapLayer, NO_OVERLAYS, type Overlays } from './overlays.ts';
import { findingColour, READER_COLOUR, type Rgb } from './palette.ts';
import { createPencil } from './pencil.ts';
import { createRuler } from './ruler.ts';
import { FIRST_WINDOW, VESSELS, type Window } from './windows.ts';

const FIRST_OPACITY = 0.6;

export type Session = ReturnType<typeof createSession>;

/**
 * @param study what is known of the study
 * @param pick shows another series of it
 */
export function createSession(study: () => StudyDetail | null, pick: (series: string) => void) {
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
  const [contours, setContours] = createSignal(false);
  const [anatomy, setAnatomy] = createSignal(false);
  /** The map that the reader picked, by its instance; null for the first. */
  const [pickedMap, setPickedMap] = createSignal<string | null>(null);
  const [opacity, setOpacity] = createSignal(FIRST_OPACITY);
  const [chosen, setChosen] = createSignal<string | null>(null);
  const [planes, setPlanes] = createSignal(false);
  const [comparing, setComparing] = createSignal(false);

  /** What lies on the slices: the machine's mask, or the one of a reader that was chosen instead. */
  const overlays = createMemo<Overlays>(() => {
    const masks = readerMasks();
    return masks === null ? machine() : { ...machine(), masks };
  });
  const findings = createMemo<readonly Finding[]>(() => study()?.analysis?.report.findings ?? []);
  /** The findings on the series that is shown. */
  const here = createMemo(() => findings().filter((finding) => finding.series === series()));
  /** The number of a finding in the masks. */
  const numberOf = (finding: Finding) => findings().findIndex(({ id }) => id === finding.id) + 1;
  /** The map under the slider: the one that was picked, else the first. */
  const layer = createMemo<MapLayer | null>(() => {
    const { maps } = overlays();
    return maps.find(({ object }) => object.sop_instance_uid === pickedMap()) ?? maps[0] ?? null;
  });
  const chosenFinding = createMemo(() => findings().find(({ id }) => id === chosen()) ?? null);

  const go = (index: number) => setAsked(Math.min(Math.max(index, 0), Math.max(slices().length - 1, 0)));

  /** The slice to jump to: where the mask has most of the finding; without a mask, where the report says. */
  const sliceOf = (finding: Finding): number | null => {
    const drawn = keySlice(machine(), slices(), numberOf(finding));
    if (drawn !== null) return drawn;
    const told = finding.series === series() && finding.key_slice < slices().length;
    return told ? finding.key_slice : null;
  };

  /** The window that a series is opened with: enhanced vessels are all white in one for the brain. */
  const usualWindow = (): Window =>
    here().some(({ kind }) => kind.endsWith('occlusion')) ? VESSELS : FIRST_WINDOW;

  /** Takes the slices of a series; the reader stays where he was, or starts at the key slice of the first finding. */
  const use = (uid: string, next: readonly Slice[]) => {
    const before = series() === uid ? slices()[asked()]?.key : undefined;
    setOverlays(NO_OVERLAYS);
    if (series() !== uid) ruler.clear();
    const usual = usualWindow();
    setSeries(uid);
    setSlices(next);
    if (window() === usual) setWindow(usualWindow());
    const again = next.findIndex((slice) => slice.key === before);
    const chosenHere = here().find(({ id }) => id === chosen());
    const first = chosenHere ?? here()[0];
    const key = first === undefined ? null : sliceOf(first);
    go(again >= 0 ? again : (key ?? Math.floor(next.length / 2)));
  };

  const jump = (finding: Finding) => {
    setChosen(finding.id);
    // On another series: the jump ends when its slices are there.
    if (finding.series !== series()) return pick(finding.series);
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
    here,
    numberOf,
    layer,
    setPickedMap,
    /** The next map, after the last the first again. */
    nextMap: () => {
      const { maps } = overlays();
      const at = maps.findIndex((map) => map.object === layer()?.object);
      setPickedMap(maps[(at + 1) % Math.max(maps.length, 1)]?.object.sop_instance_uid ?? null);
      setUncertainty(true);
    },
    /** The map of scores of the question that the map under the slider is about; contours are drawn in it. */
    scores: () => {
      const { maps } = overlays();
      const question = layer()?.object.question;
      return maps.find((map) => map.quantity === 'score' && map.object.question === question) ?? null;
    },
    contours,
    setContours,
    /** Whether the borders of anatomical structures are wanted. */
    anatomy,
    setAnatomy,
    /** The structures on the slice that is shown; null while they are not loaded. */
    structures: () => {
      const { anatomy: loaded } = overlays();
      const slice = slices()[shown() ?? -1];
      return loaded && slice ? (loaded.get(slice.key) ?? []) : null;
    },
    /** Whether three planes are shown instead of the slices; drawing and measuring happen on the slices. */
    planes: () => planes() && pencil.drawing() === null && ruler.tool() === null,
    setPlanes,
    /** Whether another study of the patient is wanted beside this one. */
    comparing: () => comparing() && !planes(),
    setComparing,
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
      readerMasks() === null ? colour(findings()[segment - 1]) : READER_COLOUR,
  };
}
