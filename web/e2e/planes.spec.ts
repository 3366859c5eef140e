import type { Browser, BrowserContext, Locator, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import type { Finding, StudyDetail } from '../src/api/model.ts';
import { AXES, type Axis } from '../src/viewer/planes/reslice.ts';
import { stack } from '../src/dicomweb/geometry.ts';
import { axe, launch, metadata, open, openStudy, picture, study, worklist } from './browser.ts';
import { truthStack } from './hand.ts';

let browser: Browser;
let context: BrowserContext;
let page: Page;
let foreign: string[];
let errors: string[];
let flagged: StudyDetail;
let finding: Finding;

beforeAll(async () => {
  browser = await launch();
  const { studies } = await worklist();
  const found = studies.find((s) => s.state === 'flagged');
  if (!found) throw new Error('The server holds no study that is flagged: send one first.');
  flagged = await study(found.study_instance_uid);
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
afterEach(async () => {
  await context.close();
  expect(foreign, 'requests to other hosts').toEqual([]);
  expect(errors, 'errors of the page').toEqual([]);
});

const described = async (text: string): Promise<StudyDetail> => {
  const found = (await worklist()).studies.find((s) => s.study_description === text);
  if (!found) throw new Error(`The server holds no study that is described as ${text}.`);
  return study(found.study_instance_uid);
};
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

/** Where a plane is orange, in CSS pixels of its canvas: at most `most` places, spread over all of it. */
const orangePlaces = (axis: Axis, most: number): Promise<[number, number][]> =>
  canvas(axis).evaluate((element, most) => {
    const at = element as HTMLCanvasElement;
    const sharp = at.width / at.clientWidth;
    const { data } = at.getContext('2d')?.getImageData(0, 0, at.width, at.height) ?? { data: [] };
    const all: [number, number][] = [];
    for (let i = 0; i < data.length; i += 4) {
      const p = i / 4;
      if ((data[i] ?? 0) - (data[i + 2] ?? 0) > 40)
        all.push([((p % at.width) + 0.5) / sharp, (Math.floor(p / at.width) + 0.5) / sharp]);
    }
    const step = Math.max(Math.floor(all.length / most), 1);
    return all.filter((_, i) => i % step === Math.floor(step / 2)).slice(0, most);
  }, most);

it.each([
  ['even', null, 'ICTUS_TRUTH'],
  ['tilted', 'Stroke protocol', 'ICTUS_TRUTH_TILTED'],
])('draws the mask of an %s stack where the truth lies in the patient', async (_, description, variable) => {
  const path = process.env[variable];
  if (!path) throw new Error(`Set ${variable} to the truth of that phantom, see e2e/README.md.`);
  const known = description === null ? flagged : await described(description);
  const bleed = known.analysis?.report.findings.find(({ kind }) => kind.endsWith('haemorrhage'));
  if (!bleed) throw new Error('The study has no bleed.');
  if (known !== flagged) {
    await openStudy(context, page, known.study_instance_uid);
    await page.locator(`[data-finding="${bleed.id}"]`).click();
    await page.waitForSelector(`[data-series="${bleed.series}"]`);
    await page.keyboard.press('v');
    await page.waitForSelector('[data-planes="ready"]');
  }
  await page.locator(`[data-finding="${bleed.id}"]`).click();
  const { slices } = stack(await metadata(known.study_instance_uid, bleed.series));
  const truth = truthStack(path);
  expect(truth.slices).toBe(slices.length);
  /** Whether the truth has blood at a place in the patient, or next to it. */
  const bleeds = (point: number[]): boolean => {
    const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0] = slices[0]?.imageOrientationPatient ?? [];
    const normal = [b * f - c * e, c * d - a * f, a * e - b * d];
    const dot = (u: number[], v: number[]) => u.reduce((sum, x, i) => sum + x * (v[i] ?? 0), 0);
    const from = (k: number) => point.map((x, i) => x - (slices[k]?.imagePositionPatient[i] ?? 0));
    const far = (k: number) => Math.abs(dot(from(k), normal));
    const k = slices.reduce((best, _, i) => (far(i) < far(best) ? i : best), 0);
    const { rows = 0, columns = 0, pixelSpacingMm: [rowMm = 1, columnMm = 1] = [] } = slices[k] ?? {};
    const row = Math.round(dot(from(k), [d, e, f]) / rowMm);
    const column = Math.round(dot(from(k), [a, b, c]) / columnMm);
    for (let r = row - 1; r <= row + 1; r++) {
      for (let q = column - 1; q <= column + 1; q++) {
        const inside = r >= 0 && q >= 0 && r < rows && q < columns;
        if (inside && truth.at(k * truth.len + r * columns + q)) return true;
      }
    }
    return false;
  };
  const shares: string[] = [];
  for (const axis of AXES) {
    await expect.poll(() => orange(axis), { timeout: 30_000 }).toBeGreaterThan(50);
    const places = await orangePlaces(axis, 24);
    let right = 0;
    for (const [x, y] of places) {
      await canvas(axis).click({ position: { x, y } });
      if (bleeds(await point())) right++;
    }
    shares.push(`${axis} ${right} of ${places.length}`);
    // The machine is not the truth: a few of its pixels lie beside the blood.
    expect(right / places.length, `${axis}: ${right} of ${places.length}`).toBeGreaterThan(0.7);
    await page.locator(`[data-finding="${bleed.id}"]`).click();
  }
  console.log(shares.join(', '));
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
