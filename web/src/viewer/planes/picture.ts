/** Values on a plane → coloured pixels. */

import { type Rgb, uncertaintyAlpha, uncertaintyColour } from '../palette.ts';
import type { Window } from '../windows.ts';

/** How opaque the fill of a mask is at most: what lies below must stay visible. */
const FILL = 0.35;

export interface Layers {
  rows: number;
  columns: number;
  /** HU, NaN where there is no slice. */
  hu: Float32Array;
  /** Segment numbers, 0 or NaN where there is none; null when masks are off. */
  segments: Float32Array | null;
  /** Uncertainty 0 to 1; null when it is off. */
  doubt: Float32Array | null;
}

/** Grey by the window; doubt over it; masks as outline and, where no doubt is shown, a light fill. */
export function picture(
  layers: Layers,
  window: Window,
  opacity: number,
  colour: (segment: number) => Rgb,
): ImageData {
  const { rows, columns, hu, segments, doubt } = layers;
  const image = new ImageData(columns, rows);
  const low = window.level - window.width / 2;
  const scale = 255 / window.width;
  for (let i = 0; i < hu.length; i++) {
    const value = hu[i] ?? Number.NaN;
    const grey = Number.isNaN(value) ? 0 : Math.min(Math.max((value - low) * scale, 0), 255);
    let pixel: Rgb = [grey, grey, grey];
    const unsure = doubt?.[i] ?? 0;
    if (unsure > 0) pixel = mix(pixel, uncertaintyColour(unsure), opacity * uncertaintyAlpha(unsure));
    const segment = segments?.[i] ?? 0;
    if (segments !== null && segment > 0) {
      const share = isEdge(segments, i, rows, columns) ? 1 : doubt === null ? FILL * opacity : 0;
      pixel = mix(pixel, colour(segment), share);
    }
    image.data.set([...pixel, 255], 4 * i);
  }
  return image;
}

function mix(below: Rgb, above: Rgb, share: number): Rgb {
  const of = (i: 0 | 1 | 2) => below[i] * (1 - share) + above[i] * share;
  return [of(0), of(1), of(2)];
}

function isEdge(segments: Float32Array, i: number, rows: number, columns: number): boolean {
  const [row, column] = [Math.floor(i / columns), i % columns];
  const other = (j: number) => segments[j] !== segments[i];
  return (
    row === 0 ||
    column === 0 ||
    row === rows - 1 ||
    column === columns - 1 ||
    other(i - 1) ||
    other(i + 1) ||
    other(i - columns) ||
    other(i + columns)
  );
}
