/**
 * Paints mask and uncertainty over the image that is on the screen.
 *
 * The place comes from the displayed image itself: its pixel edges, sent through the camera; so pan, zoom and window size cannot part the two.
 */

import type { Slice } from '../dicomweb/geometry.ts';
import type { Drawing, Place } from '../review/drawing.ts';
import { outline, type Segment } from './outline.ts';
import type { MapLayer, Overlays } from './overlays.ts';
import {
  css,
  READER_COLOUR,
  type Rgb,
  structureColour,
  uncertaintyAlpha,
  uncertaintyColour,
} from './palette.ts';

/** Affine from image pixel edges (x right along a row, y down a column, 0 at the outer corner) to CSS pixels. */
export type Affine = [a: number, b: number, c: number, d: number, e: number, f: number];

export interface Shown {
  slice: Slice;
  affine: Affine;
}

export interface Look {
  mask: boolean;
  /** The map that is shown; null for none. */
  map: MapLayer | null;
  /** The map of scores whose contours are drawn; null for none. */
  contours: MapLayer | null;
  /** Whether the borders of anatomical structures are drawn. */
  anatomy: boolean;
  /** 0 to 1, of the mask's fill and of the map. */
  opacity: number;
  /** By segment number. */
  colour(segment: number): Rgb;
  /** The segment that was chosen in the list, drawn thicker; null for none. */
  chosen: number | null;
  /** The mask in the reader's hand, drawn instead of the others. */
  drawing: Drawing | null;
  /** Where the brush is; null when it is not on the image. */
  brush: { at: Place; radiusMm: number } | null;
  /** The lasso under way, or the two corners of a box. */
  trace: { places: readonly Place[]; box: boolean };
}

interface Picture {
  fill: OffscreenCanvas;
  outlines: { segment: number; lines: Segment[] }[];
}

interface Border {
  colour: Rgb;
  lines: Segment[];
}

/** Colours of the map, looked up instead of computed for each pixel. */
const STEPS = 256;
const TABLE = Array.from({ length: STEPS }, (_, i) => {
  const value = i / (STEPS - 1);
  return { colour: uncertaintyColour(value), alpha: uncertaintyAlpha(value) };
});

/** Scores at which contours are drawn, the outer one first; they are not calibrated, and are named by their numbers. */
export const CONTOURS = [0.1, 0.9] as const;

/** How opaque the fill of a mask is at most: what lies below must stay visible. */
const FILL = 0.6;

/** How many slices' drawings are kept. */
const KEPT = 24;

export class Painter {
  readonly #mask: HTMLCanvasElement;
  readonly #uncertainty: HTMLCanvasElement;
  #overlays: Overlays;
  #masks = new Map<string, Picture>();
  #maps = new Map<string, OffscreenCanvas>();
  #contours = new Map<string, Segment[][]>();
  #anatomy = new Map<string, Border[]>();

  constructor(mask: HTMLCanvasElement, uncertainty: HTMLCanvasElement, overlays: Overlays) {
    this.#mask = mask;
    this.#uncertainty = uncertainty;
    this.#overlays = overlays;
  }

  /** Takes other overlays; those of before are never painted again. */
  use(overlays: Overlays): void {
    this.#overlays = overlays;
    this.#masks.clear();
    this.#maps.clear();
    this.#contours.clear();
    this.#anatomy.clear();
  }

