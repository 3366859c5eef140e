/**
 * A mask in the reader's hand: pixels on slices, strokes, undo and redo.
 *
 * Pixels are the image's own; nothing is resampled, so what was drawn is what is saved.
 */

import type { SliceRuns } from '../api/model.ts';
import { imageKey, ofKey, type Slice } from '../dicomweb/geometry.ts';

/** What one stroke changed: pixels that are now `value` and were not before. */
interface Stroke {
  value: 0 | 1;
  changed: Map<string, number[]>;
}

const touched = ({ changed }: Stroke) => [...changed].filter(([, at]) => at.length > 0).map(([uid]) => uid);

/** A place on an image in pixels: the middle of the first pixel is at ½, ½. */
export type Place = readonly [column: number, row: number];

/** Steps of the brush along a stroke, in radii: close enough that its edge stays round. */
const STEP = 0.4;

export class Drawing {
  readonly #sizes: Map<string, { rows: number; columns: number; spacing: readonly number[] }>;
  readonly #masks = new Map<string, Uint8Array>();
  #done: Stroke[] = [];
  #undone: Stroke[] = [];
  #stroke: Stroke | null = null;

  constructor(slices: readonly Slice[]) {
    this.#sizes = new Map(
      slices.map(({ key, rows, columns, pixelSpacingMm }) => [
        key,
        { rows, columns, spacing: pixelSpacingMm },
      ]),
    );
  }

  /** Takes over pixels that are set, as the state to begin with; those of unknown images are left out. */
  add(uid: string, pixels: Uint8Array): void {
    const mask = this.#mask(uid);
    if (mask === null || mask.length !== pixels.length) return;
    pixels.forEach((value, i) => {
      if (value !== 0) mask[i] = 1;
    });
  }

  /** Takes over what `runs` wrote. */
  addRuns(slices: readonly SliceRuns[]): void {
    for (const { sop_instance_uid: uid, frame, runs } of slices) {
      const mask = this.#mask(imageKey(uid, frame ?? null));
      for (let i = 0; i + 1 < runs.length; i += 2) {
        const start = runs[i] ?? 0;
        mask?.fill(1, start, start + (runs[i + 1] ?? 0));
      }
    }
  }

  /** The pixels of an image, 0 or 1; null when none was ever set. */
  pixels(uid: string): Uint8Array | null {
    return this.#masks.get(uid) ?? null;
  }

  get canUndo(): boolean {
    return this.#done.length > 0;
  }

  get canRedo(): boolean {
    return this.#undone.length > 0;
  }

  /**
   * Draws a disc from one place to another, as part of the stroke under way.
   *
   * @param allowed which pixels the stroke may change
   */
  draw(
    uid: string,
    from: Place,
    to: Place,
    radiusMm: number,
    value: 0 | 1,
    allowed: (pixel: number) => boolean = () => true,
  ): void {
    const size = this.#sizes.get(uid);
    const mask = this.#mask(uid);
    if (size === undefined || mask === null) return;
    const [rowMm = 1, columnMm = 1] = size.spacing;
    const far = Math.hypot((to[0] - from[0]) * columnMm, (to[1] - from[1]) * rowMm);
    const steps = Math.max(Math.ceil(far / (radiusMm * STEP)), 1);
    this.#stroke ??= { value, changed: new Map() };
    const changed = this.#stroke.changed.get(uid) ?? [];
    this.#stroke.changed.set(uid, changed);
    for (let i = 0; i <= steps; i++) {
      const share = i / steps;
      const [x, y] = [from[0] + (to[0] - from[0]) * share, from[1] + (to[1] - from[1]) * share];
      const [reachX, reachY] = [radiusMm / columnMm, radiusMm / rowMm];
      for (let r = Math.max(Math.floor(y - reachY), 0); r <= Math.min(y + reachY, size.rows - 1); r++) {
        for (let c = Math.max(Math.floor(x - reachX), 0); c <= Math.min(x + reachX, size.columns - 1); c++) {
          const at = r * size.columns + c;
          const inside = Math.hypot((c + 0.5 - x) * columnMm, (r + 0.5 - y) * rowMm) <= radiusMm;
          // The pixel under the tip is always meant, however small the brush.
          const under = c === Math.floor(x) && r === Math.floor(y);
          if ((inside || under) && mask[at] !== value && allowed(at)) {
            mask[at] = value;
            changed.push(at);
          }
        }
      }
    }
  }

  /** Sets or clears the pixels of a mask, as part of the stroke under way. */
  fill(
    uid: string,
    pixels: Uint8Array,
    value: 0 | 1,
    allowed: (pixel: number) => boolean = () => true,
  ): void {
    const mask = this.#mask(uid);
    if (mask === null || mask.length !== pixels.length) return;
    this.#stroke ??= { value, changed: new Map() };
    const changed = this.#stroke.changed.get(uid) ?? [];
    this.#stroke.changed.set(uid, changed);
    for (let at = pixels.indexOf(1); at >= 0; at = pixels.indexOf(1, at + 1)) {
      if (mask[at] === value || !allowed(at)) continue;
      mask[at] = value;
      changed.push(at);
    }
  }

  /** Ends the stroke: it is one step of undo. Answers whether it changed anything. */
  lift(): boolean {
    const stroke = this.#stroke;
    this.#stroke = null;
    if (stroke === null || [...stroke.changed.values()].every((pixels) => pixels.length === 0)) return false;
    this.#done.push(stroke);
    this.#undone = [];
    return true;
  }

  /** Takes the last stroke back; answers the images that it changed. */
  undo(): string[] {
    const stroke = this.#done.pop();
    if (stroke === undefined) return [];
    this.#put(stroke, stroke.value === 1 ? 0 : 1);
    this.#undone.push(stroke);
    return touched(stroke);
  }

  /** Does again what was taken back last; answers the images that it changed. */
  redo(): string[] {
    const stroke = this.#undone.pop();
    if (stroke === undefined) return [];
    this.#put(stroke, stroke.value);
    this.#done.push(stroke);
    return touched(stroke);
  }

  /** What is set, slice by slice, in the order of the slices. */
  runs(): SliceRuns[] {
    const slices: SliceRuns[] = [];
    for (const uid of this.#sizes.keys()) {
      const mask = this.#masks.get(uid);
      if (mask === undefined) continue;
      const runs: number[] = [];
      for (let at = mask.indexOf(1); at >= 0; ) {
        const end = mask.indexOf(0, at);
        const stop = end < 0 ? mask.length : end;
        runs.push(at, stop - at);
        at = mask.indexOf(1, stop);
      }
      if (runs.length > 0) slices.push({ ...ofKey(uid), runs });
    }
    return slices;
  }

  #put(stroke: Stroke, value: 0 | 1): void {
    for (const [uid, pixels] of stroke.changed) {
      const mask = this.#mask(uid);
      if (mask !== null) for (const at of pixels) mask[at] = value;
    }
  }

  #mask(uid: string): Uint8Array | null {
    const size = this.#sizes.get(uid);
    if (size === undefined) return null;
    const known = this.#masks.get(uid);
    if (known !== undefined) return known;
    const made = new Uint8Array(size.rows * size.columns);
    this.#masks.set(uid, made);
    return made;
  }
}
