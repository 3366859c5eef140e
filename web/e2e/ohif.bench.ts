/**
 * The largest CT study of a server, opened by our page and by OHIF, in turns: time to the first image and to all images, and what a step of scrolling costs the main thread.
 *
 * Both pages come through the same kind of proxy from the same server, each time into an empty browser profile.
 * The first image is when Cornerstone, which both use, has drawn the first image of a stack; all images, when the last frame has been received.
 */

import { createServer, request, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, it } from 'vitest';
import { launch, server, study, worklist } from './browser.ts';
import { ohif } from './ohif.ts';

const PAIRS = Number(process.env.ICTUS_PAIRS ?? 7);
const STEPS = 60;
const GIVE_UP_MS = 240_000;
/** Resamplings of the pairs for an interval. */
const RESAMPLED = 4000;

interface Run {
  first: number;
  all: number;
  step: number;
}

let browser: Browser;
const fronts: Server[] = [];
let ours: string;
let theirs: string;
let uid: string;
let images: number;

/** Passes everything on, as OHIF's proxy does with what it does not serve itself. */
async function passOn(upstream: string): Promise<string> {
  const { hostname, port, host } = new URL(upstream);
  const front = createServer((asked, answer) => {
    const kept = Object.entries(asked.headers).filter(
      ([name]) => !name.startsWith('sec-') && name !== 'origin' && name !== 'referer',
    );
    const headers = { ...Object.fromEntries(kept), host };
    const passed = request({ hostname, port, path: asked.url, method: asked.method, headers }, (from) => {
      answer.writeHead(from.statusCode ?? 502, from.headers);
      from.pipe(answer);
    });
    passed.on('error', () => answer.destroy());
    // An event stream ends when its reader leaves.
    answer.on('close', () => passed.destroy());
    asked.pipe(passed);
  });
  await new Promise<void>((listening) => front.listen(0, '127.0.0.1', listening));
  fronts.push(front);
  return `http://127.0.0.1:${(front.address() as AddressInfo).port}`;
}

beforeAll(async () => {
  browser = await launch();
  const details = await Promise.all((await worklist()).studies.map((s) => study(s.study_instance_uid)));
  const sized = details.map((detail) => ({
    uid: detail.study_instance_uid,
    images: Math.max(
      ...detail.series
        .filter((s) => s.modality === 'CT' && s.origin === 'received')
        .map((s) => s.instance_count),
    ),
  }));
  const [largest] = sized.sort((a, b) => b.images - a.images);
  if (largest === undefined) throw new Error('The server holds no study: send one first.');
  ({ uid, images } = largest);
  ours = await passOn(server());
  const front = await ohif(server());
  fronts.push(front.server);
  theirs = front.url;
});
afterAll(async () => {
  await browser?.close();
  for (const front of fronts) front.close();
});

async function openOnce(url: string): Promise<Run> {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 } });
  context.setDefaultTimeout(GIVE_UP_MS);
  try {
    await context.addInitScript(() => {
      const seen = globalThis as unknown as { first?: number; drawn: number };
      seen.drawn = 0;
      let isNew = false;
      // Cornerstone's events do not bubble, but they are captured.
      document.addEventListener('CORNERSTONE_STACK_NEW_IMAGE', () => (isNew = true), true);
      document.addEventListener(
        'CORNERSTONE_IMAGE_RENDERED',
        () => {
          seen.drawn++;
          if (isNew) seen.first ??= performance.now();
        },
        true,
      );
    });
    const page = await context.newPage();
    const frames = new Set<string>();
    let allAt = Number.NaN;
    const begin = performance.now();
    const complete = new Promise<void>((resolve) => {
      page.on('requestfinished', (asked) => {
        const instance = /instances\/([0-9.]+)\/frames/.exec(asked.url())?.[1];
        if (instance === undefined) return;
        frames.add(instance);
        if (frames.size < images || !Number.isNaN(allAt)) return;
        allAt = performance.now() - begin;
        resolve();
      });
    });
    await page.goto(url);
    await page.waitForFunction(() => (globalThis as unknown as { first?: number }).first !== undefined);
    const first = await page.evaluate(() => (globalThis as unknown as { first: number }).first);
    await Promise.race([complete, page.waitForTimeout(GIVE_UP_MS)]);
    return { first, all: allAt, step: await scroll(page) };
  } finally {
    await context.close();
  }
}

/** Main-thread work a step of the wheel, ms. */
async function scroll(page: Page): Promise<number> {
  await page.addStyleTag({ content: '[class*=shepherd] { display: none !important }' });
  await page.waitForTimeout(3000);
  // Both show their images in the middle of the window.
  await page.mouse.move(760, 480);
  const devtools = await page.context().newCDPSession(page);
  await devtools.send('Performance.enable');
  const busy = async () => {
    const { metrics } = await devtools.send('Performance.getMetrics');
    return (metrics.find(({ name }) => name === 'TaskDuration')?.value ?? Number.NaN) * 1000;
  };
  const drawn = () => page.evaluate(() => (globalThis as unknown as { drawn: number }).drawn);
  const [before, drawnBefore] = [await busy(), await drawn()];
  for (let i = 0; i < STEPS; i++) {
    await page.mouse.wheel(0, i < STEPS / 2 ? 100 : -100);
    await page.waitForTimeout(60);
  }
  const [after, steps] = [await busy(), (await drawn()) - drawnBefore];
  return (after - before) / Math.max(steps, 1);
}

const median = (values: readonly number[]) => {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length / 2;
  return sorted.length % 2 === 1
    ? (sorted[Math.floor(middle)] ?? Number.NaN)
    : ((sorted[middle - 1] ?? Number.NaN) + (sorted[middle] ?? Number.NaN)) / 2;
};

/** Ratio of medians and the middle 95 % of what resampled pairs give. */
function ratio(pairs: readonly [number, number][]): string {
  const of = (some: readonly [number, number][]) =>
    median(some.map(([a]) => a)) / median(some.map(([, b]) => b));
  const drawn = Array.from({ length: RESAMPLED }, () =>
    of(pairs.map(() => pairs[Math.floor(Math.random() * pairs.length)] ?? [Number.NaN, Number.NaN])),
  ).sort((a, b) => a - b);
  const at = (share: number) => (drawn[Math.floor(share * (RESAMPLED - 1))] ?? Number.NaN).toFixed(2);
  return `${of(pairs).toFixed(2)} (95 %: ${at(0.025)} to ${at(0.975)})`;
}

it('opens one study in turns', async () => {
  const runs: [Run, Run][] = [];
  for (let i = 0; i < PAIRS; i++) {
    const mine = () => openOnce(`${ours}/study/${uid}`);
    const other = () => openOnce(`${theirs}/viewer?StudyInstanceUIDs=${uid}`);
    // The order changes, so that neither always finds the machine as the other left it.
    const first = i % 2 === 0 ? await mine() : await other();
    const second = i % 2 === 0 ? await other() : await mine();
    const pair: [Run, Run] = i % 2 === 0 ? [first, second] : [second, first];
    runs.push(pair);
    console.log(`pair ${i + 1} of ${PAIRS}: ${JSON.stringify(pair)}`);
  }
  console.log(`${images} slices, ${PAIRS} pairs; medians, ms`);
  for (const what of ['first', 'all', 'step'] as const) {
    const pairs = runs.map(([a, b]): [number, number] => [a[what], b[what]]);
    const [us, them] = [median(pairs.map(([a]) => a)), median(pairs.map(([, b]) => b))];
    console.log(`${what}: ictus ${us.toFixed(1)}, OHIF ${them.toFixed(1)}, ratio ${ratio(pairs)}`);
  }
});