  /** Paints for the image shown; clears when there is none. */
  paint(shown: Shown | null, look: Look): void {
    const mask = fresh(this.#mask);
    const map = fresh(this.#uncertainty);
    if (shown === null) return;
    if (look.map !== null) this.#paintMap(map, shown, look, look.map);
    if (look.drawing !== null) paintDrawing(mask, shown, look.drawing, look);
    else {
      if (look.anatomy) this.#paintAnatomy(mask, shown);
      if (look.contours !== null) this.#paintContours(mask, shown, look.contours);
      if (look.mask) this.#paintMask(mask, shown, look);
    }
  }

  #paintMap(
    context: CanvasRenderingContext2D,
    { slice, affine }: Shown,
    look: Look,
    { object, frames }: MapLayer,
  ): void {
    const map = frames?.get(slice.key);
    if (map === undefined) return;
    const picture = kept(this.#maps, `${object.sop_instance_uid} ${slice.key}`, () =>
      rasterise(map.rows, map.columns, (data) => {
        const values = map.values();
        for (let i = 0; i < values.length; i++) {
          const step = Math.round(Math.min(Math.max(values[i] ?? 0, 0), 1) * (STEPS - 1));
          const entry = TABLE[step];
          if (entry !== undefined && entry.alpha > 0) put(data, i, entry.colour, entry.alpha);
        }
      }),
    );
    place(context, affine);
    context.globalAlpha = look.opacity;
    context.drawImage(picture, 0, 0);
  }

  /** Where the score passes the two levels: the outer one dashed, the inner one whole. */
  #paintContours(context: CanvasRenderingContext2D, { slice, affine }: Shown, { frames }: MapLayer): void {
    const map = frames?.get(slice.key);
    if (map === undefined) return;
    const lines = kept(this.#contours, slice.key, () => {
      const values = map.values();
      return CONTOURS.map((level) => {
        const inside = Uint8Array.from(values, (value) => (value >= level ? 1 : 0));
        return outline(inside, map.rows, map.columns);
      });
    });
    place(context, affine);
    const pixel = Math.hypot(affine[0], affine[1]);
    lines.forEach((segments, i) => {
      const dash = i === 0 ? [3, 3] : [];
      stroke(context, segments, pixel, { colour: '#fff', width: 1, edge: 2.5, shade: 0.65, dash });
    });
  }

  /** The borders of anatomical structures, dashed: they are no findings. */
  #paintAnatomy(context: CanvasRenderingContext2D, { slice, affine }: Shown): void {
    const masks = this.#overlays.anatomy?.get(slice.key);
    if (masks === undefined) return;
    const borders = kept(this.#anatomy, slice.key, () =>
      masks.map(({ name, segment, rows, columns, unpack }) => ({
        colour: structureColour(name, segment),
        lines: outline(unpack(), rows, columns),
      })),
    );
    place(context, affine);
    const pixel = Math.hypot(affine[0], affine[1]);
    for (const { colour, lines } of borders) {
      const dash = [4, 2];
      stroke(context, lines, pixel, { colour: css(colour), width: 1.25, edge: 2.25, shade: 0.5, dash });
    }
  }

  #paintMask(context: CanvasRenderingContext2D, { slice, affine }: Shown, look: Look): void {
    const uid = slice.key;
    const masks = this.#overlays.masks.get(uid);
    if (masks === undefined) return;
    const picture = kept(this.#masks, uid, () =>
      pictureOf(
        masks.map((mask) => ({ ...mask, bits: mask.unpack() })),
        look.colour,
      ),
    );
    place(context, affine);
    paintPicture(context, affine, picture, look, look.colour);
  }
}

/** The mask in the reader's hand, and the edge of the brush. */
function paintDrawing(
  context: CanvasRenderingContext2D,
  { slice, affine }: Shown,
  drawing: Drawing,
  look: Look,
): void {
  const { rows, columns } = slice;
  const bits = drawing.pixels(slice.key);
  const colour = () => READER_COLOUR;
  place(context, affine);
  if (bits !== null) {
    paintPicture(context, affine, pictureOf([{ bits, rows, columns, segment: 0 }], colour), look, colour);
  }
  paintTrace(context, affine, look);
  if (look.brush === null) return;
  const [rowMm = 1, columnMm = 1] = slice.pixelSpacingMm;
  const { at, radiusMm } = look.brush;
  context.beginPath();
  context.ellipse(at[0], at[1], radiusMm / columnMm, radiusMm / rowMm, 0, 0, 2 * Math.PI);
  context.strokeStyle = css(READER_COLOUR);
  context.lineWidth = 1 / Math.hypot(affine[0], affine[1]);
  context.stroke();
}

function paintTrace(context: CanvasRenderingContext2D, affine: Affine, { trace }: Look): void {
  const [first, last] = [trace.places[0], trace.places.at(-1)];
  if (first === undefined || last === undefined) return;
  context.beginPath();
  if (trace.box) context.rect(first[0], first[1], last[0] - first[0], last[1] - first[1]);
  else for (const [x, y] of trace.places) context.lineTo(x, y);
  context.strokeStyle = css(READER_COLOUR);
  context.lineWidth = 1.5 / Math.hypot(affine[0], affine[1]);
  context.stroke();
}

