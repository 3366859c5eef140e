/** Slices of two stacks that nothing registers, matched by how far they lie below the uppermost one. */

import { headward, type Slice } from '../dicomweb/geometry.ts';

/** Distance of a slice from the uppermost one, mm. */
export function depthMm(slices: readonly Slice[], index: number): number {
  const top = slices[headward(slices) > 0 ? slices.length - 1 : 0];
  return Math.abs((slices[index]?.alongMm ?? 0) - (top?.alongMm ?? 0));
}

/** The slice nearest to a distance from the uppermost one. */
export function atDepth(slices: readonly Slice[], mm: number): number {
  const far = (index: number) => Math.abs(depthMm(slices, index) - mm);
  return slices.reduce((best, _, index) => (far(index) < far(best) ? index : best), 0);
}
