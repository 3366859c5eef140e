import type { Server } from 'node:http';
import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { launch, picture, server, single, worklist } from './browser.ts';
import { ohif } from './ohif.ts';

/** Where OHIF draws, in the middle of the window: no button of its own lies there. */
const VIEWPORT = { x: 300, y: 130, width: 1080, height: 650 };

let browser: Browser;
let context: BrowserContext;
let page: Page;
let front: Server;
let study: string;
const refused: string[] = [];
const foreign: string[] = [];

/** What is on the screen where images are: pixels that are lit, and pixels that have a colour. */
async function seen(): Promise<{ lit: number; coloured: number }> {
  const png = (await page.screenshot({ clip: VIEWPORT })).toString('base64');
  return page.evaluate(async (data) => {
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    const image = await createImageBitmap(new Blob([bytes], { type: 'image/png' }));
    const canvas = new OffscreenCanvas(image.width, image.height);
    const drawing = canvas.getContext('2d');
    if (!drawing) throw new Error('no canvas');
    drawing.drawImage(image, 0, 0);
    const pixels = drawing.getImageData(0, 0, image.width, image.height).data;
    let [lit, coloured] = [0, 0];
    for (let at = 0; at < pixels.length; at += 4) {
      const rgb = [pixels[at] ?? 0, pixels[at + 1] ?? 0, pixels[at + 2] ?? 0];
      const [low, high] = [Math.min(...rgb), Math.max(...rgb)];
      if (high > 60) lit += 1;
      if (high - low > 60) coloured += 1;
    }
    return { lit, coloured };
  }, png);
}

/** Of the study that was opened: those of the patient's other studies are folded away. */
const thumbnail = (modality: string) =>
  page.locator('[data-cy^="study-browser-thumbnail"]').filter({ hasText: modality, visible: true }).first();

beforeAll(async () => {
  study = single(await worklist(), 'flagged');
  const started = await ohif(server());
  front = started.server;
  browser = await launch();
  context = await browser.newContext({ viewport: { width: 1440, height: 900 } });
  context.setDefaultTimeout(120_000);
  page = await context.newPage();
  page.on('response', (response) => {
    if (response.status() >= 400 && response.url().includes('/dicom-web'))
      refused.push(`${response.status()} ${response.url()}`);
  });
  page.on('request', (asked) => {
    const { protocol, origin } = new URL(asked.url());
    if (protocol.startsWith('http') && origin !== started.url) foreign.push(asked.url());
  });
  await page.goto(`${started.url}/viewer?StudyInstanceUIDs=${study}`);
  await thumbnail('CT').waitFor();
  // OHIF shows newcomers around, in front of everything.
  await page.addStyleTag({ content: '[class*=shepherd] { display: none !important }' });
});
afterAll(async () => {
  await browser?.close();
  front?.close();
});

describe('OHIF in front of the server', () => {
  it('lists what the machine made', async () => {
    for (const modality of ['SEG', 'PMAP', 'SR']) await thumbnail(modality).waitFor();
  });

  it('shows the CT and lays the mask over it', async () => {
    expect((await seen()).coloured, 'nothing is drawn yet').toBeLessThan(100);
    await thumbnail('SEG').dblclick();
    const yes = page.getByText(/^(Confirm|Yes|Open|Load)$/).first();
    await Promise.race([
      yes.waitFor(),
      expect.poll(async () => (await seen()).coloured).toBeGreaterThan(200),
    ]);
    if (await yes.isVisible()) await yes.click();
    // It goes to the first slice of the mask.
    await expect.poll(async () => (await seen()).coloured).toBeGreaterThan(200);
    await expect.poll(async () => (await seen()).lit).toBeGreaterThan(20_000);
    await picture(page, 'ohif-seg');
  });

  it('reads the uncertainty and keeps the CT under it', async () => {
    const said: string[] = [];
    page.on('console', (message) => {
      if (message.type() === 'error') said.push(message.text());
    });
    await thumbnail('PMAP').dblclick();
    // It says this of the values that it has read. Colour cannot be asked for here: that of the mask is still there for a moment,
    // and on the slice in the middle, to which OHIF goes with a map, there may be no doubt at all.
    await page.getByText('The values are multiplied by 100').first().waitFor();
    await expect.poll(async () => (await seen()).lit).toBeGreaterThan(20_000);
    await picture(page, 'ohif-pm');
    expect(said.filter((text) => /32 bit|parametric/i.test(text))).toEqual([]);
  });

  it('was refused nothing and asked nobody else', () => {
    expect(refused).toEqual([]);
    expect(foreign).toEqual([]);
  });
});
