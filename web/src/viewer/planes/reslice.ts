/**
 * Original slices → planes along the patient's axes.
 *
 * Every pixel of a plane is looked up where it lies in the patient: between the two slices on either side of it, each in its own place.
 * So tilted, oblique and unevenly spaced stacks come out upright and even, and nothing is drawn where no slice was taken.
 * For display only: measuring and drawing happen on the slices themselves.
 */

import { dot, normal, type Slice, type Vec3 } from '../../dicomweb/geometry.ts';

export type Axis = 'axial' | 'coronal' | 'sagittal';

export const AXES: readonly Axis[] = ['axial', 'coronal', 'sagittal'];

/** The coordinate (LPS) that tells planes of an axis apart. */
export const ACROSS: Readonly<Record<Axis, 0 | 1 | 2>> = { axial: 2, coronal: 1, sagittal: 0 };

/** The coordinate that grows along a row and the one along a column, and whether the latter falls instead. */
export const ALONG: Readonly<Record<Axis, readonly [0 | 1 | 2, 1 | 2, 1 | -1]>> = {
  axial: [0, 1, 1],
  coronal: [0, 2, -1],
  sagittal: [1, 2, -1],
};

/** Finest pixels of a plane, mm: more would show nothing that the slices hold. */
const FINEST_MM = 0.5;
/** A step wider than this many thicknesses has a slice missing in it, and is not bridged. */
const MISSING = 1.5;

/** The box around all slices, LPS mm, and the pixels of planes through it. */
export interface Box {
  low: Vec3;
  high: Vec3;
  pixelMm: number;
}

/** A plane through the box. */
export interface Plane {
  axis: Axis;
  rows: number;
  columns: number;
  /** Centre of the first pixel, LPS mm. */
  origin: Vec3;
  pixelMm: number;
}

/** Values of a slice, row by row; null where it has none. */
export type Values = (slice: number) => ArrayLike<number> | null;

/** Slices that lie over one another, ready to be looked up. */
export class Block {
  readonly slices: readonly Slice[];
  readonly box: Box;
  readonly #along: Float64Array;
  /** How far from its slice a place without a neighbour still counts, mm. */
  readonly #reach: Float64Array;
  readonly #right: Vec3;
  readonly #down: Vec3;
  readonly #normal: Vec3;