/** Width of a line and of the dark edge under it, how dark that is, and the line's dashes, in CSS pixels. */
interface Stroke {
  colour: string;
  width: number;
  edge: number;
  shade: number;
  dash: readonly number[];
}

/** Draws lines over a dark edge, which keeps them visible on bone and on the map. */
function stroke(
  context: CanvasRenderingContext2D,
  lines: readonly Segment[],
  pixel: number,
  { colour, width, edge, shade, dash }: Stroke,
): void {
  const path = new Path2D();
  for (const [x0, y0, x1, y1] of lines) {
    path.moveTo(x0, y0);
    path.lineTo(x1, y1);
  }
  context.strokeStyle = `rgb(0 0 0 / ${shade})`;
  context.lineWidth = edge / pixel;
  context.stroke(path);
  context.setLineDash(dash.map((length) => length / pixel));
  context.strokeStyle = colour;
  context.lineWidth = width / pixel;
  context.stroke(path);
  context.setLineDash([]);
}

interface Bits {
  bits: Uint8Array;
  rows: number;
  columns: number;
  segment: number;
}

function pictureOf(masks: readonly Bits[], colour: (segment: number) => Rgb): Picture {
  const [first] = masks;
  return {
    fill: rasterise(first?.rows ?? 1, first?.columns ?? 1, (data) => {
      for (const { bits, segment } of masks) {
        for (let i = 0; i < bits.length; i++) if (bits[i]) put(data, i, colour(segment), 1);
      }
    }),
    outlines: masks.map(({ bits, rows, columns, segment }) => ({
      segment,
      lines: outline(bits, rows, columns),
    })),
  };
}

function paintPicture(
  context: CanvasRenderingContext2D,
  affine: Affine,
  picture: Picture,
  look: Look,
  colour: (segment: number) => Rgb,
): void {
  // Over the map only the outline is drawn: a fill would hide the doubt inside a finding.
  if (look.map === null) {
    context.globalAlpha = look.opacity * FILL;
    context.drawImage(picture.fill, 0, 0);
    context.globalAlpha = 1;
  }
  const pixel = Math.hypot(affine[0], affine[1]);
  for (const { segment, lines } of picture.outlines) {
    const width = segment === look.chosen ? 3 : 1.75;
    context.lineCap = 'square';
    const edge = width + 1.75;
    stroke(context, lines, pixel, { colour: css(colour(segment)), width, edge, shade: 0.65, dash: [] });
  }
}

/** Fits the canvas to its box and clears it. */
function fresh(canvas: HTMLCanvasElement): CanvasRenderingContext2D {
  const width = Math.round(canvas.clientWidth * devicePixelRatio);
  const height = Math.round(canvas.clientHeight * devicePixelRatio);
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext('2d');
  if (context === null) throw new Error('This browser has no 2-D canvas.');
  // Not clearRect: with Chromium's software GL its pixels come back once something was read from the canvas.
  context.reset();
  return context;
}

function place(context: CanvasRenderingContext2D, affine: Affine): void {
  context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
  context.transform(...affine);
  context.imageSmoothingEnabled = false;
}

function rasterise(rows: number, columns: number, draw: (data: Uint8ClampedArray) => void): OffscreenCanvas {
  const canvas = new OffscreenCanvas(columns, rows);
  const context = canvas.getContext('2d');
  if (context === null) throw new Error('This browser has no 2-D canvas.');
  const image = context.createImageData(columns, rows);
  draw(image.data);
  context.putImageData(image, 0, 0);
  return canvas;
}

function put(data: Uint8ClampedArray, pixel: number, colour: Rgb, alpha: number): void {
  const at = pixel * 4;
  data[at] = colour[0];
  data[at + 1] = colour[1];
  data[at + 2] = colour[2];
  data[at + 3] = Math.round(alpha * 255);
}

function kept<T>(cache: Map<string, T>, key: string, make: () => T): T {
  const found = cache.get(key);
  if (found !== undefined) return found;
  const [oldest] = cache.keys();
  if (cache.size >= KEPT && oldest !== undefined) cache.delete(oldest);
  const made = make();
  cache.set(key, made);
  return made;
}
