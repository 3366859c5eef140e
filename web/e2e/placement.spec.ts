/**
 * Where a mask lies on the screen, in pixels, on stacks that are tilted, uneven, oblique, reversed, and the frames of one object.
 *
 * A reader's mask is the truth of the phantom, to the voxel, and the images that the page gets are white where that truth is and black elsewhere.
 * On a slice, what Cornerstone drew white must be what the page painted over it.
 * In the planes, each pixel's place in the patient is asked of the page by clicks, and looked up in the truth by the attributes of the original slices alone.
 */

import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { SliceRuns, StudyDetail } from '../src/api/model.ts';
import { dot, normal, ofKey, type Slice, stack, type Vec3 } from '../src/dicomweb/geometry.ts';
import { number } from '../src/dicomweb/json.ts';
import { parts } from '../src/dicomweb/multipart.ts';
import { ALONG, AXES, type Axis } from '../src/viewer/planes/reslice.ts';
import { PRESETS } from '../src/viewer/windows.ts';
import {
  close,
  described,
  launch,
  metadata,
  open,
  openStudy,
  PLACEMENT,
  picture,
  server,
  shown,
} from './browser.ts';
import { area, signIn, truth } from './hand.ts';

const BONE = PRESETS.find(({ name }) => name === 'bone') ?? PRESETS[0];
/** Half the width of a mask's outline with its dark edge, CSS pixels: as much is painted outside of it. */
const OUTSIDE = 1.75;
/** How far the two are moved against each other to see where they match best, CSS pixels. */
const SEARCH = 3;

let browser: Browser;
let context: BrowserContext;
let page: Page;
let foreign: string[];
let errors: string[];

beforeAll(async () => {
  browser = await launch();
});
afterAll(() => browser?.close());
beforeEach(async () => {
  ({ context, page, foreign, errors } = await open(browser));
});
afterEach((test) => close({ context, page, foreign, errors }, test));

/** A picture in which something is set or not. */
interface Area {
  width: number;
  height: number;
  set: Uint8Array;
}

