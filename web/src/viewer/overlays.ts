/**
 * The result objects of an analysis → what is drawn over each slice, and how much of it there is.
 *
 * An object that cannot be placed with certainty is not drawn at all, and a sentence says so.
 */

import { sentence } from '../api/client.ts';
import type { Analysis, ObjectReference } from '../api/model.ts';
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

/**
 * Fetches, checks and places the mask and the uncertainty map, and hands over what there is after each.
 *
 * Frames of the map are all decoded once here, so that one that cannot be is found before any is drawn.
 */
export async function loadOverlays(
  study: string,
  analysis: Analysis,
  slices: readonly Slice[],
  take: (overlays: Overlays) => void,
): Promise<void> {
  let overlays = NO_OVERLAYS;
  const refuse = (text: string) => ({ refused: [...overlays.refused, text] });
  async function place<T>(
    object: ObjectReference | null,
    name: string,
    read: (bytes: Uint8Array) => Placed<T>,
    use: (bySource: Map<string, T>) => Partial<Overlays> | Promise<Partial<Overlays>>,
  ): Promise<void> {
    if (object === null) return;
    try {
      const { bySource, elsewhere } = read(await retrieve(study, object));
      const used = await use(bySource);
      const note =
        elsewhere > 0 ? refuse(messages.placement.elsewhere(name, elsewhere, bySource.size === 0)) : {};
      overlays = { ...overlays, ...used, ...note };
    } catch (error) {
      overlays = { ...overlays, ...refuse(messages.placement.refused(name, sentence(error))) };
    }
    take(overlays);
  }
  await Promise.all([
    place(
      analysis.seg,
      messages.viewer.mask,
      (bytes) => readSegmentation(bytes, slices),
      (masks) => ({ masks }),
    ),
    place(
      analysis.pm,
      messages.viewer.uncertainty,
      (bytes) => readParametricMap(bytes, slices),
      async (maps) => ({ maps, doubtCm2: await doubt(maps, slices) }),
    ),
  ]);
}

/** How long the page may stand still for decoding. */
const STILL_MS = 12;

async function doubt(maps: Map<string, MapFrame>, slices: readonly Slice[]): Promise<Map<string, number>> {
  const areas = new Map<string, number>();
  let begun = performance.now();
  for (const slice of slices) {
    const map = maps.get(slice.sopInstanceUid);
    if (map === undefined) continue;
    let pixels = 0;
    const values = map.values();
    for (let i = 0; i < values.length; i++) if ((values[i] ?? 0) >= DOUBT_FROM) pixels++;
    areas.set(slice.sopInstanceUid, pixels * pixelCm2(slice));
    if (performance.now() - begun < STILL_MS) continue;
    await new Promise((resolve) => setTimeout(resolve));
    begun = performance.now();
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
