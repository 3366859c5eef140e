/**
 * The result objects of an analysis → what is drawn over each slice of a series, and how much of it there is.
 *
 * Several models may have looked at one series: each has its masks and its maps.
 * An object that cannot be placed with certainty is not drawn at all, and a sentence says so.
 */

import { sentence } from '../api/client.ts';
import type { Analysis, Finding, ResultObject } from '../api/model.ts';
import { retrieve } from '../dicomweb/client.ts';
import { type Placed, PlacementError } from '../dicomweb/frames.ts';
import type { Slice } from '../dicomweb/geometry.ts';
import { type MapFrame, readParametricMap } from '../dicomweb/parametric_map.ts';
import { type Mask, readSegmentation } from '../dicomweb/segmentation.ts';
import { messages } from '../ui/messages.ts';

/** From this uncertainty on a pixel counts as doubt in the strip beside the stack. */
export const DOUBT_FROM = 0.5;

export type Quantity = 'entropy' | 'score' | 'mutual_information' | 'variance';

/** A map that an analysis has of a series, loaded or not. */
export interface MapLayer {
  object: ResultObject;
  quantity: Quantity;
  /** By SOP Instance UID of the image; null until it was loaded. */
  frames: Map<string, MapFrame> | null;
}

export interface Overlays {
  /** By SOP Instance UID of the image; the number of a segment is the place of its finding in the report, from 1. */
  masks: Map<string, Mask[]>;
  maps: readonly MapLayer[];
  /** Anatomical structures that a model knows, by SOP Instance UID; null until they were loaded. */
  anatomy: Map<string, Mask[]> | null;
  /** Whether there are any to load. */
  hasAnatomy: boolean;
  /** Whether one could not be drawn; `refused` says why. */
  anatomyFailed: boolean;
  /** Area of doubt, cm², by SOP Instance UID; absent where no map has a frame. */
  doubtCm2: Map<string, number>;
  /** What was not drawn, and why. */
  refused: string[];
}

export const NO_OVERLAYS: Overlays = {
  masks: new Map(),
  maps: [],
  anatomy: null,
  hasAnatomy: false,
  anatomyFailed: false,
  doubtCm2: new Map(),
  refused: [],
};

/** ContentLabels have 16 characters. */
const QUANTITIES: Readonly<Record<string, Quantity>> = {
  ENTROPY: 'entropy',
  SCORE: 'score',
  MUTUAL_INFORMATI: 'mutual_information',
  VARIANCE: 'variance',
};

/** The results that lie on a series. */
export function resultsOn(analysis: Analysis, series: string | null): ResultObject[] {
  return analysis.objects.filter(({ source_series: source }) => source !== null && source === series);
}

/** Fetches, checks and places what an analysis has for a series, and hands over all there is after each object. */
export class Loader {
  readonly #study: string;
  readonly #slices: readonly Slice[];
  readonly #findings: readonly Finding[];
  readonly #take: (overlays: Overlays) => void;
  readonly #asked = new Set<string>();
  #overlays: Overlays;
  readonly #masks: readonly ResultObject[];
  readonly #anatomy: readonly ResultObject[];
  #closed = false;

  constructor(
    study: string,
    analysis: Analysis,
    series: string,
    slices: readonly Slice[],
    take: (overlays: Overlays) => void,
  ) {
    const results = resultsOn(analysis, series);
    const maps = results.flatMap((object): MapLayer[] => {
      const quantity = object.role === 'pm' ? QUANTITIES[object.content_label ?? ''] : undefined;
      return quantity === undefined ? [] : [{ object, quantity, frames: null }];
    });
    this.#study = study;
    this.#slices = slices;
    this.#findings = analysis.report.findings;
    this.#take = take;
    this.#masks = results.filter(({ role }) => role === 'seg');
    this.#anatomy = results.filter(({ role }) => role === 'structures');
    this.#overlays = { ...NO_OVERLAYS, maps, hasAnatomy: this.#anatomy.length > 0 };
  }

