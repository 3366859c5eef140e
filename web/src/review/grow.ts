/**
 * A click or a box on one slice → the region that was meant.
 *
 * The edge of a region lies half way between what it is made of and what surrounds it, which is where a scanner's blur leaves it.
 * Both are measured on the slice: first against the brain, then against the ring around the region, until nothing changes.
 * Where there is no such edge the prompt is refused: a mask that ran out is worse than none.
 * It knows nothing of anatomy: a vein next to a bleed and as dense belongs to it, and the reader takes it away.
 */

import { largestComponent, opened, ringAround, withoutHoles } from './shapes.ts';
import type { Place } from './drawing.ts';

/** One slice in HU. */
export interface Picture {
  rows: number;
  columns: number;
  hu: Float32Array;
}

/** What the reader pointed at: a pixel inside, or a box around it, in pixels. */
export type Prompt = { at: Place } | { from: Place; to: Place };

/** Why there is no region. */
export type Refusal = 'outside' | 'no_edge' | 'ran_out';

export type Grown = { pixels: Uint8Array } | { refused: Refusal };

/** HU of what fills a head beside bone, air and fat. */
const SOFT_HU = [-10, 110] as const;
/** HU of brain and fluid, of which the middle is taken as what surrounds a region at first. */
const BRAIN_HU = [10, 50] as const;
/** Least difference between a region and what surrounds it, HU: less is noise. */
const LEAST_STEP_HU = 4;
/** From a region to where its surroundings are measured, and how far these reach, pixels. */
const RING = [2, 7] as const;
/** Largest share of the head that a region may take. */
const MOST = 0.35;
const MOST_ROUNDS = 12;

/** The region that a prompt means. */
export function grow(picture: Picture, prompt: Prompt): Grown {
  const smooth = median({ ...picture, hu: median(picture) });
  const whole = { ...picture, hu: smooth };
  return 'at' in prompt ? fromPoint(whole, prompt.at) : fromBox(whole, prompt.from, prompt.to);
}

function fromPoint(picture: Picture, at: Place, inside?: (pixel: number) => boolean): Grown {
  const { rows, columns, hu } = picture;
  const [column, row] = [Math.floor(at[0]), Math.floor(at[1])];
  if (column < 0 || row < 0 || column >= columns || row >= rows) return { refused: 'outside' };
  const seed = row * columns + column;
  const first = hu[seed] ?? Number.NaN;
  const isSoft = (value: number) => value >= SOFT_HU[0] && value <= SOFT_HU[1];
  if (!isSoft(first)) return { refused: 'outside' };
  const head = hu.filter(isSoft);
  let around = middle(head.filter((value) => value >= BRAIN_HU[0] && value <= BRAIN_HU[1]));
  let within = first;
  let region: Uint8Array | null = null;
  for (let round = 0; round < MOST_ROUNDS; round++) {
    if (!(Math.abs(within - around) >= LEAST_STEP_HU)) return { refused: 'no_edge' };
    const edge = (within + around) / 2;
    const brighter = within > around;
    const belongs = (pixel: number) => {
      const value = hu[pixel] ?? Number.NaN;
      return isSoft(value) && (brighter ? value >= edge : value <= edge) && (inside?.(pixel) ?? true);
    };
    const next = component(rows, columns, seed, belongs);
    if (next === null) return region === null ? { refused: 'no_edge' } : { pixels: region };
    const same = region !== null && next.every((value, pixel) => value === region?.[pixel]);
    region = next;
    if (count(region) > head.length * MOST) return { refused: 'ran_out' };
    if (same) break;
    within = middle(hu.filter((_, pixel) => next[pixel] === 1));
    const ring = ringAround(next, rows, columns, ...RING);
    const near = hu.filter((value, pixel) => ring[pixel] === 1 && isSoft(value));
    if (near.length > 0) around = middle(near);
  }
  return region === null ? { refused: 'no_edge' } : { pixels: region };
}

