import type { Browser, BrowserContext, CDPSession, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { launch, open, server, shown, worklist } from './browser.ts';

/** Studies opened and closed; those of the warm-up load code and fill what is kept on purpose. */
const OPENED = 50;
const WARM_UP = 6;
/** Typed arrays of at least this size are pixels: nothing else of the page is as large, bytes. */
const PIXELS = 100_000;

let browser: Browser;
let context: BrowserContext;
let page: Page;
let devtools: CDPSession;

beforeAll(async () => {
  browser = await launch();
  ({ context, page } = await open(browser));
  await context.addInitScript(() => {
    const counted = globalThis as unknown as { blobs: number };
    counted.blobs = 0;
    const [make, revoke] = [URL.createObjectURL.bind(URL), URL.revokeObjectURL.bind(URL)];
    URL.createObjectURL = (what: Blob) => {
      counted.blobs++;
      return make(what);
    };
    URL.revokeObjectURL = (url: string) => {
      counted.blobs--;
      revoke(url);
    };
  });
  devtools = await context.newCDPSession(page);
  await devtools.send('Performance.enable');
});
afterAll(() => browser?.close());

/** What a function says of all living objects of a class. */
async function living(name: string, of: (all: object[]) => number): Promise<number> {
  const { result } = await devtools.send('Runtime.evaluate', { expression: `${name}.prototype` });
  const { objects } = await devtools.send('Runtime.queryObjects', {
    prototypeObjectId: result.objectId ?? '',
    objectGroup: 'living',
  });
  const answer = await devtools.send('Runtime.callFunctionOn', {
    objectId: objects.objectId ?? '',
    functionDeclaration: `function () { return (${of.toString()})(Array.from(this)); }`,
    returnByValue: true,
  });
  await devtools.send('Runtime.releaseObjectGroup', { objectGroup: 'living' });
  return Number(answer.result.value);
}

const count = (name: string) => living(name, (all) => all.length);

/** What is alive on the worklist after everything that can be collected was. */
async function census() {
  await page.evaluate(() => new Promise((done) => setTimeout(done, 1000)));
  for (let i = 0; i < 3; i++) await devtools.send('HeapProfiler.collectGarbage');
  const { metrics } = await devtools.send('Performance.getMetrics');
  const metric = (name: string) => metrics.find((one) => one.name === name)?.value ?? Number.NaN;
  const pixels = (name: string) =>
    living(
      name,
      new Function(
        'all',
        `return all.filter((a) => a.byteLength >= ${PIXELS}).reduce((sum, a) => sum + a.byteLength, 0)`,
      ) as (all: object[]) => number,
    );
  const arrays = ['Int16Array', 'Uint16Array', 'Float32Array', 'Uint8Array'];
  let pixelBytes = 0;
  for (const name of arrays) pixelBytes += await pixels(name);
  return {
    heapMb: Math.round(metric('JSHeapUsedSize') / 1e5) / 10,
    listeners: metric('JSEventListeners'),
    nodes: metric('Nodes'),
    pixelBytes,
    textures: await count('WebGLTexture'),
    buffers: await count('WebGLBuffer'),
    contexts: await count('WebGL2RenderingContext'),
    canvases: await count('OffscreenCanvas'),
    bitmaps: await count('ImageBitmap'),
    workers: await count('Worker'),
    observers: await count('ResizeObserver'),
    blobs: await page.evaluate(() => (globalThis as unknown as { blobs: number }).blobs),
  };
}

describe('fifty studies', () => {
  it('that were opened and closed leave no image, texture, buffer, worker or blob behind', async () => {
    const uids = (await worklist()).studies
      .filter((s) => s.state === 'flagged' || s.state === 'not_flagged')
      .map((s) => s.study_instance_uid);
    await page.goto(server());
    let first: Awaited<ReturnType<typeof census>> | undefined;
    for (let i = 0; i < WARM_UP + OPENED; i++) {
      if (i === WARM_UP) first = await census();
      await page.locator(`tr[data-study="${uids[i % uids.length]}"] a.patient`).click();
      const index = await shown(page);
      await page.keyboard.press('ArrowUp');
      await shown(page, index + 1);
      await page.keyboard.press('Escape');
      // Not waitForSelector: the element that it hands over is held, and the whole list with it.
      await page.locator('tr[data-study]').first().waitFor();
    }
    const last = await census();
    console.log(`after ${WARM_UP} studies: ${JSON.stringify(first)}`);
    console.log(`after ${WARM_UP + OPENED} studies: ${JSON.stringify(last)}`);
    if (first === undefined) throw new Error('nothing was counted');
    const { heapMb, nodes, listeners, ...before } = first;
    // These differ by what the last study happened to hold; what every study leaves would show fifty times.
    expect((last.listeners - listeners) / OPENED, 'listeners a study').toBeLessThan(0.5);
    expect((last.nodes - nodes) / OPENED, 'nodes a study').toBeLessThan(10);
    expect((last.heapMb - heapMb) / OPENED, 'MB a study').toBeLessThan(0.05);
    for (const [what, number] of Object.entries(before)) {
      expect(last[what as keyof typeof before], what).toBeLessThanOrEqual(number);
    }
  });
});