describe.each([
  ['tilted', 'software'],
  ['uneven', 'software'],
  ['oblique', 'software'],
  ['reversed', 'software'],
  // Oblique, and all slices in one multi-frame object, in another order.
  ['frames', 'software'],
  // Cornerstone draws with WebGL where it believes in a GPU, and lays pixels by other rules.
  ['tilted', 'a GPU'],
])('on a stack that is %s, drawn by %s', (geometry, drawnBy) => {
  let study: StudyDetail;
  let slices: readonly Slice[];
  let bled: Map<string, Uint8Array>;

  beforeEach(async () => {
    if (drawnBy !== 'software') await context.addInitScript(callItGpu);
    study = await described(`${PLACEMENT} ${geometry}`);
    const series = study.series.find((s) => s.chosen)?.series_instance_uid ?? '';
    ({ slices } = stack(await metadata(study.study_instance_uid, series)));
    bled = truth(geometry);
    expect([...bled.keys()].sort()).toEqual(slices.map((s) => s.key).sort());
    await context.route('**/frames/*', async (route) => {
      const [, uid = '', frame] = /instances\/([0-9.]+)(\/frames\/[0-9]+)$/.exec(route.request().url()) ?? [];
      const slice = slices.find((s) => s.key === uid || s.key === uid + frame);
      const mask = bled.get(slice?.key ?? '');
      if (slice === undefined || mask === undefined) return route.continue();
      const answer = await route.fetch();
      const body = marked(slice, mask, answer.headers()['content-type'] ?? '', await answer.body());
      await route.fulfill({ response: answer, body });
    });
    await openStudy(context, page, study.study_instance_uid);
    await signIn(page);
    await showTruth();
    await page.locator('.viewport').focus();
    await page.keyboard.press(BONE?.key ?? '');
  });

  /** Has the truth as a reader's mask, and shows that. */
  async function showTruth(): Promise<void> {
    const runs = slices.flatMap(({ key }): SliceRuns[] => {
      const found = runsOf(bled.get(key) ?? new Uint8Array());
      return found.length === 0 ? [] : [{ ...ofKey(key), runs: found }];
    });
    const path = `/api/studies/${study.study_instance_uid}/corrections`;
    const known = (await (await page.request.get(server() + path)).json()) as { id: string }[];
    let id = known[0]?.id;
    if (id === undefined) {
      const correction = {
        analysis: study.analysis?.id,
        kind: 'haemorrhage',
        edited: false,
        slices: runs,
      };
      const answer = await page.evaluate(
        async ([to, body]) => {
          const headers = { 'Content-Type': 'application/json' };
          const sent = await fetch(to, { method: 'POST', headers, body });
          return { status: sent.status, text: await sent.text() };
        },
        [path, JSON.stringify(correction)] as const,
      );
      expect(answer.status, answer.text).toBeLessThan(300);
      id = (JSON.parse(answer.text) as { id: string }).id;
    }
    await page.locator(`[data-correction="${id}"]`).click();
    await page.locator(`[data-correction="${id}"][aria-pressed=true]`).waitFor();
  }

  /** The slices with most, with least and with a middling amount of truth on them. */
  function places(): number[] {
    const held = slices
      .map(({ key }, index) => ({
        index,
        size: area(bled.get(key) ?? new Uint8Array()),
      }))
      .filter(({ size }) => size >= 40)
      .sort((a, b) => b.size - a.size);
    const [most, middle, least] = [held[0], held[Math.floor(held.length / 2)], held.at(-1)];
    if (!most || !middle || !least) throw new Error('The phantom bleeds too little for this test.');
    return [...new Set([most.index, middle.index, least.index])];
  }

  async function toSlice(index: number): Promise<void> {
    await page.locator('.viewport').focus();
    for (let now = await shown(page); now !== index; now = await shown(page)) {
      // Up is towards the head, which a reversed stack has at its other end.
      await page.keyboard.press('ArrowUp');
      const after = await movedFrom(now);
      const wanted = Math.sign(index - now);
      if (Math.sign(after - now) !== wanted) {
        for (let at = after; at !== index; at = await movedFrom(at)) await page.keyboard.press('ArrowDown');
        return;
      }
    }
  }
  const movedFrom = async (now: number): Promise<number> => {
    await page.waitForFunction(
      (before) =>
        !['', before].includes(document.querySelector<HTMLElement>('.viewport')?.dataset.shown ?? ''),
      String(now),
    );
    return shown(page);
  };

  it('covers the white of the image and nothing else, on slices near and far, whole and enlarged', async () => {
    for (const index of places()) {
      await toSlice(index);
      for (const zoom of [false, true]) {
        if (zoom) {
          const box = await page.locator('.picture').boundingBox();
          if (box === null) throw new Error('no picture');
          await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
          await page.keyboard.down('Control');
          for (let i = 0; i < 4; i++) await page.mouse.wheel(0, -100);
          await page.keyboard.up('Control');
          await page.mouse.move(2, 2);
        }
        await expect.poll(async () => area((await painted()).set), { timeout: 30_000 }).toBeGreaterThan(0);
        // The image and what is painted over it come one after the other.
        await expect
          .poll(async () => match(grown(await white(), OUTSIDE), await painted()).best.join(), {
            timeout: 30_000,
          })
          .toBe('0,0');
        const [image, mask] = [await white(), await painted()];
        // Corners of the outline reach further out than its sides; a lone pixel is drawn grey, and can fade away.
        const strays = beyond(mask, await light(), OUTSIDE * Math.SQRT2 + 1.5);
        expect(strays / area(mask.set)).toBeLessThanOrEqual(0.005);
        expect(beyond(image, mask, 1)).toBe(0);
        const { dice } = match(grown(image, OUTSIDE), mask);
        console.log(
          `${geometry}, ${drawnBy}, slice ${index}${zoom ? ', enlarged' : ''}: Dice ${dice.toFixed(3)}`,
        );
      }
      await page.locator('.viewport').focus();
      await page.keyboard.press('0');
    }
    await picture(page, `placement-${geometry}-${drawnBy === 'software' ? 'software' : 'gpu'}`);
  });

  it('lies in the planes where the truth lies in the patient', async () => {
    await toSlice(places()[0] ?? 0);
    await page.keyboard.press('v');
    await page.waitForSelector('[data-planes="ready"]');
    const { toPatient, toCanvas } = await calibrated('axial');
    // Through the truth on the slice that has most of it.
    const largest = slices[places()[0] ?? 0] as Slice;
    const middle = inside(largest, bled.get(largest.key) ?? new Uint8Array());
    const [x, y] = toCanvas(middle);
    await page.locator('.plane[data-axis="axial"] canvas').click({ position: { x, y } });
    expect(toPatient([x, y])[0]).toBeCloseTo((await point())[0] ?? 0, 0);
    const bleeds = lookup(slices, bled);
    for (const axis of AXES) {
      const map = axis === 'axial' ? toPatient : (await calibrated(axis)).toPatient;
      const mask = await changedByMask(axis);
      const told: Area = { ...mask, set: new Uint8Array(mask.set.length) };
      for (let i = 0; i < told.set.length; i++) {
        const at = map([(i % mask.width) + 0.5, Math.floor(i / mask.width) + 0.5]);
        told.set[i] = bleeds(at) ? 1 : 0;
      }
      expect(area(told.set)).toBeGreaterThan(100);
      const found = match(told, mask);
      console.log(
        `${geometry}, ${axis}: Dice ${found.dice.toFixed(3)}, matches best at ${found.best.join()}`,
      );
      expect(Math.max(...found.best.map(Math.abs))).toBeLessThanOrEqual(1);
      // Steps between thick slices are rounded to pixels twice: by the page's own raster, and by the canvas.
      expect(beyond(mask, told, 2) / area(mask.set)).toBeLessThanOrEqual(0.01);
      expect(beyond(told, mask, 2) / area(told.set)).toBeLessThanOrEqual(0.01);
    }
    await picture(page, `placement-planes-${geometry}`);
  });

  const point = async () => {
    const text = await page.locator('[data-point]').getAttribute('data-point');
    return (text ?? '').split(' ').map(Number);
  };

  /** Canvas pixels of a plane ↔ the patient, from where three clicks led. */
  async function calibrated(axis: Axis) {
    const before = await point();
    const [x, y] = ALONG[axis];
    const canvas = page.locator(`.plane[data-axis="${axis}"] canvas`);
    const box = await canvas.boundingBox();
    if (box === null) throw new Error('no plane');
    const [cx, cy] = [Math.round(box.width / 2), Math.round(box.height / 2)];
    const reach = Math.round(Math.min(box.width, box.height) / 5);
    const click = async (px: number, py: number) => {
      await canvas.click({ position: { x: px, y: py } });
      return point();
    };
    const [left, right] = [await click(cx - reach, cy - reach), await click(cx + reach, cy - reach)];
    const low = await click(cx - reach, cy + reach);
    const perX = ((right[x] ?? 0) - (left[x] ?? 0)) / (2 * reach);
    const perY = ((low[y] ?? 0) - (left[y] ?? 0)) / (2 * reach);
    const toPatient = ([px, py]: readonly [number, number]): Vec3 => {
      const at = [...before] as Vec3;
      at[x] = (left[x] ?? 0) + (px - (cx - reach)) * perX;
      at[y] = (left[y] ?? 0) + (py - (cy - reach)) * perY;
      return at;
    };
    const toCanvas = (at: Vec3): [number, number] => [
      cx - reach + (at[x] - (left[x] ?? 0)) / perX,
      cy - reach + (at[y] - (left[y] ?? 0)) / perY,
    ];
    // Back to where the planes went through.
    await click(...toCanvas(before as Vec3));
    return { toPatient, toCanvas };
  }

  /** What the mask changes of a plane. */
  async function changedByMask(axis: Axis): Promise<Area> {
    const pixels = () => channels(`.plane[data-axis="${axis}"] canvas`, [0, 2]);
    const difference = (a: Uint8Array, b: Uint8Array) =>
      Uint8Array.from({ length: a.length / 2 }, (_, i) =>
        [2 * i, 2 * i + 1].some((j) => Math.abs((a[j] ?? 0) - (b[j] ?? 0)) > 8) ? 1 : 0,
      );
    const toggle = page.locator('[data-toggle=mask]');
    const on = await pixels();
    await toggle.click();
    let off = await pixels();
    await expect
      .poll(async () => area(difference(on.bytes, (off = await pixels()).bytes)), { timeout: 30_000 })
      .toBeGreaterThan(0);
    await toggle.click();
    await expect.poll(async () => area(difference(off.bytes, (await pixels()).bytes))).toBeGreaterThan(0);
    return { width: on.width, height: on.height, set: difference(on.bytes, off.bytes) };
  }
});

