/**
 * A binary Segmentation → one mask a segment on each source image.
 *
 * Source: PS3.3 A.51, C.8.20; PS3.5 8.2 and annex D.2 for the order of 1-bit pixels.
 */

import { messages } from '../ui/messages.ts';
import { EXPLICIT_LITTLE_ENDIAN } from './client.ts';
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

const SEGMENTATION_STORAGE = '1.2.840.10008.5.1.4.1.1.66.4';

/** One segment on one image. */
export interface Mask {
  segment: number;
  /** Its TrackingID: the finding that it is the mask of; empty when there is none. */
  name: string;
  rows: number;
  columns: number;
  /** Pixels that are set. */
  readonly pixels: number;
  /** One byte a pixel, 0 or 1; made anew at each call, so that a thick stack does not fill the memory. */
  unpack(): Uint8Array;
}

/** One frame of 1-bit pixels: frame `index` starts at bit `index × size`, least significant bit first. */
export function unpackBits(packed: Uint8Array, index: number, size: number): Uint8Array {
  const out = new Uint8Array(size);
  const start = index * size;
  for (let i = 0; i < size; i++) {
    const bit = start + i;
    out[i] = ((packed[bit >> 3] ?? 0) >> (bit & 7)) & 1;
  }
  return out;
}

/** Reads a SEG and puts each frame on the slice that it references. */
export function readSegmentation(part10: Uint8Array, slices: readonly Slice[]): Placed<Mask[]> {
  const object = readMultiFrame(part10);
  const packed = pixels(object);
  const size = object.rows * object.columns;
  const known = new Map(slices.map((slice) => [slice.key, slice]));
  const names = trackingIds(object);
  const placed: Placed<Mask[]> = { bySource: new Map(), elsewhere: 0 };
  for (const frame of object.frames) {
    const slice = known.get(frame.sourceKey);
    if (slice === undefined) {
      placed.elsewhere++;
      continue;
    }
    mustLieOn(frame, slice);
    const segment = segmentNumber(object, frame);
    const masks = placed.bySource.get(frame.sourceKey) ?? [];
    if (masks.some((mask) => mask.segment === segment)) {
      throw new PlacementError(messages.placement.twice(frame.index + 1));
    }
    const unpack = () => unpackBits(packed, frame.index, size);
    const name = names.get(segment) ?? '';
    let count: number | undefined;
    masks.push({
      segment,
      name,
      rows: object.rows,
      columns: object.columns,
      // Counted when asked: a tree of arteries has a thousand frames.
      get pixels() {
        count ??= unpack().reduce((sum, v) => sum + v, 0);
        return count;
      },
      unpack,
    });
    placed.bySource.set(frame.sourceKey, masks);
  }
  return placed;
}

function pixels(object: MultiFrame): Uint8Array {
  const { dataset } = object;
  const native = object.transferSyntaxUid === EXPLICIT_LITTLE_ENDIAN;
  const binary = dataset.string('x00620001') === 'BINARY' && dataset.uint16('x00280100') === 1;
  if (object.sopClassUid !== SEGMENTATION_STORAGE || !binary || !native)
    throw new PlacementError(messages.placement.notBinary);
  const element = dataset.elements.x7fe00010;
  const needed = Math.ceil((object.frames.length * object.rows * object.columns) / 8);
  if (element === undefined || element.length < needed) throw new PlacementError(messages.placement.short);
  return dataset.byteArray.subarray(element.dataOffset, element.dataOffset + element.length) as Uint8Array;
}

/** TrackingID of each segment that has one. */
function trackingIds({ dataset }: MultiFrame): Map<number, string> {
  const items = dataset.elements.x00620002?.items ?? [];
  return new Map(
    items.map(({ dataSet }) => [dataSet?.uint16('x00620004') ?? 0, dataSet?.string('x00620020') ?? '']),
  );
}

function segmentNumber(object: MultiFrame, frame: Frame): number {
  const segment = group(object, frame, 'x0062000a')?.uint16('x0062000b');
  if (segment === undefined) throw new PlacementError(messages.placement.segment(frame.index + 1));
  return segment;
}
