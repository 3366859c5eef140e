/**
 * Masks of one slice as shapes: inside a line, distance to an edge, between two others.
 *
 * A mask is one byte a pixel, 0 or 1, row by row; the middle of the first pixel is at ½, ½.
 *
 * Source: signed distances between slices, Raya and Udupa 1990 (doi:10.1109/42.52980); exact distances in two passes, Felzenszwalb and Huttenlocher 2012 (doi:10.4086/toc.2012.v008a019).
 */

import type { Place } from './drawing.ts';

/** Farther than anything on an image, mm². */
const FAR = 1e12;

/** The pixels whose middle lies inside a closed line; a place that the line rounds twice is outside. */
export function inside(line: readonly Place[], rows: number, columns: number): Uint8Array {
  const mask = new Uint8Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    const y = row + 0.5;
    const crossings: number[] = [];
    line.forEach(([x0, y0], i) => {
      const [x1, y1] = line[(i + 1) % line.length] ?? [x0, y0];
      if (y0 <= y !== y1 <= y) crossings.push(x0 + ((y - y0) / (y1 - y0)) * (x1 - x0));
    });
    crossings.sort((a, b) => a - b);
    for (let i = 0; i + 1 < crossings.length; i += 2) {
      const from = Math.max(Math.ceil((crossings[i] ?? 0) - 0.5), 0);
      const to = Math.min(Math.ceil((crossings[i + 1] ?? 0) - 0.5), columns);
      if (to > from) mask.fill(1, row * columns + from, row * columns + to);
    }
  }
  return mask;
}

/** Squared distance along one line to the nearest lowest value: the lower envelope of parabolas. */
function envelope(values: Float64Array, step: number): Float64Array {
  const n = values.length;
  const [apex, border, out] = [new Int32Array(n), new Float64Array(n + 1), new Float64Array(n)];
  const at = (i: number) => values[i] ?? FAR;
  const meet = (a: number, b: number) =>
    (at(b) + (b * step) ** 2 - at(a) - (a * step) ** 2) / (2 * step * step * (b - a));
  let last = 0;
  border[0] = -Infinity;
  border[1] = Infinity;
  for (let i = 1; i < n; i++) {
    let where = meet(apex[last] ?? 0, i);
    while (where <= (border[last] ?? 0)) {
      last--;
      where = meet(apex[last] ?? 0, i);
    }
    last++;
    apex[last] = i;
    border[last] = where;
    border[last + 1] = Infinity;
  }
  last = 0;
  for (let i = 0; i < n; i++) {
    while ((border[last + 1] ?? Infinity) < i) last++;
    const from = apex[last] ?? 0;
    out[i] = ((i - from) * step) ** 2 + at(from);
  }
  return out;
}

/** Distance of each pixel to the nearest pixel that is set, mm. */
function distance(
  set: (pixel: number) => boolean,
  rows: number,
  columns: number,
  spacing: readonly number[],
) {
  const [rowMm = 1, columnMm = 1] = spacing;
  const squares = Float64Array.from({ length: rows * columns }, (_, pixel) => (set(pixel) ? 0 : FAR));
  for (let column = 0; column < columns; column++) {
    const line = envelope(
      Float64Array.from({ length: rows }, (_, row) => squares[row * columns + column] ?? FAR),
      rowMm,
    );
    line.forEach((value, row) => {
      squares[row * columns + column] = value;
    });
  }
  for (let row = 0; row < rows; row++) {
    squares.set(envelope(squares.slice(row * columns, (row + 1) * columns), columnMm), row * columns);
  }
  return squares.map(Math.sqrt);
}

/** Distance to the edge of a mask, mm: negative inside, positive outside. */
export function signedDistance(
  mask: Uint8Array,
  rows: number,
  columns: number,
  spacing: readonly number[],
): Float64Array {
  const out = distance((pixel) => mask[pixel] === 1, rows, columns, spacing);
  const within = distance((pixel) => mask[pixel] !== 1, rows, columns, spacing);
  // The edge runs half way between the middles of a pixel that is set and one that is not.
  return out.map((value, pixel) => value - (within[pixel] ?? 0));
}

