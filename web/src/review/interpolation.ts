/**
 * A mask on some slices → what lies between them, by the distances to the edges of the drawn shapes.
 *
 * A slice between is weighed by where it lies, so uneven steps are right.
 * Pixels of the drawn slices are joined along the way on which the scanner moved, as the slices' own positions tell it, so a tilted stack is right too; a slice that lies off that way is refused.
 */

import type { Slice } from '../dicomweb/geometry.ts';
import type { Drawing } from './drawing.ts';
import { between, signedDistance } from './shapes.ts';

/** How far a slice may lie beside the way from one drawn slice to the next, in pixels. */
const ASIDE = 0.5;

/** What is to be set, by image. */
export type Filling = Map<string, Uint8Array>;

/** Why nothing was filled. */
export type NoFilling = 'nothing_between' | 'off_the_way';

/** The masks of all empty slices that lie between two drawn ones; what is drawn stays as it is. */
export function interpolate(drawing: Drawing, slices: readonly Slice[]): Filling | NoFilling {
  const drawn = slices.map(({ key: uid }) => drawing.pixels(uid)?.includes(1) ?? false);
  const keys = slices.map((_, index) => index).filter((index) => drawn[index]);
  const filling: Filling = new Map();
  for (const [i, first] of keys.entries()) {
    const last = keys[i + 1];
    const [from, to] = [slices[first], slices[last ?? -1]];
    if (last === undefined || from === undefined || to === undefined || last - first < 2) continue;
    const [near, far] = [from, to].map((slice) =>
      signedDistance(
        drawing.pixels(slice.key) ?? new Uint8Array(),
        slice.rows,
        slice.columns,
        slice.pixelSpacingMm,
      ),
    );
    if (near === undefined || far === undefined || near.length !== far.length) return 'off_the_way';
    for (const slice of slices.slice(first + 1, last)) {
      const share = (slice.alongMm - from.alongMm) / (to.alongMm - from.alongMm);
      if (!onTheWay(from, to, slice, share)) return 'off_the_way';
      const mask = between(near, far, share);
      if (mask.includes(1)) filling.set(slice.key, mask);
    }
  }
  return filling.size === 0 ? 'nothing_between' : filling;
}

/** Whether the first pixel of a slice lies where the line between those of two others passes. */
function onTheWay(from: Slice, to: Slice, slice: Slice, share: number): boolean {
  const aside = slice.imagePositionPatient.map((at, axis) => {
    const [a = Number.NaN, b = Number.NaN] = [from.imagePositionPatient[axis], to.imagePositionPatient[axis]];
    return at - (a + (b - a) * share);
  });
  const same = slice.rows === from.rows && slice.columns === from.columns;
  return same && Math.hypot(...aside) <= ASIDE * Math.min(...slice.pixelSpacingMm);
}
