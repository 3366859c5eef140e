/**
 * Original slices in a Cornerstone stack viewport.
 *
 * Never a volume: on tilted or unevenly spaced series Cornerstone would use one spacing and no shear (cornerstone3D#227, #998).
 * This module is the only one that loads Cornerstone; the worklist does without.
 */

import {
  cache,
  Enums,
  getRenderingCapabilities,
  getShouldUseCPURendering,
  imageLoader,
  init as initCore,
  RenderingEngine,
  type StackViewport,
  setUseCPURendering,
  utilities,
} from '@cornerstonejs/core';
import { init as initLoader, wadors } from '@cornerstonejs/dicom-image-loader';
import { authorization } from '../api/key.ts';
import { framePath } from '../dicomweb/client.ts';
import type { Slice } from '../dicomweb/geometry.ts';
import type { Affine, Shown } from './painter.ts';
import type { Window } from './windows.ts';

const ENGINE = 'ictus';
/** How many slices are fetched at once ahead of the reader. */
const PREFETCH_AT_ONCE = 3;
/** Screen pixels a pixel of the image when it is smallest and largest. */
const LEAST_SCALE = 0.2;
const GREATEST_SCALE = 64;
/** Zoom of one wheel step with Ctrl, and of ten pixels of dragging. */
const ZOOM_STEP = 1.1;

let ready: Promise<RenderingEngine> | undefined;
let opened = 0;

/** One engine for as long as the page lives: its context is dear to make, and viewports come and go in it. */
function start(): Promise<RenderingEngine> {
  ready ??= (async () => {
    await initCore();
    // Without a GPU the browser's WebGL works each pixel out in software and hands it back: a slice is sooner drawn without.
    if (getRenderingCapabilities().softwareRasterizer) setUseCPURendering(true);
    initLoader({ maxWebWorkers: 1, beforeSend: async () => authorization() });
    return new RenderingEngine(ENGINE);
  })();
  return ready;
}

export interface StackListener {
  /** An image was drawn: overlays must follow. */
  drawn(): void;
  /** The window was changed by dragging. */
  windowed(window: Window): void;
  /** An image could not be loaded. */
  failed(index: number): void;
  /** Whether somebody else takes this press: then nothing is dragged. */
  grabbed(down: PointerEvent): boolean;
}

export class StackView {
  readonly #element: HTMLDivElement;
  readonly #engine: RenderingEngine;
  readonly #listener: StackListener;
  readonly #id = `stack-${++opened}`;
  readonly #closed = new AbortController();
  #slices: readonly Slice[] = [];
  #imageIds: string[] = [];
  #prefetching = 0;

