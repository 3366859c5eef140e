/**
 * A Parametric Map → real-world values on each source image.
 *
 * Stored values are 16-bit, plain or RLE Lossless, or 32-bit float; a linear mapping turns them into real-world values.
 *
 * Source: PS3.3 A.75, C.8.32, C.7.6.16.2.11.
 */

import type { Element } from 'dicom-parser';
import { messages } from '../ui/messages.ts';
import { RLE_LOSSLESS } from './client.ts';
import {
  type Frame,
  group,
  type MultiFrame,
  mustLieOn,
  type Placed,
  PlacementError,
  readMultiFrame,
} from './frames.ts';
import type { Slice } from './geometry.ts';
import { decodeRle16 } from './rle.ts';

const PARAMETRIC_MAP_STORAGE = '1.2.840.10008.5.1.4.1.1.30';

/** The map on one image. */
export interface MapFrame {
  rows: number;
  columns: number;
  /** Real-world values, made anew at each call. */
  values(): Float32Array;
}

/** Stored values of a frame, in an array of their own. */
type Stored = (frame: number) => Uint16Array | Int16Array | Float32Array;

/** Reads a Parametric Map and puts each frame on the slice that it references. */
export function readParametricMap(part10: Uint8Array, slices: readonly Slice[]): Placed<MapFrame> {
  const object = readMultiFrame(part10);
  if (object.sopClassUid !== PARAMETRIC_MAP_STORAGE) throw new PlacementError(messages.placement.notMap);
  const stored = storedValues(object);
  const known = new Map(slices.map((slice) => [slice.key, slice]));
  const placed: Placed<MapFrame> = { bySource: new Map(), elsewhere: 0 };
  for (const frame of object.frames) {
    const slice = known.get(frame.sourceKey);
    if (slice === undefined) {
      placed.elsewhere++;
      continue;
    }
    mustLieOn(frame, slice);
    if (placed.bySource.has(frame.sourceKey))
      throw new PlacementError(messages.placement.twice(frame.index + 1));
    const { slope, intercept } = realWorld(object, frame);
    const values = () => {
      const raw = stored(frame.index);
      const out = new Float32Array(raw.length);
      for (let i = 0; i < raw.length; i++) out[i] = (raw[i] ?? 0) * slope + intercept;
      return out;
    };
    placed.bySource.set(frame.sourceKey, { rows: object.rows, columns: object.columns, values });
  }
  return placed;
}

/** The linear mapping of a frame. */
function realWorld(object: MultiFrame, frame: Frame): { slope: number; intercept: number } {
  const mapping = group(object, frame, 'x00409096');
  const slope = mapping?.double('x00409225');
  const intercept = mapping?.double('x00409224');
  if (slope === undefined || intercept === undefined || !Number.isFinite(slope + intercept)) {
    throw new PlacementError(messages.placement.mapping(frame.index + 1));
  }
  return { slope, intercept };
}

function storedValues(object: MultiFrame): Stored {
  const { dataset, transferSyntaxUid } = object;
  const size = object.rows * object.columns;
  const float = dataset.elements.x7fe00008;
  const integer = dataset.elements.x7fe00010;
  if (float === undefined && dataset.uint16('x00280100') !== 16)
    throw new PlacementError(messages.placement.notMap);
  const signed = dataset.uint16('x00280103') === 1;
  if (transferSyntaxUid === RLE_LOSSLESS) {
    const frames = compressedFrames(object, integer);
    return (index) => {
      const pixels = decodeRle16(frames[index] ?? new Uint8Array(), size);
      if (pixels === null) throw new PlacementError(messages.placement.compressed(index + 1));
      return signed ? new Int16Array(pixels.buffer) : pixels;
    };
  }
  const element = float ?? integer;
  const width = float ? 4 : 2;
  if (element === undefined || element.length < object.frames.length * size * width) {
    throw new PlacementError(messages.placement.short);
  }
  // A copy starts at an even address, which a view into the file need not; browsers run on little-endian machines only.
  const copy = (index: number) => {
    const start = element.dataOffset + index * size * width;
    return (dataset.byteArray as Uint8Array).slice(start, start + size * width).buffer as ArrayBuffer;
  };
  if (float) return (index) => new Float32Array(copy(index));
  return (index) => (signed ? new Int16Array(copy(index)) : new Uint16Array(copy(index)));
}

/** The fragments: in RLE, one a frame (PS3.5 A.4.2). */
function compressedFrames({ dataset, frames }: MultiFrame, element: Element | undefined): Uint8Array[] {
  const bytes = dataset.byteArray as Uint8Array;
  const fragments = element?.fragments ?? [];
  if (fragments.length !== frames.length) throw new PlacementError(messages.placement.short);
  return fragments.map(({ position, length }) => bytes.subarray(position, position + length));
}