/** What lies in the box and differs from its frame: the largest piece of it. */
function fromBox(picture: Picture, from: Place, to: Place): Grown {
  const { rows, columns, hu } = picture;
  const [left, right] = [Math.min(from[0], to[0]), Math.max(from[0], to[0])];
  const [top, bottom] = [Math.min(from[1], to[1]), Math.max(from[1], to[1])];
  const where = (pixel: number) => [(pixel % columns) + 0.5, Math.floor(pixel / columns) + 0.5] as const;
  const inside = (pixel: number) => {
    const [x, y] = where(pixel);
    return x >= left && x <= right && y >= top && y <= bottom;
  };
  const soft = (value: number) => value >= SOFT_HU[0] && value <= SOFT_HU[1];
  const frame: number[] = [];
  const content: number[] = [];
  hu.forEach((value, pixel) => {
    if (!inside(pixel) || !soft(value)) return;
    const [x, y] = where(pixel);
    content.push(value);
    if (x < left + 2 || x > right - 2 || y < top + 2 || y > bottom - 2) frame.push(value);
  });
  if (content.length < 9 || frame.length === 0) return { refused: 'outside' };
  const around = middle(Float32Array.from(frame));
  // The tenth that differs the most stands for the region, until the region is known.
  const sorted = Float32Array.from(content).sort();
  const [low = 0, high = 0] = [0.1, 0.9].map((share) => sorted[Math.floor((sorted.length - 1) * share)]);
  let within = high - around >= around - low ? high : low;
  let region: Uint8Array | null = null;
  for (let round = 0; round < MOST_ROUNDS; round++) {
    if (!(Math.abs(within - around) >= LEAST_STEP_HU)) return { refused: 'no_edge' };
    const edge = (within + around) / 2;
    const brighter = within > around;
    const mask = Uint8Array.from(hu, (value, pixel) =>
      inside(pixel) && soft(value) && (brighter ? value >= edge : value <= edge) ? 1 : 0,
    );
    const next = largestComponent(cleaned(mask, rows, columns), rows, columns);
    if (next === null) return { refused: 'no_edge' };
    const same = region !== null && next.every((value, pixel) => value === region?.[pixel]);
    region = next;
    if (same) break;
    within = middle(hu.filter((_, pixel) => next[pixel] === 1));
  }
  return region === null ? { refused: 'no_edge' } : { pixels: withoutHoles(region, rows, columns) };
}

/** The connected pixels around a seed, without thin bridges to what else is as dense, and without holes. */
function component(
  rows: number,
  columns: number,
  seed: number,
  belongs: (pixel: number) => boolean,
): Uint8Array | null {
  const mask = Uint8Array.from({ length: rows * columns }, (_, pixel) => (belongs(pixel) ? 1 : 0));
  const clean = cleaned(mask, rows, columns);
  const region = largestComponent(clean, rows, columns, seed) ?? largestComponent(mask, rows, columns, seed);
  return region && withoutHoles(region, rows, columns);
}

const cleaned = (mask: Uint8Array, rows: number, columns: number) => opened(mask, rows, columns, 2);

const count = (mask: Uint8Array) => mask.reduce((sum, value) => sum + value, 0);

/** The value in the middle of the order. */
function middle(values: Float32Array): number {
  const sorted = values.slice().sort();
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

/** The median of each pixel and its eight neighbours; the outermost pixels stay. */
function median({ rows, columns, hu }: Picture): Float32Array {
  const out = hu.slice();
  const nine = new Float32Array(9);
  for (let row = 1; row < rows - 1; row++) {
    for (let column = 1; column < columns - 1; column++) {
      const at = row * columns + column;
      for (let i = 0; i < 9; i++) {
        const value = hu[at + (Math.floor(i / 3) - 1) * columns + (i % 3) - 1] ?? 0;
        // Sorted as they come: nine values are too few for anything cleverer.
        let place = i;
        while (place > 0 && (nine[place - 1] ?? 0) > value) {
          nine[place] = nine[place - 1] ?? 0;
          place--;
        }
        nine[place] = value;
      }
      out[at] = nine[4] ?? 0;
    }
  }
  return out;
}
