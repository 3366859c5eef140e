/**
 * Drawing on the slices: which tool, how large, and the mask under it.
 *
 * A drawing that was left without saving is kept in the tab, so that a reload or a wrong key loses nothing.
 */

import { createSignal } from 'solid-js';
import type { SliceRuns } from '../api/model.ts';
import type { Slice } from '../dicomweb/geometry.ts';
import { Drawing, type Place } from '../review/drawing.ts';
import type { Overlays } from './overlays.ts';

export type Tool = 'brush' | 'eraser';

/** Fresh blood on CT, with room for noise and partial volume, HU. */
export const BLOOD_HU = [40, 100] as const;
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
  let draft = '';
  const changed = () => setVersion((n) => n + 1);

  const resize = (by: number) => setRadius((mm) => Math.min(Math.max(mm * by, RADII_MM[0]), RADII_MM[1]));
  const keep = () => {
    const now = drawing();
    if (now === null) return;
    try {
      sessionStorage.setItem(draft, JSON.stringify(now.runs()));
    } catch {
      // Without room the drawing is only on the page.
    }
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

    /** Begins with what was left unsaved, else with the mask that is shown. */
    open: (analysis: string, slices: readonly Slice[], overlays: Overlays) => {
      draft = `ictus-drawing/${analysis}`;
      const next = new Drawing(slices);
      const left = sessionStorage.getItem(draft);
      if (left !== null) next.addRuns(JSON.parse(left) as SliceRuns[]);
      else {
        for (const [uid, masks] of overlays.masks) for (const mask of masks) next.add(uid, mask.unpack());
      }
      setDrawing(next);
      changed();
    },
    /** Leaves the drawing; what was not saved waits for the next time. */
    close: () => setDrawing(null),
    /** Leaves the drawing for good: it was saved, or is not wanted. */
    discard: () => {
      sessionStorage.removeItem(draft);
      setDrawing(null);
    },

    draw: (slice: Slice, from: Place, to: Place, valueAt: (column: number, row: number) => number | null) => {
      const [low, high] = BLOOD_HU;
      const allowed = (pixel: number) => {
        const hu = valueAt(pixel % slice.columns, Math.floor(pixel / slice.columns));
        return hu !== null && hu >= low && hu <= high;
      };
      const painting = tool() === 'brush';
      drawing()?.draw(
        slice.sopInstanceUid,
        from,
        to,
        radius(),
        painting ? 1 : 0,
        painting && bloodOnly() ? allowed : undefined,
      );
      changed();
    },
    lift: () => {
      if (drawing()?.lift()) keep();
      changed();
    },
    undo: () => {
      drawing()?.undo();
      keep();
      changed();
    },
    redo: () => {
      drawing()?.redo();
      keep();
      changed();
    },
  };
}
