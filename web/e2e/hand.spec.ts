import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { NewCorrection, StudyDetail, Worklist } from '../src/api/model.ts';
import { type Slice, stack } from '../src/dicomweb/geometry.ts';
import { readSegmentation } from '../src/dicomweb/segmentation.ts';
import { parts } from '../src/dicomweb/multipart.ts';
import { signedDistance } from '../src/review/shapes.ts';
import { messages } from '../src/ui/messages.ts';
import {
  axe,
  close,
  drawn,
  launch,
  metadata,
  open,
  openStudy,
  picture,
  server,
  shown,
  single,
  study,
  worklist,
} from './browser.ts';
import { area, dice, drag, pixelsOf, pointing, signIn, truth } from './hand.ts';

let browser: Browser;
let list: Worklist;
let context: BrowserContext;
let page: Page;
let foreign: string[];
let errors: string[];
let flagged: StudyDetail;
let slices: readonly Slice[];

beforeAll(async () => {
  list = await worklist();
  browser = await launch();
  flagged = await study(one('flagged'));
  const chosen = flagged.series.find((s) => s.chosen)?.series_instance_uid ?? '';
  ({ slices } = stack(await metadata(flagged.study_instance_uid, chosen)));
});
afterAll(() => browser?.close());
beforeEach(async () => {
  ({ context, page, foreign, errors } = await open(browser));
});
afterEach((test) => close({ context, page, foreign, errors }, test));

const one = (state: 'flagged' | 'not_flagged') => single(list, state);

const uid = () => flagged.study_instance_uid;
const keySlice = () => flagged.analysis?.report.findings[0]?.key_slice ?? -1;
const at = (index: number): Slice => {
  const found = slices[index];
  if (found === undefined) throw new Error(`no slice ${index}`);
  return found;
};
const measured = () => page.locator('[data-measured]');
const press = async (...keys: string[]) => {
  for (const key of keys) await page.keyboard.press(key);
};

describe('measurements', () => {
  it('are made by mouse and by keys, in millimetres, degrees and HU, and are gone with the study', async () => {
    await openStudy(context, page, uid());
    await shown(page, keySlice());
    const slice = at(keySlice());
    const [rowMm = 1, columnMm = 1] = slice.pixelSpacingMm;
    const point = await pointing(page, slice);

    // Dragged: 120 columns and 50 rows. A CSS pixel is some tenths of a millimetre.
    await press('l');
    await drag(page, [point([180, 230]), point([300, 280])]);
    await measured().first().waitFor();
    const length = Number(/([\d.]+) mm/.exec((await measured().first().textContent()) ?? '')?.[1]);
    expect(Math.abs(length - Math.hypot(120 * columnMm, 50 * rowMm))).toBeLessThan(1.5);
    expect(await page.locator('[data-part=measures]').textContent()).toContain(messages.measure.notSaved);

    // By keys alone the places are exact: the cursor starts where it was left, and moves by one pixel.
    await press('l', 'g', 'Enter', ...Array<string>(30).fill('ArrowRight'), 'Enter');
    await press(...Array<string>(30).fill('ArrowDown'), 'Enter');
    await measured().nth(1).waitFor();
    expect(await measured().nth(1).textContent()).toContain('90.0°');

    await press('g', 'o', 'Enter', ...Array<string>(20).fill('ArrowRight'));
    await press(...Array<string>(16).fill('ArrowDown'), 'Enter', 'Escape');
    await measured().nth(2).waitFor();
    const told = (await measured().nth(2).textContent()) ?? '';
    const [, mean, deviation, min, max, mm2] =
      /([-\d.]+) ± ([\d.]+) HU \((-?\d+) to (-?\d+)\), (\d+) mm²/.exec(told)?.map(Number) ?? [];
    expect(mm2).toBe(Math.round((Math.PI * 20 * columnMm * 16 * rowMm) / 4));
    expect((min ?? 0) <= (mean ?? 0) && (mean ?? 0) <= (max ?? 0) && (deviation ?? -1) >= 0).toBe(true);
    await picture(page, 'measure');
    expect(await axe(page)).toEqual([]);
    await page.emulateMedia({ colorScheme: 'light' });
    await picture(page, 'measure-light');
    expect(await axe(page)).toEqual([]);

    // On another slice nothing is drawn; the list leads back.
    expect(await page.locator('g.measure').count()).toBe(3);
    await page.locator('.viewport').focus();
    await press('ArrowUp');
    await shown(page, keySlice() + 1);
    expect(await page.locator('g.measure').count()).toBe(0);
    await measured().first().click();
    await shown(page, keySlice());
    await page.locator('.viewport').focus();
    await press('Delete');
    await expect.poll(() => measured().count()).toBe(2);
    await page
      .getByRole('button', { name: messages.measure.remove(2, messages.measure.kinds.angle) })
      .click();
    await expect.poll(() => measured().count()).toBe(1);
    await page.locator('.viewport').focus();
    await press('Escape');
    await page.waitForSelector('tr[data-study]');
    await openStudy(context, page, uid());
    expect(await measured().count()).toBe(0);
  });
});

