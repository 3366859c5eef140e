import { describe, expect, it } from 'vitest';
import type { Slice, Vec3 } from '../../dicomweb/geometry.ts';
import { ACROSS, ALONG, AXES, type Axis, Block, type Plane } from './reslice.ts';

const SIZE = 64;

/** A stack of slices, each 64 × 64 of 2 mm (rows 1.5 mm apart). */
function stack(orientation: number[], origins: Vec3[], thicknessMm: number): Slice[] {
  const [ax = 0, ay = 0, az = 0, bx = 0, by = 0, bz = 0] = orientation;
  const n = [ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx];
  return origins.map((at, i) => ({
    key: String(i),
    rows: SIZE,
    columns: SIZE,
    imageOrientationPatient: orientation,
    imagePositionPatient: at,
    pixelSpacingMm: [1.5, 2],
    frameOfReferenceUid: null,
    sliceThicknessMm: thicknessMm,
    alongMm: at[0] * (n[0] ?? 0) + at[1] * (n[1] ?? 0) + at[2] * (n[2] ?? 0),
    metadata: {},
  }));
}

const turn = (degrees: number) => [Math.cos((degrees * Math.PI) / 180), Math.sin((degrees * Math.PI) / 180)];
const [C = 1, S = 0] = turn(18.5);
const [D = 1, T = 0] = turn(12);

/** Stacks around the origin of the patient, as scanners lay them. */
const STACKS: Record<string, Slice[]> = {
  even: stack(
    [1, 0, 0, 0, 1, 0],
    Array.from({ length: 25 }, (_, k) => [-63, -47, 5 * k - 60]),
    5,
  ),
  tilted: stack(
    [1, 0, 0, 0, C, -S],
    Array.from({ length: 25 }, (_, k) => [-63, -47 * C, 5 * k - 60 + 47 * S]),
    5,
  ),
  uneven: stack(
    [1, 0, 0, 0, 1, 0],
    [-60, -57, -54, -51, -47, -43, -38, -33, -28, -22, -16, -9, -2, 5, 12, 19, 26, 33, 40, 47, 54].map(
      (z) => [-63, -47, z],
    ),
    7,
  ),
  oblique: stack(
    [D, T, 0, -T * C, D * C, -S],
    Array.from({ length: 30 }, (_, k) => {
      const along = 4 * k - 58;
      const normal = [T * -S - 0 * D * C, 0 * -T * C - D * -S, D * D * C + T * T * C];
      return [
        -63 * D + 47 * T * C + along * (normal[0] ?? 0),
        -63 * T - 47 * D * C + along * (normal[1] ?? 0),
        47 * S + along * (normal[2] ?? 0),
      ] as Vec3;
    }),
    4,
  ),
};

function place(slice: Slice, row: number, column: number): Vec3 {
  const [ax = 0, ay = 0, az = 0, bx = 0, by = 0, bz = 0] = slice.imageOrientationPatient;
  const [x = 0, y = 0, z = 0] = slice.imagePositionPatient;
  const [c, r] = [2 * column, 1.5 * row];
  return [x + c * ax + r * bx, y + c * ay + r * by, z + c * az + r * bz];
}

/** A field over the patient, sampled on a slice. */
function sampled(slices: readonly Slice[], field: (p: Vec3) => number) {
  const values = slices.map((slice) =>
    Float32Array.from({ length: SIZE * SIZE }, (_, i) => field(place(slice, Math.floor(i / SIZE), i % SIZE))),
  );
  return (slice: number) => values[slice] ?? null;
}

function lps(plane: Plane, i: number): Vec3 {
  const [x, y, direction] = ALONG[plane.axis];
  const at: Vec3 = [...plane.origin];
  at[x] += (i % plane.columns) * plane.pixelMm;
  at[y] += direction * Math.floor(i / plane.columns) * plane.pixelMm;
  return at;
}

describe.each(Object.keys(STACKS))('planes through %s slices', (name) => {
  const slices = STACKS[name] ?? [];
  const block = new Block(slices);

  it('show a field that changes evenly as it is in the patient', () => {
    const field = ([x, y, z]: Vec3) => 3 * x - 2 * y + 5 * z;
    const of = sampled(slices, field);
    for (const axis of AXES) {
      const plane = block.plane(axis, [3, 4, 5]);
      const values = block.values(plane, of, true);
      let compared = 0;
      values.forEach((value, i) => {
        const p = lps(plane, i);
        if (Number.isNaN(value) || Math.max(...p.map(Math.abs)) > 35) return;
        compared++;
        expect(Math.abs(value - field(p))).toBeLessThan(0.01);
      });
      expect(compared).toBeGreaterThan(500);
    }
  });

  it('lay a mask where its truth lies, to the pixel', () => {
    // An ellipsoid beside the middle, so that a flip, a shear or a wrong spacing would show.
    const inside = ([x, y, z]: Vec3) => ((x - 14) / 16) ** 2 + ((y + 9) / 12) ** 2 + ((z - 6) / 18) ** 2 < 1;
    const of = sampled(slices, (p) => Number(inside(p)));
    for (const axis of AXES) {
      const plane = block.plane(axis, [14, -9, 6]);
      const values = block.values(plane, of, false);
      let [both, either] = [0, 0];
      const off = [0, 0];
      values.forEach((value, i) => {
        const truth = inside(lps(plane, i));
        const shown = value === 1;
        if (truth && shown) both++;
        either += Number(truth) + Number(shown);
        const [column, row] = [i % plane.columns, Math.floor(i / plane.columns)];
        off[0] = (off[0] ?? 0) + column * (Number(shown) - Number(truth));
        off[1] = (off[1] ?? 0) + row * (Number(shown) - Number(truth));
      });
      const dice = (2 * both) / either;
      console.log(`${name} ${axis}: Dice ${dice.toFixed(3)}`);
      // Voxels of 7 mm cannot do better along the stack.
      expect(dice).toBeGreaterThan(0.9);
    }
  });

  it('show the brightest of a slab', () => {
    const of = sampled(slices, ([x, y, z]) => (Math.hypot(x, y, z - 4) < 6 ? 300 : 0));
    const axis: Axis = 'axial';
    const far = block.plane(axis, [0, 0, 16]);
    expect(Math.max(...finite(block.values(far, of, true)))).toBeLessThan(150);
    expect(Math.max(...finite(block.values(far, of, true, 30)))).toBeGreaterThan(200);
  });

  it('knows which slice is nearest and how to get onto it', () => {
    const at = block.onto([10, 5, 3], 7);
    expect(block.nearest(at)).toBe(7);
    expect(ACROSS.axial).toBe(2);
  });
});

function finite(values: Float32Array): number[] {
  return [...values].filter(Number.isFinite);
}

describe('what was not taken is not drawn', () => {
  const at = (zs: number[]) =>
    stack(
      [1, 0, 0, 0, 1, 0],
      zs.map((z) => [-63, -47, z] as Vec3),
      5,
    );

  it('leaves a missing slice empty', () => {
    const slices = at([0, 5, 10, 25, 30]);
    const block = new Block(slices);
    expect(block.gaps).toBe(1);
    const of = () => new Float32Array(SIZE * SIZE).fill(40);
    const middle = (z: number) => block.values(block.plane('axial', [0, 0, z]), of, true)[100];
    expect(middle(7.5)).toBe(40);
    expect(middle(12)).toBe(40);
    expect(middle(17)).toBeNaN();
    expect(middle(33)).toBeNaN();
  });

  it('lays no planes through a single slice', () => {
    expect(Block.refuses(at([0]))).toBe('few');
    expect(Block.refuses(at([0, 5]))).toBeNull();
  });
});
