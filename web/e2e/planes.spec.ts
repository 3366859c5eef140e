import type { Browser, BrowserContext, Locator, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import type { Finding, StudyDetail } from '../src/api/model.ts';
import { AXES, type Axis } from '../src/viewer/planes/reslice.ts';
import { axe, close, launch, open, openStudy, picture, single, study, worklist } from './browser.ts';

let browser: Browser;
let context: BrowserContext;
let page: Page;
let foreign: string[];
let errors: string[];
let flagged: StudyDetail;
let finding: Finding;

beforeAll(async () => {
  browser = await launch();
  flagged = await study(single(await worklist(), 'flagged'));
  const [first] = flagged.analysis?.report.findings ?? [];
  if (!first) throw new Error('The flagged study has no finding.');
  finding = first;
});
afterAll(() => browser?.close());
beforeEach(async () => {
  ({ context, page, foreign, errors } = await open(browser));
  await openStudy(context, page, flagged.study_instance_uid);
  await page.keyboard.press('v');
  await page.waitForSelector('[data-planes="ready"]');
});
afterEach((test) => close({ context, page, foreign, errors }, test));

const canvas = (axis: Axis): Locator => page.locator(`.plane[data-axis="${axis}"] canvas`);
const point = async () => {
  const text = await page.locator('[data-point]').getAttribute('data-point');
  return (text ?? '').split(' ').map(Number);
};
/** Pixels of a plane that are much more red than blue: findings are orange, the rest is grey. */
const orange = (axis: Axis): Promise<number> =>
  canvas(axis).evaluate((element) => {
    const at = element as HTMLCanvasElement;
    const context = at.getContext('2d');
    const { data } = context?.getImageData(0, 0, at.width, at.height) ?? { data: [] };
    let count = 0;
    for (let i = 0; i < data.length; i += 4) if ((data[i] ?? 0) - (data[i + 2] ?? 0) > 40) count++;
    return count;
  });
const brightness = (axis: Axis): Promise<number> =>
  canvas(axis).evaluate((element) => {
    const at = element as HTMLCanvasElement;
    const { data } = at.getContext('2d')?.getImageData(0, 0, at.width, at.height) ?? { data: [] };
    let sum = 0;
    for (let i = 0; i < data.length; i += 4) sum += data[i + 1] ?? 0;
    return sum / (data.length / 4);
  });

it('lays three planes through the stack, and they are free of what axe finds', async () => {
  for (const axis of AXES) await expect.poll(() => brightness(axis), { timeout: 30_000 }).toBeGreaterThan(5);
  expect(await axe(page)).toEqual([]);
  await picture(page, 'planes');
  await page.emulateMedia({ colorScheme: 'light' });
  expect(await axe(page)).toEqual([]);
  await picture(page, 'planes-light');
});

it('goes to a finding in all planes, and the mask is there', async () => {
  await page.keyboard.press('n');
  const wanted = finding.center_mm;
  await page.waitForFunction(
    ([x]) => document.querySelector('[data-point]')?.getAttribute('data-point')?.startsWith(String(x)),
    [wanted[0].toFixed(2)],
  );
  (await point()).forEach((value, a) => expect(value).toBeCloseTo(wanted[a] ?? 0, 1));
  for (const axis of AXES) await expect.poll(() => orange(axis), { timeout: 30_000 }).toBeGreaterThan(50);
  await picture(page, 'planes-finding');
  await page.keyboard.press('m');
  for (const axis of AXES) await expect.poll(() => orange(axis), { timeout: 30_000 }).toBeLessThan(20);
  await page.keyboard.press('m');
});

it('moves all planes to a click, and one by its keys', async () => {
  const before = await point();
  await canvas('axial').click({ position: { x: 130, y: 110 } });
  const clicked = await point();
  expect(clicked[2]).toBe(before[2]);
  expect(clicked[0]).not.toBe(before[0]);
  expect(clicked[1]).not.toBe(before[1]);
  await canvas('coronal').focus();
  await page.keyboard.press('ArrowDown');
  const moved = await point();
  expect([moved[0], moved[2]]).toEqual([clicked[0], clicked[2]]);
  expect(Math.abs((moved[1] ?? 0) - (clicked[1] ?? 0))).toBeLessThan(2);
  expect(moved[1]).not.toBe(clicked[1]);
});

it('shows the brightest of a slab, and goes back to the slice at the point', async () => {
  await expect.poll(() => brightness('sagittal'), { timeout: 30_000 }).toBeGreaterThan(5);
  const thin = await brightness('sagittal');
  await page.getByRole('button', { name: '30 mm' }).click();
  await expect.poll(() => brightness('sagittal'), { timeout: 30_000 }).toBeGreaterThan(thin);
  await picture(page, 'planes-slab');
  await page.keyboard.press('n');
  await page.keyboard.press('v');
  await page.waitForSelector('.planes', { state: 'detached' });
  const shown = await page.locator('.viewport').getAttribute('data-shown');
  expect(Math.abs(Number(shown) - finding.key_slice)).toBeLessThan(8);
});
