import type { Server } from 'node:http';
import type * as Cornerstone from '@cornerstonejs/core';
import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ObjectReference } from '../src/api/model.ts';
import { framePath } from '../src/dicomweb/client.ts';
import { type Slice, stack } from '../src/dicomweb/geometry.ts';
import { parts } from '../src/dicomweb/multipart.ts';
import { readParametricMap } from '../src/dicomweb/parametric_map.ts';
import { launch, metadata, picture, server, single, study as detail, worklist } from './browser.ts';
import { ohif } from './ohif.ts';

/** Where OHIF draws, in the middle of the window: no button of its own lies there. */
const VIEWPORT = { x: 300, y: 130, width: 1080, height: 650 };

let browser: Browser;
let context: BrowserContext;
let page: Page;
let front: Server;
let address: string;
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

/** The study in a tab of its own. */
async function opened(): Promise<Page> {
  const tab = await context.newPage();
  await tab.goto(`${address}/viewer?StudyInstanceUIDs=${study}`);
  await tab.locator('[data-cy^="study-browser-thumbnail"]').filter({ hasText: 'CT' }).first().waitFor();
  // OHIF shows newcomers around, in front of everything.
  await tab.addStyleTag({ content: '[class*=shepherd] { display: none !important }' });
  return tab;
}

/** How much doubt an image has. */
interface Doubt {
  greatest: number;
  sum: number;
}

/** By OHIF's names of the images: the doubt that the map has of each, as our page reads it. */
async function meant(
  map: ObjectReference,
  series: string,
  slices: readonly Slice[],
): Promise<Map<string, Doubt>> {
  const path = `/dicom-web/studies/${study}/series/${map.series_instance_uid}/instances/${map.sop_instance_uid}`;
  const answer = await page.request.get(address + path, {
    headers: { Accept: 'multipart/related; type="application/dicom"' },
  });
  const [part] = parts(answer.headers()['content-type'] ?? '', new Uint8Array(await answer.body())) ?? [];
  const { bySource } = readParametricMap(part?.body ?? new Uint8Array(), slices);
  return new Map(
    slices.map(({ key }) => {
      const doubt = { greatest: 0, sum: 0 };
      for (const value of bySource.get(key)?.values() ?? []) {
        doubt.greatest = Math.max(doubt.greatest, value);
        doubt.sum += value;
      }
      return [`wadors:${framePath(study, series, key)}`, doubt];
    }),
  );
}

/** By its names of the images: the doubt of each in the volume that OHIF draws, which it multiplied by 100; none before it draws one. */
const held = (): Promise<[string, Doubt][]> =>
  page.evaluate(() => {
    const { cache, getRenderingEngines } = (window as unknown as { cornerstone: typeof Cornerstone })
      .cornerstone;
    const actors = getRenderingEngines()?.[0]?.getViewports()[0]?.getActors() ?? [];
    const [ct, map] = actors.map(({ referencedId }) => cache.getVolume(referencedId ?? ''));
    if (!ct || !map?.volumeId.startsWith('pmap')) return [];
    const values = map.voxelManager?.getCompleteScalarDataArray?.() ?? [];
    const size = map.dimensions[0] * map.dimensions[1];
    return ct.imageIds.map((id, index) => {
      const doubt = { greatest: 0, sum: 0 };
      for (let at = index * size; at < (index + 1) * size; at++) {
        const value = (values[at] ?? Number.NaN) / 100;
        doubt.greatest = Math.max(doubt.greatest, value);
        doubt.sum += value;
      }
      return [id, doubt];
    });
  });

/** Has OHIF stand on an image, and draw the map or not; answers the image that it stands on. */
const stand = (on: Slice, drawn: boolean): Promise<string | undefined> =>
  page.evaluate(
    ([position, drawn]) => {
      const { getRenderingEngines } = (window as unknown as { cornerstone: typeof Cornerstone }).cornerstone;
      const viewport = getRenderingEngines()?.[0]?.getViewports()[0] as Cornerstone.VolumeViewport;
      viewport.getActors()[1]?.actor.setVisibility(drawn);
      viewport.jumpToWorld(position as Cornerstone.Types.Point3);
      viewport.render();
      return viewport.getCurrentImageId();
    },
    [on.imagePositionPatient, drawn] as const,
  );

/** Of the study that was opened: those of the patient's other studies are folded away. */
const thumbnail = (says: string) =>
  page.locator('[data-cy^="study-browser-thumbnail"]').filter({ hasText: says, visible: true }).first();

beforeAll(async () => {
  study = single(await worklist(), 'flagged');
  const started = await ohif(server());
  front = started.server;
  address = started.url;
  browser = await launch();
  context = await browser.newContext({ viewport: { width: 1440, height: 900 } });
  context.setDefaultTimeout(120_000);
  context.on('response', (response) => {
    if (response.status() >= 400 && response.url().includes('/dicom-web'))
      refused.push(`${response.status()} ${response.url()}`);
  });
  context.on('request', (asked) => {
    const { protocol, origin } = new URL(asked.url());
    if (protocol.startsWith('http') && origin !== started.url) foreign.push(asked.url());
  });
  page = await opened();
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

  it('lays the uncertainty over the CT, each frame on its image', async () => {
    const { analysis } = await detail(study);
    const map = analysis?.objects.find((o) => o.role === 'pm' && o.content_label === 'ENTROPY');
    if (!map?.source_series) throw new Error('no map of the entropy');
    const series = map.source_series;
    const { slices } = stack(await metadata(study, series));
    // Where no mask was drawn, no colour is the mask's.
    await page.close();
    page = await opened();
    const said: string[] = [];
    page.on('console', (message) => {
      if (message.type() === 'error') said.push(message.text());
    });
    await thumbnail('uncertainty').dblclick();
    const doubts = await meant(map, series, slices);
    // Should OHIF refuse it, what it says stands in the place of what it holds.
    await expect.poll(async () => ((await held()).length > 0 ? 'drawn' : said.join('\n'))).toBe('drawn');
    const found = new Map(await held());
    expect([...found.keys()]).toEqual([...doubts.keys()]);
    for (const [id, { greatest, sum }] of doubts) {
      expect(found.get(id)?.greatest, id).toBeCloseTo(greatest, 5);
      expect(found.get(id)?.sum, id).toBeCloseTo(sum, 3);
    }
    const name = ({ key }: Slice) => `wadors:${framePath(study, series, key)}`;
    const ordered = [...slices].sort(
      (a, b) => (doubts.get(name(a))?.sum ?? 0) - (doubts.get(name(b))?.sum ?? 0),
    );
    const [least, most] = [ordered[0], ordered.at(-1)];
    if (!least || !most) throw new Error('no slices');
    const coloured = async () => (await seen()).coloured;
    expect(await stand(most, true)).toBe(name(most));
    await expect.poll(coloured).toBeGreaterThan(200);
    await picture(page, 'ohif-pm');
    // Nowhere else, and nothing but the map.
    expect(await stand(least, true)).toBe(name(least));
    await expect.poll(coloured).toBeLessThan(100);
    expect(await stand(most, true)).toBe(name(most));
    await expect.poll(coloured).toBeGreaterThan(200);
    expect(await stand(most, false)).toBe(name(most));
    await expect.poll(coloured).toBeLessThan(100);
    expect((await seen()).lit, 'the CT is under it').toBeGreaterThan(20_000);
    expect(said.filter((text) => /32 bit|parametric/i.test(text))).toEqual([]);
  });

  it('was refused nothing and asked nobody else', () => {
    expect(refused).toEqual([]);
    expect(foreign).toEqual([]);
  });
});