  /** Slices in the order of their normal. */
  constructor(slices: readonly Slice[]) {
    this.slices = slices;
    const orientation = slices[0]?.imageOrientationPatient ?? [1, 0, 0, 0, 1, 0];
    this.#right = vec(orientation.slice(0, 3));
    this.#down = vec(orientation.slice(3, 6));
    this.#normal = normal(orientation);
    this.#along = Float64Array.from(slices, ({ alongMm }) => alongMm);
    const steps = slices.slice(1).map(({ alongMm }, i) => alongMm - (slices[i]?.alongMm ?? 0));
    const usual = [...steps].sort((a, b) => a - b)[Math.floor(steps.length / 2)] ?? 1;
    this.#reach = Float64Array.from(slices, (slice, i) => {
      const near = Math.min(steps[i - 1] ?? usual, steps[i] ?? usual);
      return (slice.sliceThicknessMm ?? near) / 2;
    });
    this.box = this.#around();
  }

  /** Why no planes are laid through these slices; null when they can be. */
  static refuses(slices: readonly Slice[]): 'few' | null {
    return slices.length < 2 ? 'few' : null;
  }

  /** Steps that are not bridged. */
  get gaps(): number {
    let count = 0;
    for (let i = 0; i + 1 < this.slices.length; i++) if (this.#isGap(i)) count++;
    return count;
  }

  /** The middle of the box. */
  get middle(): Vec3 {
    const { low, high } = this.box;
    return [(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, (low[2] + high[2]) / 2];
  }

  /** The plane of an axis through a place. */
  plane(axis: Axis, through: Vec3): Plane {
    const { low, high, pixelMm } = this.box;
    const [x, y, direction] = ALONG[axis];
    const origin: Vec3 = [...low];
    origin[y] = direction > 0 ? low[y] : high[y];
    origin[ACROSS[axis]] = through[ACROSS[axis]];
    const count = (of: 0 | 1 | 2) => Math.max(Math.round((high[of] - low[of]) / pixelMm) + 1, 1);
    return { axis, rows: count(y), columns: count(x), origin, pixelMm };
  }

  /** The slice nearest to a place along their normal. */
  nearest(place: Vec3): number {
    const along = dot(place, this.#normal);
    let best = 0;
    this.#along.forEach((at, i) => {
      if (Math.abs(at - along) < Math.abs((this.#along[best] ?? 0) - along)) best = i;
    });
    return best;
  }

  /** The place moved along the normal onto a slice. */
  onto(place: Vec3, slice: number): Vec3 {
    const by = (this.#along[slice] ?? 0) - dot(place, this.#normal);
    return [0, 1, 2].map((a) => (place[a] ?? 0) + by * (this.#normal[a] ?? 0)) as Vec3;
  }

  /**
   * Values on a plane, NaN where there is no slice.
   *
   * `linear` blends the neighbouring voxels, else the nearest counts; of a slab of `slabMm` the highest value is taken.
   */
  values(plane: Plane, of: Values, linear: boolean, slabMm = 0): Float32Array {
    const out = new Float32Array(plane.rows * plane.columns).fill(Number.NaN);
    const half = Math.floor(slabMm / 2 / plane.pixelMm);
    for (let layer = -half; layer <= half; layer++) {
      const origin: Vec3 = [...plane.origin];
      origin[ACROSS[plane.axis]] += layer * plane.pixelMm;
      this.#layer({ ...plane, origin }, of, linear, out);
    }
    return out;
  }

  #layer(plane: Plane, of: Values, linear: boolean, out: Float32Array): void {
    const [x, y, direction] = ALONG[plane.axis];
    const { pixelMm: mm } = plane;
    // Distance along the normal and coordinates in a slice change evenly with the pixel.
    const even = (axis: Vec3) =>
      [dot(plane.origin, axis), mm * (axis[x] ?? 0), direction * mm * (axis[y] ?? 0)] as const;
    const [a0, ax, ay] = even(this.#normal);
    const [u0, ux, uy] = even(this.#right);
    const [v0, vx, vy] = even(this.#down);
    const offsets = this.slices.map(({ imagePositionPatient: at }) => [
      dot(at, this.#right),
      dot(at, this.#down),
    ]);
    const loaded = this.slices.map((_, i) => of(i));
    const last = this.slices.length - 1;
    const read = (slice: number, u: number, v: number): number => {
      const values = loaded[slice];
      const { rows, columns, pixelSpacingMm } = this.slices[slice] as Slice;
      const [ou = 0, ov = 0] = offsets[slice] ?? [];
      const column = (u - ou) / (pixelSpacingMm[1] ?? 1);
      const row = (v - ov) / (pixelSpacingMm[0] ?? 1);
      if (!values || column < -0.5 || row < -0.5 || column > columns - 0.5 || row > rows - 0.5)
        return Number.NaN;
      if (!linear)
        return values[clamp(Math.round(row), rows) * columns + clamp(Math.round(column), columns)] ?? 0;
      const left = clamp(Math.floor(column), columns);
      const top = clamp(Math.floor(row), rows);
      const right = Math.min(left + 1, columns - 1);
      const bottom = Math.min(top + 1, rows - 1);
      const sx = Math.min(Math.max(column - left, 0), 1);
      const sy = Math.min(Math.max(row - top, 0), 1);
      const at = (r: number, c: number) => values[r * columns + c] ?? 0;
      const upper = at(top, left) * (1 - sx) + at(top, right) * sx;
      const lower = at(bottom, left) * (1 - sx) + at(bottom, right) * sx;
      return upper * (1 - sy) + lower * sy;
    };
    let k = 0;
    for (let row = 0, i = 0; row < plane.rows; row++) {
      for (let column = 0; column < plane.columns; column++, i++) {
        const along = a0 + column * ax + row * ay;
        const u = u0 + column * ux + row * uy;
        const v = v0 + column * vx + row * vy;
        while (k < last - 1 && along >= (this.#along[k + 1] ?? 0)) k++;
        while (k > 0 && along < (this.#along[k] ?? 0)) k--;
        const value = this.#between(k, along, linear, (slice) => read(slice, u, v));
        const before = out[i] ?? Number.NaN;
        if (value > before || Number.isNaN(before)) out[i] = value;
      }
    }
  }

  /** The value between slice `k` and the next, at a distance along the normal. */
  #between(k: number, along: number, linear: boolean, read: (slice: number) => number): number {
    const [low, high] = [this.#along[k] ?? 0, this.#along[k + 1] ?? 0];
    const [below, above] = [along - low, high - along];
    const alone = (slice: number, far: number) =>
      far <= (this.#reach[slice] ?? 0) ? read(slice) : Number.NaN;
    if (below < 0) return alone(k, -below);
    if (above < 0) return alone(k + 1, -above);
    const nearer = below <= above ? k : k + 1;
    if (this.#isGap(k)) return alone(nearer, Math.min(below, above));
    if (!linear) return read(nearer);
    const share = below / (high - low);
    if (share === 0) return read(k);
    return share === 1 ? read(k + 1) : read(k) * (1 - share) + read(k + 1) * share;
  }

  #isGap(k: number): boolean {
    const step = (this.#along[k + 1] ?? 0) - (this.#along[k] ?? 0);
    return step > MISSING * 2 * Math.max(this.#reach[k] ?? 0, this.#reach[k + 1] ?? 0);
  }

  #around(): Box {
    const low: Vec3 = [Infinity, Infinity, Infinity];
    const high: Vec3 = [-Infinity, -Infinity, -Infinity];
    let pixelMm = Infinity;
    this.slices.forEach(({ rows, columns, pixelSpacingMm, imagePositionPatient: at }, i) => {
      const [rowMm = 1, columnMm = 1] = pixelSpacingMm;
      pixelMm = Math.min(pixelMm, rowMm, columnMm);
      const reach = this.#reach[i] ?? 0;
      for (const [c, r, n] of CORNERS) {
        for (const a of [0, 1, 2] as const) {
          const value =
            (at[a] ?? 0) +
            c * (columns - 1) * columnMm * this.#right[a] +
            r * (rows - 1) * rowMm * this.#down[a] +
            n * reach * this.#normal[a];
          low[a] = Math.min(low[a], value);
          high[a] = Math.max(high[a], value);
        }
      }
    });
    return { low, high, pixelMm: Math.max(pixelMm, FINEST_MM) };
  }
}

const CORNERS = [0, 1].flatMap((c) => [0, 1].flatMap((r) => [-1, 1].map((n) => [c, r, n] as const)));

function clamp(index: number, count: number): number {
  return Math.min(Math.max(index, 0), count - 1);
}

function vec([x = 0, y = 0, z = 0]: readonly number[]): Vec3 {
  return [x, y, z];
}