describe('a correction', () => {
  const viewport = () => page.locator('.viewport');
  const begin = () =>
    expect
      .poll(async () => {
        await viewport().focus();
        if ((await viewport().getAttribute('data-drawing')) === 'false') await press('d');
        return viewport().getAttribute('data-drawing');
      })
      .toBe('true');
  /** All of a slice. */
  const everything: readonly [number, number][] = [
    [2, 2],
    [510, 2],
    [510, 510],
    [2, 510],
  ];

  it('is made by region, lasso and between slices, undone across them, and saved as exactly these pixels', async () => {
    await openStudy(context, page, uid());
    await signIn(page);
    await shown(page, keySlice());
    await expect.poll(() => drawn(page, 'mask')).not.toBeNull();
    await begin();
    const key = keySlice();
    const point = await pointing(page, at(key));
    const around = everything.map(([x, y]) => point([(x / 512) * at(key).columns, (y / 512) * at(key).rows]));

    // Everything is cut out of three slices; then one click and one box bring the bleed back on two of them.
    for (const index of [key - 1, key, key + 1]) {
      await press(index === key - 1 ? 'ArrowDown' : 'ArrowUp');
      await shown(page, index);
      await press('k');
      await drag(page, around);
      await expect.poll(() => drawn(page, 'mask')).toBeNull();
    }
    const bled = truth('haemorrhage');
    const truthAt = (index: number) => bled.get(at(index).key) ?? new Uint8Array();
    const clicked = truthAt(key - 1);
    const depth = signedDistance(clicked, at(key).rows, at(key).columns, [1, 1]);
    const deepest = depth.indexOf(depth.reduce((least, v) => Math.min(least, v)));
    const { columns } = at(key);
    await press('ArrowDown', 'ArrowDown');
    await shown(page, key - 1);
    await press('g');
    await page.mouse.click(...point([(deepest % columns) + 0.5, Math.floor(deepest / columns) + 0.5]));
    await page.mouse.move(2, 2);
    await expect.poll(() => drawn(page, 'mask')).not.toBeNull();
    await picture(page, 'region');
    expect(await axe(page)).toEqual([]);

    // A click on bone sets nothing and says so.
    const before = await drawn(page, 'mask');
    await page.mouse.click(...point([4, 4]));
    await page.getByText(messages.edit.refused.outside).waitFor();
    await page.mouse.move(2, 2);
    expect(await drawn(page, 'mask')).toEqual(before);

    await press('ArrowUp', 'ArrowUp');
    await shown(page, key + 1);
    const boxed = truthAt(key + 1);
    const set = [...boxed.keys()].filter((pixel) => boxed[pixel] === 1);
    const [xs, ys] = [set.map((p) => p % columns), set.map((p) => Math.floor(p / columns))];
    const least = (all: number[]) => all.reduce((a, b) => Math.min(a, b)) - 6;
    const most = (all: number[]) => all.reduce((a, b) => Math.max(a, b)) + 7;
    await press('g');
    await drag(page, [point([least(xs), least(ys)]), point([most(xs), most(ys)])]);
    await expect.poll(() => drawn(page, 'mask')).not.toBeNull();

    // Between the two lies an empty slice.
    await press('i', 'ArrowDown');
    await shown(page, key);
    await expect.poll(() => drawn(page, 'mask')).not.toBeNull();
    await picture(page, 'between');
    // Undone from elsewhere, the slice that it changes is shown.
    await press('End');
    await shown(page, 0);
    await press('z');
    await shown(page, key);
    await expect.poll(() => drawn(page, 'mask')).toBeNull();
    await press('y');
    await expect.poll(() => drawn(page, 'mask')).not.toBeNull();

    // The tab is closed and another opened: the drawing waits.
    const waits = messages.edit.waits;
    await page.close();
    page = await context.newPage();
    await openStudy(context, page, uid());
    await page.getByText(waits).waitFor();
    await expect.poll(() => drawn(page, 'mask')).not.toBeNull();
    await begin();

    // While the server cannot be reached, saving says so and nothing is lost.
    await context.setOffline(true);
    await press('Enter');
    await page.getByText(messages.errors.unreachable).first().waitFor();
    await context.setOffline(false);
    const sent = page.waitForRequest(
      (asked) => asked.method() === 'POST' && asked.url().endsWith('/corrections'),
    );
    await viewport().focus();
    await press('Enter');
    const { slices: runs } = (await sent).postDataJSON() as NewCorrection;
    await page.locator('[data-correction][aria-pressed=true]').waitFor();
    await page.locator('.viewport[data-drawing=false]').waitFor();
    expect(await page.getByText(waits).count()).toBe(0);

    const [byClick, byBox] = [
      dice(pixelsOf(runs, at(key - 1)), clicked),
      dice(pixelsOf(runs, at(key + 1)), boxed),
    ];
    const filled = dice(pixelsOf(runs, at(key)), truthAt(key));
    console.log(
      `Dice against the truth: click ${byClick.toFixed(3)}, box ${byBox.toFixed(3)}, between ${filled.toFixed(3)}`,
    );
    expect(byClick).toBeGreaterThanOrEqual(0.8);
    expect(byBox).toBeGreaterThanOrEqual(0.8);
    expect(filled).toBeGreaterThanOrEqual(0.7);

    // What the archive holds is what was drawn, voxel by voxel.
    const [saved] = (
      await (await page.request.get(`${server()}/api/studies/${uid()}/corrections`)).json()
    ).slice(-1);
    const answer = await page.request.get(
      `${server()}/dicom-web/studies/${uid()}/series/${saved.series_instance_uid}/instances/${saved.sop_instance_uid}`,
      {
        headers: {
          Accept: 'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.1',
        },
      },
    );
    expect(answer.status()).toBe(200);
    const [part] = parts(answer.headers()['content-type'] ?? '', new Uint8Array(await answer.body())) ?? [];
    const { bySource } = readSegmentation(part?.body ?? new Uint8Array(), slices);
    for (const slice of slices) {
      const wanted = pixelsOf(runs, slice);
      const masks = bySource.get(slice.key) ?? [];
      const held = new Uint8Array(wanted.length);
      for (const mask of masks) mask.unpack().forEach((v, i) => v && held.fill(1, i, i + 1));
      expect(Buffer.compare(held, wanted), slice.key).toBe(0);
    }
    expect(area(pixelsOf(runs, at(key)))).toBeGreaterThan(0);
  });
});

