/**
 * Places on one slice → length, angle, and density within an ellipse.
 *
 * All are measures in the plane of the slice, from its own pixel spacing: pixels need not be square, and the tilt of a stack changes nothing.
 * Nothing is measured from one slice to another.
 */

import type { Place } from '../review/drawing.ts';

export type Kind = 'length' | 'angle' | 'ellipse';

/** How many places each kind takes: ends; end, corner, end; opposite corners of the box around it. */
export const PLACES: Readonly<Record<Kind, number>> = { length: 2, angle: 3, ellipse: 2 };

/** What an image says of the size of its pixels: between rows, then between columns, mm. */
interface Grid {
  pixelSpacingMm: readonly number[];
}

/** From one place to another, mm: along a row, then down a column. */
function step({ pixelSpacingMm: [rowMm = Number.NaN, columnMm = Number.NaN] }: Grid, from: Place, to: Place) {
  return [(to[0] - from[0]) * columnMm, (to[1] - from[1]) * rowMm] as const;
}

/** mm. */
export function lengthMm(grid: Grid, from: Place, to: Place): number {
  return Math.hypot(...step(grid, from, to));
}

/** Between the two arms at a corner, degrees, 0 to 180; null while an arm has no length. */
export function angleDegrees(grid: Grid, one: Place, corner: Place, other: Place): number | null {
  const [a, b] = [step(grid, corner, one), step(grid, corner, other)];
  if (Math.hypot(...a) === 0 || Math.hypot(...b) === 0) return null;
  const [along, across] = [a[0] * b[0] + a[1] * b[1], a[0] * b[1] - a[1] * b[0]];
  return (Math.atan2(Math.abs(across), along) * 180) / Math.PI;
}

/** What is inside an ellipse. */
export interface Density {
  areaMm2: number;
  /** Pixels of the image whose middle is inside. */
  pixels: number;
  /** HU. */
  mean: number;
  /** Of these pixels themselves, not an estimate for others, HU. */
  deviation: number;
  min: number;
  max: number;
}

/**
 * The density within the ellipse that fills the box between two corners; null when no pixel's middle is inside.
 *
 * @param valueAt HU of a pixel; null outside the image
 */
export function density(
  grid: Grid,
  from: Place,
  to: Place,
  valueAt: (column: number, row: number) => number | null,
): Density | null {
  const [x, y] = [(from[0] + to[0]) / 2, (from[1] + to[1]) / 2];
  const [halfX, halfY] = [Math.abs(to[0] - from[0]) / 2, Math.abs(to[1] - from[1]) / 2];
  const [widthMm, heightMm] = step(grid, from, to);
  let [pixels, sum, squares, min, max] = [0, 0, 0, Infinity, -Infinity];
  for (let row = Math.floor(y - halfY); row <= y + halfY; row++) {
    for (let column = Math.floor(x - halfX); column <= x + halfX; column++) {
      if (((column + 0.5 - x) / halfX) ** 2 + ((row + 0.5 - y) / halfY) ** 2 > 1) continue;
      const value = valueAt(column, row);
      if (value === null) continue;
      pixels++;
      sum += value;
      squares += value * value;
      min = Math.min(min, value);
      max = Math.max(max, value);
    }
  }
  if (pixels === 0) return null;
  const mean = sum / pixels;
  const deviation = Math.sqrt(Math.max(squares / pixels - mean * mean, 0));
  return { areaMm2: (Math.PI * Math.abs(widthMm * heightMm)) / 4, pixels, mean, deviation, min, max };
}
