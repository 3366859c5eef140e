/**
 * Drawing on the slices: which tool, how large, and the mask under it.
 *
 * A drawing that was left without saving is kept in the browser for the reader who drew it, so that neither a reload nor a closed tab nor a wrong key loses anything.
 * It holds UIDs and pixels, and nothing of the patient.
 */

import { createSignal } from 'solid-js';
import type { SliceRuns } from '../api/model.ts';
import type { Slice } from '../dicomweb/geometry.ts';
import { who } from '../api/session.ts';
import { Drawing, type Place } from '../review/drawing.ts';
import { grow, type Prompt, type Refusal } from '../review/grow.ts';
import { interpolate, type NoFilling } from '../review/interpolation.ts';
import { inside } from '../review/shapes.ts';
import type { Overlays } from './overlays.ts';

export type Tool = 'brush' | 'eraser' | 'lasso' | 'cut' | 'grow';

/** Tools that a press and a way belong to, rather than a round tip. */
export const isRound = (tool: Tool) => tool === 'brush' || tool === 'eraser';

type ValueAt = (column: number, row: number) => number | null;

/** A press with the region tool that moves farther than this is a box, pixels. */
const BOX_FROM = 4;

/** Fresh blood on CT, with room for noise and partial volume, HU. */
export const BLOOD_HU: readonly [number, number] = [40, 100];
const FIRST_RADIUS_MM = 4;
const RADII_MM = [0.5, 30] as const;
/** Each press of a key makes the brush so much larger. */
const LARGER = 1.25;

export type Pencil = ReturnType<typeof createPencil>;

export function createPencil() {
  const [drawing, setDrawing] = createSignal<Drawing | null>(null);
  /** Grows with every change, since a drawing changes in place. */
  const [version, setVersion] = createSignal(0);
  const [tool, setTool] = createSignal<Tool>('brush');
  const [radius, setRadius] = createSignal(FIRST_RADIUS_MM);
  const [bloodOnly, setBloodOnly] = createSignal(false);
  const [range, setRange] = createSignal(BLOOD_HU);
  /** The line of the lasso, or the two corners of the box, while the button is down. */
  const [trace, setTrace] = createSignal<readonly Place[]>([]);
  const [refused, setRefused] = createSignal<Refusal | NoFilling | null>(null);
  let draft = '';
  const changed = () => setVersion((n) => n + 1);

  const resize = (by: number) => setRadius((mm) => Math.min(Math.max(mm * by, RADII_MM[0]), RADII_MM[1]));
  const keep = () => {
    const now = drawing();
    if (now === null) return;
    try {
      localStorage.setItem(draft, JSON.stringify(now.runs()));
    } catch {
      // Without room the drawing is only on the page.
    }
  };
  const draftOf = (analysis: string) => `ictus-drawing/${who()?.name ?? ''}/${analysis}`;
  const allowed = (slice: Slice, valueAt: ValueAt) => {
    const [low, high] = range();
    return (pixel: number) => {
      const hu = valueAt(pixel % slice.columns, Math.floor(pixel / slice.columns));
      return hu !== null && hu >= low && hu <= high;
    };
  };
  const lift = () => {
    if (drawing()?.lift()) keep();
    changed();
  };

  return {
    drawing,
    version,
    tool,
    setTool,
    radius,
    larger: () => resize(LARGER),
    smaller: () => resize(1 / LARGER),
    bloodOnly,
    setBloodOnly,
    range,
    setRange,
    trace,
    refused,

    /** Begins with what was left unsaved, else with the mask that is shown. */
    open: (analysis: string, kind: string, slices: readonly Slice[], masks: Overlays['masks']) => {
      draft = `${draftOf(analysis)}/${kind}`;
      const next = new Drawing(slices);
      const left = localStorage.getItem(draft);
      if (left !== null) next.addRuns(JSON.parse(left) as SliceRuns[]);
      else {
        for (const [uid, of] of masks) for (const mask of of) next.add(uid, mask.unpack());
      }
      setRefused(null);
      setDrawing(next);
      changed();
    },
    /** Whether something that the person here drew on this analysis was never saved. */
    waits: (analysis: string) => {
      version();
      return Object.keys(localStorage).some((name) => name.startsWith(`${draftOf(analysis)}/`));
    },
    /** Leaves the drawing; what was not saved waits for the next time. */
    close: () => setDrawing(null),
    /** Leaves the drawing for good: it was saved, or is not wanted. */
    discard: () => {
      localStorage.removeItem(draft);
      setDrawing(null);
      changed();
    },

    /** A piece of the way of a press: the round tools draw at once, the others collect it. */
    draw: (slice: Slice, from: Place, to: Place, valueAt: ValueAt) => {
      setRefused(null);
      if (!isRound(tool())) {
        const isBox = tool() === 'grow';
        setTrace((line) => (isBox ? [line[0] ?? from, to] : [...(line.length > 0 ? line : [from]), to]));
        return changed();
      }
      const painting = tool() === 'brush';
      const may = painting && bloodOnly() ? allowed(slice, valueAt) : undefined;
      drawing()?.draw(slice.key, from, to, radius(), painting ? 1 : 0, may);
      changed();
    },
    /** The end of a press: what it enclosed or meant is set, or cut out. */
    finish: (slice: Slice, valueAt: ValueAt) => {
      const line = trace();
      setTrace([]);
      const { rows, columns, key: uid } = slice;
      const [first, last] = [line[0], line.at(-1)];
      if (tool() === 'grow' && first !== undefined && last !== undefined) {
        const hu = Float32Array.from(
          { length: rows * columns },
          (_, pixel) => valueAt(pixel % columns, Math.floor(pixel / columns)) ?? Number.NaN,
        );
        const isBox = Math.min(Math.abs(last[0] - first[0]), Math.abs(last[1] - first[1])) > BOX_FROM;
        const prompt: Prompt = isBox ? { from: first, to: last } : { at: first };
        const grown = grow({ rows, columns, hu }, prompt);
        if ('pixels' in grown) drawing()?.fill(uid, grown.pixels, 1);
        else setRefused(grown.refused);
      } else if (line.length > 2) {
        const adding = tool() === 'lasso';
        const may = adding && bloodOnly() ? allowed(slice, valueAt) : undefined;
        drawing()?.fill(uid, inside(line, rows, columns), adding ? 1 : 0, may);
      }
      lift();
    },
    /** Fills the empty slices between those that are drawn on: one step of undo. */
    fillBetween: (slices: readonly Slice[]) => {
      const now = drawing();
      if (now === null) return;
      const filling = interpolate(now, slices);
      if (typeof filling === 'string') return void setRefused(filling);
      setRefused(null);
      for (const [uid, pixels] of filling) now.fill(uid, pixels, 1);
      lift();
    },
    /** Answer the images that changed, so that the reader sees what happened. */
    undo: () => {
      const images = drawing()?.undo() ?? [];
      keep();
      changed();
      return images;
    },
    redo: () => {
      const images = drawing()?.redo() ?? [];
      keep();
      changed();
      return images;
    },
  };
}