describe('a verdict', () => {
  it('that does not reach the server is kept over a closed tab, and sent once the server is there', async () => {
    await openStudy(context, page, uid());
    await signIn(page);
    await page.locator('[data-part=verdicts]').waitFor();
    const path = `${server()}/api/studies/${uid()}/verdicts`;
    const count = async () => ((await (await page.request.get(path)).json()) as unknown[]).length;
    const before = await count();
    // The page cannot be asked for anew without a server, so the way to the verdicts alone is cut.
    await context.route('**/verdicts', (route) =>
      route.request().method() === 'POST' ? route.abort('connectionfailed') : route.continue(),
    );
    const lost = page.waitForEvent('requestfailed', (request) => request.url() === path);
    await page.locator('[data-verdict-of=""] [data-verdict=unsure]').click();
    await lost;
    await page.locator('[data-outbox="1"]').waitFor();
    expect(await axe(page)).toEqual([]);
    await picture(page, 'outbox');
    await page.reload();
    await page.locator('[data-outbox="1"]').waitFor();
    expect(await count()).toBe(before);
    await page.close();
    await context.unroute('**/verdicts');
    page = await context.newPage();
    await page.goto(server());
    await expect.poll(count).toBe(before + 1);
    await page.locator('[data-outbox]').waitFor({ state: 'detached' });
  });
});

describe('a full read', () => {
  it('takes one key for a study that is not flagged, two to verify a flag and four for all of it', async () => {
    const keys: string[] = [];
    const key = async (name: string, why: string) => {
      keys.push(`${name} (${why})`);
      await page.keyboard.press(name);
    };
    const read = async (of: string, act: () => Promise<void>, most: number) => {
      keys.length = 0;
      await openStudy(context, page, of);
      await page.locator('.masthead .who', { hasText: 'Reader of the test' }).waitFor();
      await page.locator('[data-part=verdicts]').waitFor();
      await act();
      await page.waitForURL((to) => !to.pathname.includes(of));
      console.log(`${keys.length} keys: ${keys.join(', ')}`);
      expect(keys.length).toBeLessThanOrEqual(most);
    };
    const finding = flagged.analysis?.report.findings[0]?.id ?? '';
    await page.goto(server());
    await signIn(page);
    await read(one('not_flagged'), () => key('Enter', 'agree, and on to the next'), 1);
    await read(
      uid(),
      async () => {
        // It opens on the finding, with its mask.
        await shown(page, keySlice());
        await expect.poll(() => drawn(page, 'mask')).not.toBeNull();
        await key('u', 'look at the doubt');
        await expect.poll(() => drawn(page, 'uncertainty')).not.toBeNull();
        await key('Enter', 'agree, and on to the next');
      },
      2,
    );
    await read(
      uid(),
      async () => {
        await key('n', 'jump to the finding');
        await page.locator(`.finding[data-finding="${finding}"][aria-pressed=true]`).waitFor();
        await key('u', 'look at the doubt');
        await expect.poll(() => drawn(page, 'uncertainty')).not.toBeNull();
        await key('a', 'accept the finding');
        await page
          .locator(`[data-verdict-of="${finding}"] [data-verdict=accept][aria-pressed=true]`)
          .waitFor();
        await key('Enter', 'agree, and on to the next');
      },
      6,
    );
    const verdicts = (await (await page.request.get(`${server()}/api/studies/${uid()}/verdicts`)).json()) as {
      finding: string | null;
      verdict: string;
    }[];
    expect(verdicts.findLast((v) => v.finding === finding)?.verdict).toBe('accept');
  });
});