/** Hides from the page that WebGL is worked out in software. */
function callItGpu(): void {
  const UNMASKED_RENDERER_WEBGL = 0x9246;
  for (const { prototype } of [WebGLRenderingContext, WebGL2RenderingContext]) {
    const told = prototype.getParameter;
    prototype.getParameter = function (name: number) {
      return name === UNMASKED_RENDERER_WEBGL ? 'A GPU' : told.call(this, name);
    };
  }
}

/** The brighter half of what Cornerstone drew. */
const white = () => seen('.picture canvas', 0, 128);
/** All that is not nearly black in it. */
const light = () => seen('.picture canvas', 0, 48);
/** Where the page painted a mask. */
const painted = () => seen('canvas[data-layer=mask]', 3, 1);

async function seen(selector: string, channel: number, from: number): Promise<Area> {
  const { width, height, bytes } = await channels(selector, [channel]);
  return { width, height, set: bytes.map((value) => (value >= from ? 1 : 0)) };
}

/** Channels of a canvas, pixel by pixel. */
async function channels(selector: string, wanted: number[]) {
  const [width, height, text] = await page.locator(selector).evaluate((element, wanted) => {
    const at = element as HTMLCanvasElement;
    const { data } = at.getContext('2d')?.getImageData(0, 0, at.width, at.height) ?? { data: [] };
    const bytes = new Uint8Array((data.length / 4) * wanted.length);
    for (let i = 0, to = 0; i < data.length; i += 4) {
      for (const channel of wanted) bytes[to++] = data[i + channel] ?? 0;
    }
    let text = '';
    for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
    return [at.width, at.height, btoa(text)] as const;
  }, wanted);
  return { width, height, bytes: new Uint8Array(Buffer.from(text, 'base64')) };
}

