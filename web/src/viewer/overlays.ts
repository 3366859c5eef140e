/**
 * The result objects of an analysis → what is drawn over each slice, and how much of it there is.
 *
 * An object that cannot be placed with certainty is not drawn at all, and a sentence says so.
 */

import { sentence } from '../api/client.ts';
import type { Analysis } from '../api/model.ts';
import { retrieve } from '../dicomweb/client.ts';
import type { Placed } from '../dicomweb/frames.ts';
import type { Slice } from '../dicomweb/geometry.ts';
import { type MapFrame, readParametricMap } from '../dicomweb/parametric_map.ts';
import { type Mask, readSegmentation } from '../dicomweb/segmentation.ts';
import { messages } from '../ui/messages.ts';

/** From this uncertainty on a pixel counts as doubt in the strip beside the stack. */
export const DOUBT_FROM = 0.5;

export interface Overlays {
  /** By SOP Instance UID of the image. */
  masks: Map<string, Mask[]>;
  maps: Map<string, MapFrame>;
  /** Area of doubt, cm², by SOP Instance UID; absent where the map has no frame. */
  doubtCm2: Map<string, number>;
  /** What was not drawn, and why. */
  refused: string[];
}

export const NO_OVERLAYS: Overlays = { masks: new Map(), maps: new Map(), doubtCm2: new Map(), refused: [] };

/** Fetches, checks and places the mask and the uncertainty map. */
export async function loadOverlays(
  study: string,
  analysis: Analysis,
  slices: readonly Slice[],
): Promise<Overlays> {
  const refused: string[] = [];
  async function place<T>(
    object: Analysis['seg'],
    name: string,
    read: (bytes: Uint8Array, slices: readonly Slice[]) => Placed<T>,
  ): Promise<Map<string, T>> {
    if (object === null) return new Map();
    try {
      const { bySource, elsewhere } = read(await retrieve(study, object), slices);
      if (elsewhere > 0) refused.push(messages.placement.elsewhere(name, elsewhere, bySource.size === 0));
      return bySource;
    } catch (error) {
      refused.push(messages.placement.refused(name, sentence(error)));
      return new Map();
    }
  }
  let doubtCm2 = new Map<string, number>();
  // Every frame is decoded here once, so that one that cannot be is found before anything is drawn.
  const readMap = (bytes: Uint8Array) => {
    const placed = readParametricMap(bytes, slices);
    doubtCm2 = doubt(placed.bySource, slices);
    return placed;
  };
  const [masks, maps] = await Promise.all([
    place(analysis.seg, messages.viewer.mask, readSegmentation),
    place(analysis.pm, messages.viewer.uncertainty, readMap),
  ]);
  return { masks, maps, doubtCm2, refused };
}

function doubt(maps: Map<string, MapFrame>, slices: readonly Slice[]): Map<string, number> {
  const areas = new Map<string, number>();
  for (const slice of slices) {
    const map = maps.get(slice.sopInstanceUid);
    if (map === undefined) continue;
    let pixels = 0;
    for (const value of map.values()) if (value >= DOUBT_FROM) pixels++;
    areas.set(slice.sopInstanceUid, pixels * pixelCm2(slice));
  }
  return areas;
}

function pixelCm2({ pixelSpacingMm: [row = 0, column = 0] }: Slice): number {
  return (row * column) / 100;
}

/** Area of findings on a slice, cm². */
export function findingCm2(overlays: Overlays, slice: Slice): number {
  const pixels = overlays.masks.get(slice.sopInstanceUid)?.reduce((sum, mask) => sum + mask.pixels, 0) ?? 0;
  return pixels * pixelCm2(slice);
}

/**
 * The slice with most of a segment; null when the mask has none of it here.
 *
 * It is looked up in the mask itself, so that a jump lands where something is drawn.
 */
export function keySlice(overlays: Overlays, slices: readonly Slice[], segment: number): number | null {
  let best: { index: number; pixels: number } | null = null;
  slices.forEach((slice, index) => {
    const mask = overlays.masks.get(slice.sopInstanceUid)?.find((m) => m.segment === segment);
    if (mask && mask.pixels > (best?.pixels ?? 0)) best = { index, pixels: mask.pixels };
  });
  return (best as { index: number } | null)?.index ?? null;
}
