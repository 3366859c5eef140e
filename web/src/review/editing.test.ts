import { describe, expect, it } from 'vitest';
import { type Slice, stack } from '../dicomweb/geometry.ts';
import { image } from '../dicomweb/results.ts';
import { Drawing } from './drawing.ts';
import { grow } from './grow.ts';
import { interpolate } from './interpolation.ts';
import { between, inside, largestComponent, opened, signedDistance, withoutHoles } from './shapes.ts';

const ROWS = 40;
const COLUMNS = 50;

const disc = (x: number, y: number, radius: number, rowMm = 1, columnMm = 1) =>
  Uint8Array.from({ length: ROWS * COLUMNS }, (_, at) => {
    const [column, row] = [(at % COLUMNS) + 0.5, Math.floor(at / COLUMNS) + 0.5];
    return Math.hypot((column - x) * columnMm, (row - y) * rowMm) <= radius ? 1 : 0;
  });
const size = (mask: Uint8Array | null) => mask?.reduce((sum, v) => sum + v, 0) ?? 0;

describe('a lasso', () => {
  it('takes the pixels whose middle is inside, and nothing beyond the image', () => {
    const square = inside(
      [
        [1, 1],
        [4, 1],
        [4, 3],
        [1, 3],
      ],
      5,
      6,
    );
    expect([...square.keys()].filter((at) => square[at] === 1)).toEqual([7, 8, 9, 13, 14, 15]);
    const huge = inside(
      [
        [-9, -9],
        [99, -9],
        [99, 99],
        [-9, 99],
      ],
      5,
      6,
    );
    expect(size(huge)).toBe(30);
  });

  it('takes a concave shape as it was drawn', () => {
    const hook = inside(
      [
        [0, 0],
        [6, 0],
        [6, 5],
        [4, 5],
        [4, 2],
        [2, 2],
        [2, 5],
        [0, 5],
      ],
      5,
      6,
    );
    expect(size(hook)).toBe(12 + 4 * 3);
    expect(hook[3 * 6 + 2]).toBe(0);
  });
});

describe('a distance', () => {
  it('is in millimetres, negative inside, as counted pixel by pixel', () => {
    const [rowMm, columnMm] = [1.5, 0.5];
    const mask = disc(20, 18, 9, rowMm, columnMm);
    const signed = signedDistance(mask, ROWS, COLUMNS, [rowMm, columnMm]);
    for (const at of [0, 49, 18 * COLUMNS + 20, 18 * COLUMNS + 3, 30 * COLUMNS + 25, 1999]) {
      const value = mask[at];
      let nearest = Infinity;
      mask.forEach((other, to) => {
        if (other === value) return;
        const [dx, dy] = [
          (to % COLUMNS) - (at % COLUMNS),
          Math.floor(to / COLUMNS) - Math.floor(at / COLUMNS),
        ];
        nearest = Math.min(nearest, Math.hypot(dx * columnMm, dy * rowMm));
      });
      expect(signed[at]).toBeCloseTo(value === 1 ? -nearest : nearest, 9);
    }
  });

  it('makes the shape between two discs a disc of the radius between', () => {
    const [small, large] = [disc(25, 20, 6), disc(25, 20, 14)].map((mask) =>
      signedDistance(mask, ROWS, COLUMNS, [1, 1]),
    );
    if (small === undefined || large === undefined) throw new Error('no distances');
    expect(Math.abs(size(between(small, large, 0.25)) - Math.PI * 64)).toBeLessThan(0.08 * Math.PI * 64);
    expect(between(small, large, 0)).toEqual(disc(25, 20, 6));
    expect(between(small, large, 1)).toEqual(disc(25, 20, 14));
  });
});

describe('pieces of a mask', () => {
  it('are told apart, cut at thin bridges and filled', () => {
    const two = disc(12, 20, 7).map((v, at) => v | (disc(36, 20, 9)[at] ?? 0));
    for (let column = 12; column < 36; column++) two[20 * COLUMNS + column] = 1;
    expect(size(largestComponent(two, ROWS, COLUMNS))).toBe(size(two));
    const cut = opened(two, ROWS, COLUMNS, 2);
    expect(cut[20 * COLUMNS + 23]).toBe(0);
    const left = largestComponent(cut, ROWS, COLUMNS, 20 * COLUMNS + 12);
    expect(Math.abs(size(left) - size(disc(12, 20, 7)))).toBeLessThan(12);
    const ring = disc(25, 20, 12).map((v, at) => v - (disc(25, 20, 5)[at] ?? 0));
    expect(withoutHoles(ring, ROWS, COLUMNS)).toEqual(disc(25, 20, 12));
  });
});