/** Column and row of each pixel that is set. */
function pixelsIn({ width, set }: Area): [number, number][] {
  const found: [number, number][] = [];
  for (let i = set.indexOf(1); i >= 0; i = set.indexOf(1, i + 1))
    found.push([i % width, Math.floor(i / width)]);
  return found;
}

/** All that lies within so many pixels of what is set. */
function grown({ width, height, set }: Area, by: number): Area {
  const all = Uint8Array.from(set);
  const reach = Math.floor(by);
  const near: [number, number][] = [];
  for (let dy = -reach; dy <= reach; dy++) {
    for (let dx = -reach; dx <= reach; dx++) {
      if (Math.hypot(dx, dy) <= by) near.push([dx, dy]);
    }
  }
  for (const [x, y] of pixelsIn({ width, height, set })) {
    for (const [dx, dy] of near) {
      const [nx, ny] = [x + dx, y + dy];
      if (nx >= 0 && ny >= 0 && nx < width && ny < height) all[ny * width + nx] = 1;
    }
  }
  return { width, height, set: all };
}

/** Pixels of one area that lie further than so many pixels from the other. */
function beyond(one: Area, other: Area, by: number): number {
  const near = grown(other, by).set;
  return area(one.set.map((bit, i) => (bit && !near[i] ? 1 : 0)));
}

/** Dice of two areas, and by how many pixels the second would have to move to match best: `[0, 0]` when it lies right. */
function match(one: Area, other: Area): { dice: number; best: [number, number] } {
  expect([other.width, other.height]).toEqual([one.width, one.height]);
  const { width, height } = one;
  const others = pixelsIn(other);
  const shared = (dx: number, dy: number) => {
    let count = 0;
    for (const [ox, oy] of others) {
      const [x, y] = [ox + dx, oy + dy];
      if (x >= 0 && y >= 0 && x < width && y < height && one.set[y * width + x]) count++;
    }
    return count;
  };
  let best: [number, number] = [0, 0];
  let most = shared(0, 0);
  const there = most;
  for (let dy = -SEARCH; dy <= SEARCH; dy++) {
    for (let dx = -SEARCH; dx <= SEARCH; dx++) {
      const count = shared(dx, dy);
      if (count <= most) continue;
      most = count;
      best = [dx, dy];
    }
  }
  return { dice: (2 * there) / Math.max(area(one.set) + area(other.set), 1), best };
}