  /** Loads what is shown first: masks, and the entropy that the strip is made of. */
  async start(): Promise<void> {
    this.#take(this.#overlays);
    await Promise.all([
      ...this.#masks.map((object) =>
        this.#place(
          object,
          messages.viewer.mask,
          (bytes) => readSegmentation(bytes, this.#slices),
          (masks) => () => ({ masks: this.#numbered(masks) }),
        ),
      ),
      this.want(({ quantity }) => quantity === 'entropy'),
    ]);
  }

  /** Loads the maps that are meant, unless they are there or on their way. */
  async want(meant: (layer: MapLayer) => boolean): Promise<void> {
    const layers = this.#overlays.maps.filter(
      (layer) => meant(layer) && !this.#asked.has(layer.object.sop_instance_uid),
    );
    await Promise.all(
      layers.map(({ object, quantity }) => {
        this.#asked.add(object.sop_instance_uid);
        return this.#place(
          object,
          messages.viewer.quantity[quantity],
          (bytes) => readParametricMap(bytes, this.#slices),
          async (frames) => {
            // All are decoded once here, so that one that cannot be is found before any is drawn.
            const areas = await doubt(frames, this.#slices);
            return ({ maps, doubtCm2 }) => ({
              maps: maps.map((layer) => (layer.object === object ? { ...layer, frames } : layer)),
              doubtCm2: quantity === 'entropy' ? larger(doubtCm2, areas) : doubtCm2,
            });
          },
        );
      }),
    );
  }

  /** Loads the anatomical structures, unless they are there or on their way. */
  async wantAnatomy(): Promise<void> {
    const objects = this.#anatomy.filter(({ sop_instance_uid: uid }) => !this.#asked.has(uid));
    await Promise.all(
      objects.map((object) => {
        this.#asked.add(object.sop_instance_uid);
        return this.#place(
          object,
          messages.viewer.anatomy,
          (bytes) => readSegmentation(bytes, this.#slices),
          (structures) =>
            ({ anatomy }) => {
              const all = new Map(anatomy);
              for (const [uid, masks] of structures) all.set(uid, [...(all.get(uid) ?? []), ...masks]);
              return { anatomy: all };
            },
          { anatomyFailed: true },
        );
      }),
    );
  }

  /** What comes from now on is thrown away. */
  close(): void {
    this.#closed = true;
  }

  /** Masks with those of before, numbered by their findings. */
  #numbered(bySource: Map<string, Mask[]>): Map<string, Mask[]> {
    const all = new Map(this.#overlays.masks);
    for (const [uid, masks] of bySource) {
      const numbered = masks.map((mask) => {
        const place = this.#findings.findIndex(({ id }) => id === mask.name);
        if (place < 0) throw new PlacementError(messages.placement.unknown(mask.segment));
        return { ...mask, segment: place + 1 };
      });
      all.set(uid, [...(all.get(uid) ?? []), ...numbered]);
    }
    return all;
  }

  async #place<T>(
    object: ResultObject,
    name: string,
    read: (bytes: Uint8Array) => Placed<T>,
    use: (bySource: Map<string, T>) => Change | Promise<Change>,
    failed: Partial<Overlays> = {},
  ): Promise<void> {
    const refuse = (text: string) => ({ refused: [...this.#overlays.refused, text] });
    try {
      const { bySource, elsewhere } = read(await retrieve(this.#study, object));
      const change = await use(bySource);
      const note =
        elsewhere > 0 ? refuse(messages.placement.elsewhere(name, elsewhere, bySource.size === 0)) : {};
      this.#overlays = { ...this.#overlays, ...change(this.#overlays), ...note };
    } catch (error) {
      this.#overlays = {
        ...this.#overlays,
        ...failed,
        ...refuse(messages.placement.refused(name, sentence(error))),
      };
    }
    if (!this.#closed) this.#take(this.#overlays);
  }
}

/** What an object changes in what there is by then. */
type Change = (now: Overlays) => Partial<Overlays>;

/** How long the page may stand still for decoding. */
const STILL_MS = 12;

async function doubt(maps: Map<string, MapFrame>, slices: readonly Slice[]): Promise<Map<string, number>> {
  const areas = new Map<string, number>();
  let begun = performance.now();
  for (const slice of slices) {
    const map = maps.get(slice.key);
    if (map === undefined) continue;
    let pixels = 0;
    const values = map.values();
    for (let i = 0; i < values.length; i++) if ((values[i] ?? 0) >= DOUBT_FROM) pixels++;
    areas.set(slice.key, pixels * pixelCm2(slice));
    if (performance.now() - begun < STILL_MS) continue;
    await new Promise((resolve) => setTimeout(resolve));
    begun = performance.now();
  }
  return areas;
}

/** The larger of two areas on each image. */
function larger(one: Map<string, number>, other: Map<string, number>): Map<string, number> {
  const all = new Map(one);
  for (const [uid, area] of other) all.set(uid, Math.max(area, one.get(uid) ?? 0));
  return all;
}

function pixelCm2({ pixelSpacingMm: [row = 0, column = 0] }: Slice): number {
  return (row * column) / 100;
}

/** Area of findings on a slice, cm². */
export function findingCm2(overlays: Pick<Overlays, 'masks'>, slice: Slice): number {
  const pixels = overlays.masks.get(slice.key)?.reduce((sum, mask) => sum + mask.pixels, 0) ?? 0;
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
    const mask = overlays.masks.get(slice.key)?.find((m) => m.segment === segment);
    if (mask && mask.pixels > (best?.pixels ?? 0)) best = { index, pixels: mask.pixels };
  });
  return (best as { index: number } | null)?.index ?? null;
}