/** The shape at a share of the way from one mask to another, by their distances. */
export function between(from: Float64Array, to: Float64Array, share: number): Uint8Array {
  return Uint8Array.from(from, (value, pixel) =>
    value * (1 - share) + (to[pixel] ?? 0) * share < 0 ? 1 : 0,
  );
}

/** A mask and all pixels within a distance of it, in pixels. */
function grown(mask: Uint8Array, rows: number, columns: number, by: number): Uint8Array {
  const out = mask.slice();
  const reach = Math.floor(by);
  const set = (row: number, column: number) =>
    row >= 0 && column >= 0 && row < rows && column < columns && mask[row * columns + column] === 1;
  for (let at = mask.indexOf(1); at >= 0; at = mask.indexOf(1, at + 1)) {
    const [row, column] = [Math.floor(at / columns), at % columns];
    // Only from the edge does it grow.
    if (set(row - 1, column) && set(row + 1, column) && set(row, column - 1) && set(row, column + 1))
      continue;
    for (let r = Math.max(row - reach, 0); r <= Math.min(row + reach, rows - 1); r++) {
      const half = Math.floor(Math.sqrt(by * by - (r - row) ** 2));
      const [from, to] = [Math.max(column - half, 0), Math.min(column + half, columns - 1)];
      out.fill(1, r * columns + from, r * columns + to + 1);
    }
  }
  return out;
}

const not = (mask: Uint8Array) => mask.map((value) => 1 - value);

/** Pixels farther than `from` and not farther than `to` from a mask, in pixels. */
export function ringAround(
  mask: Uint8Array,
  rows: number,
  columns: number,
  from: number,
  to: number,
): Uint8Array {
  const near = grown(mask, rows, columns, from);
  return grown(mask, rows, columns, to).map((value, pixel) => value - (near[pixel] ?? 0));
}

/** A mask without what is thinner than a disc of this radius, in pixels. */
export function opened(mask: Uint8Array, rows: number, columns: number, radius: number): Uint8Array {
  return grown(not(grown(not(mask), rows, columns, radius)), rows, columns, radius);
}

/** Calls `put` with each connected piece of what is `value`; neighbours share an edge. */
function pieces(
  mask: Uint8Array,
  rows: number,
  columns: number,
  value: 0 | 1,
  put: (pixels: number[]) => void,
): void {
  const seen = new Uint8Array(mask.length);
  for (let start = 0; start < mask.length; start++) {
    if (seen[start] === 1 || mask[start] !== value) continue;
    const found = [start];
    seen[start] = 1;
    for (let next = 0; next < found.length; next++) {
      const pixel = found[next] ?? 0;
      const column = pixel % columns;
      for (const [to, there] of [
        [pixel - columns, pixel >= columns],
        [pixel + columns, pixel < (rows - 1) * columns],
        [pixel - 1, column > 0],
        [pixel + 1, column < columns - 1],
      ] as const) {
        if (!there || seen[to] === 1 || mask[to] !== value) continue;
        seen[to] = 1;
        found.push(to);
      }
    }
    put(found);
  }
}

/** The largest connected piece, or the one with a certain pixel; null when there is none. */
export function largestComponent(
  mask: Uint8Array,
  rows: number,
  columns: number,
  withPixel?: number,
): Uint8Array | null {
  let best: number[] = [];
  pieces(mask, rows, columns, 1, (found) => {
    const wanted = withPixel === undefined ? found.length > best.length : found.includes(withPixel);
    if (wanted) best = found;
  });
  if (best.length === 0) return null;
  const out = new Uint8Array(mask.length);
  for (const pixel of best) out[pixel] = 1;
  return out;
}

/** A mask with what it encloses. */
export function withoutHoles(mask: Uint8Array, rows: number, columns: number): Uint8Array {
  const out = mask.slice();
  pieces(mask, rows, columns, 0, (found) => {
    const open = found.some((pixel) => {
      const [row, column] = [Math.floor(pixel / columns), pixel % columns];
      return row === 0 || column === 0 || row === rows - 1 || column === columns - 1;
    });
    if (!open) for (const pixel of found) out[pixel] = 1;
  });
  return out;
}