/** Pixels that are set as pairs of a first one and how many. */
function runsOf(mask: Uint8Array): number[] {
  const runs: number[] = [];
  mask.forEach((bit, i) => {
    if (!bit) return;
    if (i > 0 && mask[i - 1]) runs[runs.length - 1] = (runs.at(-1) ?? 0) + 1;
    else runs.push(i, 1);
  });
  return runs;
}

/** The answer for a frame with its pixels at the two ends of the window, by the truth. */
function marked(slice: Slice, mask: Uint8Array, type: string, body: Buffer): Buffer {
  const [part] = parts(type, new Uint8Array(body)) ?? [];
  const boundary = /boundary="?([^";]+)/.exec(type)?.[1] ?? '';
  const told = (tag: string, without: number) => number(slice.metadata, tag) ?? without;
  const stored = (hu: number) => Math.round((hu - told('00281052', 0)) / told('00281053', 1));
  const { width = 0, level = 0 } = BONE ?? {};
  const pixels = new DataView(new ArrayBuffer(2 * mask.length));
  if (part?.body.length !== pixels.byteLength) throw new Error('The frame is not of 16 bits a pixel.');
  mask.forEach((bit, i) => pixels.setInt16(2 * i, stored(level + (bit ? width : -width) / 2), true));
  return Buffer.concat([
    Buffer.from(`--${boundary}\r\nContent-Type: application/octet-stream\r\n\r\n`),
    Buffer.from(pixels.buffer),
    Buffer.from(`\r\n--${boundary}--\r\n`),
  ]);
}

const directions = (slice: Slice) => {
  const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0] = slice.imageOrientationPatient;
  return [
    [a, b, c],
    [d, e, f],
  ] as const;
};

/** The middle of the longest run of pixels that are set on a slice, in the patient. */
function inside(slice: Slice, mask: Uint8Array): Vec3 {
  const runs = runsOf(mask);
  let [first, length] = [0, 0];
  for (let i = 0; i < runs.length; i += 2) {
    if ((runs[i + 1] ?? 0) > length) [first, length] = [runs[i] ?? 0, runs[i + 1] ?? 0];
  }
  const pixel = first + Math.floor(length / 2);
  const [right, down] = directions(slice);
  const [rowMm = 1, columnMm = 1] = slice.pixelSpacingMm;
  const [x, y] = [(pixel % slice.columns) * columnMm, Math.floor(pixel / slice.columns) * rowMm];
  return slice.imagePositionPatient.map((v, a) => v + x * (right[a] ?? 0) + y * (down[a] ?? 0)) as Vec3;
}

/** Whether the truth has blood at a place in the patient: on the nearest slice, in the nearest pixel; beyond half a thickness of the outermost slices there is nothing. */
function lookup(slices: readonly Slice[], truth: ReadonlyMap<string, Uint8Array>): (at: Vec3) => boolean {
  const across = normal(slices[0]?.imageOrientationPatient ?? []);
  const known = slices.map((slice) => {
    const [right, down] = directions(slice);
    const [rowMm = 1, columnMm = 1] = slice.pixelSpacingMm;
    const depth = dot(slice.imagePositionPatient, across);
    return { slice, right, down, rowMm, columnMm, depth, bits: truth.get(slice.key) };
  });
  const ends = known.map(({ slice, depth }) =>
    [-1, 1].map((way) => depth + (way * (slice.sliceThicknessMm ?? 0)) / 2),
  );
  const [low, high] = [Math.min(...ends.flat()), Math.max(...ends.flat())];
  return (at) => {
    const along = dot(at, across);
    if (along < low || along > high) return false;
    const nearest = known.reduce((best, next) =>
      Math.abs(along - next.depth) < Math.abs(along - best.depth) ? next : best,
    );
    const { slice, right, down, rowMm, columnMm, bits } = nearest;
    const from = at.map((v, a) => v - (slice.imagePositionPatient[a] ?? 0));
    const [column, row] = [Math.round(dot(from, right) / columnMm), Math.round(dot(from, down) / rowMm)];
    if (column < 0 || row < 0 || column >= slice.columns || row >= slice.rows) return false;
    return bits?.[row * slice.columns + column] === 1;
  };
}