  private constructor(engine: RenderingEngine, element: HTMLDivElement, listener: StackListener) {
    this.#element = element;
    this.#listener = listener;
    this.#engine = engine;
    this.#engine.enableElement({
      viewportId: this.#id,
      type: Enums.ViewportType.STACK,
      element,
      defaultOptions: { background: [0, 0, 0] },
    });
    const { signal } = this.#closed;
    element.addEventListener(Enums.Events.IMAGE_RENDERED, () => listener.drawn(), { signal });
    element.addEventListener('pointerdown', (event) => this.#drag(event), { signal });
    element.addEventListener('contextmenu', (event) => event.preventDefault(), { signal });
  }

  static async open(element: HTMLDivElement, listener: StackListener): Promise<StackView> {
    return new StackView(await start(), element, listener);
  }

  get #viewport(): StackViewport {
    return this.#engine.getViewport(this.#id) as StackViewport;
  }

  /** Shows slices of a series, `first` at once and the others as they come, nearest first. */
  async show(
    study: string,
    series: string,
    slices: readonly Slice[],
    first: number,
    window: Window,
  ): Promise<void> {
    this.#slices = slices;
    this.#imageIds = slices.map((slice) => {
      const id = `wadors:${location.origin}${framePath(study, series, slice.key)}`;
      wadors.metaDataManager.add(id, slice.metadata as Parameters<typeof wadors.metaDataManager.add>[1]);
      return id;
    });
    try {
      await this.#viewport.setStack(this.#imageIds, first);
    } catch (error) {
      this.#listener.failed(first);
      throw error;
    }
    this.window(window);
    void this.#prefetch(first);
  }

  async #prefetch(from: number): Promise<void> {
    const run = ++this.#prefetching;
    const order = this.#imageIds
      .map((id, index) => ({ id, index, far: Math.abs(index - from) }))
      .sort((a, b) => a.far - b.far);
    const next = async (): Promise<void> => {
      for (let one = order.shift(); one !== undefined && run === this.#prefetching; one = order.shift()) {
        const { id, index } = one;
        await imageLoader
          .loadAndCacheImage(id, { requestType: Enums.RequestType.Prefetch, priority: 0 })
          .catch(() => this.#listener.failed(index));
        if (this.#closed.signal.aborted) forget(id);
      }
    };
    await Promise.all(Array.from({ length: PREFETCH_AT_ONCE }, next));
  }

  /** Shows another slice; what is on the screen changes when it has been loaded. */
  async go(index: number): Promise<void> {
    try {
      await this.#viewport.setImageIdIndex(index);
    } catch {
      this.#listener.failed(index);
    }
  }

  /** What is on the screen now, not what was asked for. */
  shown(): Shown | null {
    const imageId = this.#viewport.getCornerstoneImage()?.imageId;
    const slice = this.#slices[imageId === undefined ? -1 : this.#imageIds.indexOf(imageId)];
    const image = this.#viewport.getImageData()?.imageData;
    if (slice === undefined || image === undefined) return null;
    // vtk puts pixel centres on whole numbers, so the outer edges are at −½ and n − ½; without a GPU Cornerstone puts the edges there.
    const half = getShouldUseCPURendering() ? 0 : 0.5;
    const canvas = (column: number, row: number) => {
      const world = image.indexToWorld?.([column - half, row - half, 0]) ?? [
        Number.NaN,
        Number.NaN,
        Number.NaN,
      ];
      return this.#viewport.worldToCanvas(world as [number, number, number]);
    };
    const [x0, y0] = canvas(0, 0);
    const [x1, y1] = canvas(slice.columns, 0);
    const [x2, y2] = canvas(0, slice.rows);
    const { columns, rows } = slice;
    if (![x0, y0, x1, y1, x2, y2].every(Number.isFinite)) return null;
    const affine: Affine = [
      (x1 - x0) / columns,
      (y1 - y0) / columns,
      (x2 - x0) / rows,
      (y2 - y0) / rows,
      x0,
      y0,
    ];
    return { slice, affine };
  }

  /** HU at a pixel of the image shown; null outside or unknown. */
  valueAt(column: number, row: number): number | null {
    const image = this.#viewport.getCornerstoneImage();
    if (!image || column < 0 || row < 0 || column >= image.columns || row >= image.rows) return null;
    const stored = image.voxelManager?.getAtIndex(row * image.columns + column);
    if (typeof stored !== 'number') return null;
    return image.preScale?.scaled ? stored : stored * image.slope + image.intercept;
  }

  /** HU of a slice, row by row, loaded if it is not yet. */
  async hu(index: number): Promise<ArrayLike<number>> {
    const id = this.#imageIds[index] ?? '';
    const image = await imageLoader.loadAndCacheImage(id, {
      requestType: Enums.RequestType.Interaction,
      priority: 0,
    });
    const stored = image.getPixelData();
    if (image.preScale?.scaled) return stored;
    return Float32Array.from(stored, (value) => value * image.slope + image.intercept);
  }

  window({ width, level }: Window): void {
    this.#viewport.setProperties({ voiRange: utilities.windowLevel.toLowHighRange(width, level) });
    this.#viewport.render();
  }

  #window(): Window | null {
    const range = this.#viewport.getProperties().voiRange;
    if (!range) return null;
    const { windowWidth, windowCenter } = utilities.windowLevel.toWindowLevel(range.lower, range.upper);
    return { width: windowWidth, level: windowCenter };
  }

  /** Enlarges by a factor, at most to where a pixel of the image is 64 of the screen. */
  zoom(factor: number): void {
    const shown = this.shown();
    const scale = shown === null ? 1 : Math.hypot(shown.affine[0], shown.affine[1]);
    const allowed = Math.min(Math.max(factor, LEAST_SCALE / scale), GREATEST_SCALE / scale);
    this.#viewport.setZoom(this.#viewport.getZoom() * allowed);
    this.#viewport.render();
  }

  /** Whole image, centred. */
  fit(): void {
    this.#viewport.resetCamera();
    this.#viewport.render();
  }

  resize(): void {
    this.#engine.resize(true, false);
  }

  /** Left button: window; right button or Ctrl: zoom; middle button or Shift: pan. */
  #drag(down: PointerEvent): void {
    if (this.#listener.grabbed(down)) return;
    const act =
      down.button === 1 || down.shiftKey ? 'pan' : down.button === 2 || down.ctrlKey ? 'zoom' : 'window';
    let { clientX, clientY } = down;
    const move = (event: PointerEvent) => {
      const [dx, dy] = [event.clientX - clientX, event.clientY - clientY];
      ({ clientX, clientY } = event);
      if (act === 'pan') this.#pan(dx, dy);
      else if (act === 'zoom') this.zoom(ZOOM_STEP ** (-dy / 10));
      else this.#dragWindow(dx, dy);
    };
    const up = () => {
      this.#element.removeEventListener('pointermove', move);
      this.#element.removeEventListener('pointerup', up);
      this.#element.removeEventListener('pointercancel', up);
    };
    this.#element.setPointerCapture(down.pointerId);
    this.#element.addEventListener('pointermove', move);
    this.#element.addEventListener('pointerup', up);
    this.#element.addEventListener('pointercancel', up);
  }

  /** Moves the image by so many CSS pixels. */
  #pan(dx: number, dy: number): void {
    // Not setPan: without a GPU Cornerstone takes its pixels for millimetres.
    const viewport = this.#viewport;
    const { focalPoint, position } = viewport.getCamera();
    if (focalPoint === undefined || position === undefined) return;
    const [from, to] = [viewport.canvasToWorld([0, 0]), viewport.canvasToWorld([dx, dy])];
    const moved = (point: readonly number[]) =>
      point.map((v, a) => v - ((to[a] ?? 0) - (from[a] ?? 0))) as [number, number, number];
    viewport.setCamera({ focalPoint: moved(focalPoint), position: moved(position) });
    viewport.render();
  }

  #dragWindow(dx: number, dy: number): void {
    const now = this.#window();
    if (now === null) return;
    // A wide window moves faster, so that bone and brain both take one stroke of the hand.
    const speed = Math.max(now.width / 300, 0.25);
    const next = { width: Math.max(now.width + dx * speed, 1), level: now.level - dy * speed };
    this.window(next);
    this.#listener.windowed(next);
  }

  close(): void {
    this.#prefetching++;
    this.#closed.abort();
    this.#engine.disableElement(this.#id);
    this.#imageIds.forEach(forget);
    // Whoever still holds the element must not hold the page around it.
    this.#element.remove();
  }
}

/** Lets go of an image; one that is still on its way is forgotten by who waits for it. */
function forget(imageId: string): void {
  if (cache.isLoaded(imageId)) cache.removeImageLoadObject(imageId, { force: true });
}