/** Slices at 0, 2 and 8 mm along the table, tilted against it. */
function slices(aside = 0): Slice[] {
  const all = stack([image('1.1', 0), image('1.2', 2), image('1.3', 8)]).slices;
  return all.map((slice, i) => ({
    ...slice,
    rows: ROWS,
    columns: COLUMNS,
    imagePositionPatient: slice.imagePositionPatient.map((at, axis) =>
      i === 1 && axis === 0 ? at + aside : at,
    ),
  }));
}

describe('interpolation', () => {
  it('fills what lies between by where it lies, as one step of undo', () => {
    const drawing = new Drawing(slices());
    drawing.add('1.1', disc(25, 20, 6));
    drawing.add('1.3', disc(25, 20, 14));
    const filling = interpolate(drawing, slices());
    if (typeof filling === 'string') throw new Error(filling);
    expect([...filling.keys()]).toEqual(['1.2']);
    // A quarter of the way: the radius is 8.
    expect(Math.abs(size(filling.get('1.2') ?? null) - Math.PI * 64)).toBeLessThan(0.08 * Math.PI * 64);
    for (const [uid, pixels] of filling) drawing.fill(uid, pixels, 1);
    drawing.lift();
    expect(drawing.undo()).toEqual(['1.2']);
    expect(size(drawing.pixels('1.2'))).toBe(0);
    expect(drawing.redo()).toEqual(['1.2']);
    expect(drawing.pixels('1.2')).toEqual(filling.get('1.2'));
  });

  it('leaves what is drawn, and says why it fills nothing', () => {
    const drawing = new Drawing(slices());
    drawing.add('1.1', disc(25, 20, 6));
    expect(interpolate(drawing, slices())).toBe('nothing_between');
    drawing.add('1.2', disc(5, 5, 2));
    drawing.add('1.3', disc(25, 20, 6));
    expect(interpolate(drawing, slices())).toBe('nothing_between');
  });

  it('refuses slices that lie beside the way between', () => {
    const drawing = new Drawing(slices(0.4));
    drawing.add('1.1', disc(25, 20, 6));
    drawing.add('1.3', disc(25, 20, 6));
    expect(interpolate(drawing, slices(0.4))).toBe('off_the_way');
    expect(typeof interpolate(drawing, slices(0.2))).toBe('object');
  });
});

describe('a region', () => {
  /** Brain of 34 HU with a bleed of 62 HU, noise of 4 HU, a skull around and air beyond. */
  const noise = (at: number) => 4 * Math.sin(at * 12.9898) * Math.cos(at * 78.233) * 1.6;
  const bleed = disc(22, 20, 6);
  const head = disc(25, 20, 16);
  const skull = disc(25, 20, 19);
  const hu = Float32Array.from(bleed, (v, at) =>
    v ? 62 + noise(at) : head[at] ? 34 + noise(at) : skull[at] ? 1100 : -1000,
  );
  const picture = { rows: ROWS, columns: COLUMNS, hu };
  const dice = (mask: Uint8Array) =>
    (2 * size(mask.map((v, at) => v & (bleed[at] ?? 0)))) / (size(mask) + size(bleed));

  it('is found from a click inside it and from a box around it', () => {
    for (const prompt of [
      { at: [23.5, 18.5] as const },
      { from: [12, 10] as const, to: [32, 30] as const },
    ]) {
      const found = grow(picture, prompt);
      if (!('pixels' in found)) throw new Error(found.refused);
      expect(dice(found.pixels)).toBeGreaterThan(0.93);
    }
  });

  it('is refused on bone, outside the head, and where there is no edge', () => {
    expect(grow(picture, { at: [25, 2.5] })).toEqual({ refused: 'outside' });
    expect(grow(picture, { at: [-3, 2] })).toEqual({ refused: 'outside' });
    expect(grow(picture, { at: [1, 1] })).toEqual({ refused: 'outside' });
    expect(grow(picture, { at: [34.5, 20.5] })).toEqual({ refused: 'no_edge' });
  });
});
