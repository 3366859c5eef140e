/** Measurements of the study that is open: which there are, and the one in the reader's hand. They are not saved. */

import { createSignal } from 'solid-js';
import type { Slice } from '../dicomweb/geometry.ts';
import type { Place } from '../review/drawing.ts';
import { angleDegrees, type Density, density, type Kind, lengthMm, PLACES } from './measure.ts';

export interface Measurement {
  /** Counts on for as long as the study is open. */
  id: number;
  kind: Kind;
  slice: Slice;
  places: readonly Place[];
  /** Millimetres of a length, degrees of an angle. */
  value: number | null;
  density: Density | null;
}

type ValueAt = (column: number, row: number) => number | null;

/** A press that moves less than this is a click: the next place is another one, pixels. */
const CLICK = 1.5;

export type Ruler = ReturnType<typeof createRuler>;

export function createRuler() {
  const [tool, setTool] = createSignal<Kind | null>(null);
  const [all, setAll] = createSignal<readonly Measurement[]>([]);
  const [chosen, setChosen] = createSignal<number | null>(null);
  const [placed, setPlaced] = createSignal<readonly Place[]>([]);
  const [on, setOn] = createSignal<Slice | null>(null);
  /** Where the next place would be. */
  const [cursor, setCursor] = createSignal<Place | null>(null);
  let count = 0;

  const measure = (kind: Kind, slice: Slice, places: readonly Place[], valueAt: ValueAt) => {
    const [a, b, c] = places;
    const value =
      a && b && kind === 'length'
        ? lengthMm(slice, a, b)
        : a && b && c && kind === 'angle'
          ? angleDegrees(slice, a, b, c)
          : null;
    return { value, density: a && b && kind === 'ellipse' ? density(slice, a, b, valueAt) : null };
  };

  const drop = () => {
    setPlaced([]);
    setOn(null);
  };
  const use = (kind: Kind | null) => {
    drop();
    setTool((now) => (now === kind ? null : kind));
    if (tool() === null) setCursor(null);
  };
  /** Sets the next place; the last one completes the measurement. */
  const put = (slice: Slice, at: Place, valueAt: ValueAt) => {
    const kind = tool();
    if (kind === null) return;
    // Nothing is measured from one slice to another.
    if (on() !== slice) drop();
    setOn(slice);
    const places = [...placed(), at];
    setPlaced(places);
    if (places.length < PLACES[kind]) return;
    drop();
    const measured = measure(kind, slice, places, valueAt);
    if (measured.value === null && measured.density === null) return;
    const made = { id: ++count, kind, slice, places, ...measured };
    setAll((before) => [...before, made]);
    setChosen(made.id);
  };

  return {
    tool,
    use,
    all,
    chosen,
    setChosen,
    cursor,
    setCursor,
    put,
    /** The end of a press: after a drag the place where it ended is meant too. */
    lift: (slice: Slice, at: Place, valueAt: ValueAt) => {
      const last = placed().at(-1);
      if (last && Math.hypot(at[0] - last[0], at[1] - last[1]) > CLICK) put(slice, at, valueAt);
    },
    /** What is under way on a slice, with the cursor as its next place. */
    underWay: (slice: Slice): Pick<Measurement, 'kind' | 'places'> | null => {
      const [kind, at] = [tool(), cursor()];
      if (kind === null || on() !== slice || placed().length === 0) return null;
      return { kind, places: at === null ? placed() : [...placed(), at] };
    },
    remove: (id: number | null) => {
      setAll((before) => before.filter((one) => one.id !== id));
      if (chosen() === id) setChosen(all().at(-1)?.id ?? null);
    },
    clear: () => {
      drop();
      setAll([]);
      setChosen(null);
    },
  };
}
