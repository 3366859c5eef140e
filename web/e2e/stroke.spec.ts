import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import type { Finding, StudyDetail } from '../src/api/model.ts';
import { millilitres, sided } from '../src/ui/format.ts';
import { messages } from '../src/ui/messages.ts';
import { stack } from '../src/dicomweb/geometry.ts';
import { atDepth, depthMm } from '../src/viewer/depth.ts';
import {
  STROKE,
  axe,
  close,
  described,
  drawn,
  launch,
  metadata,
  open,
  openStudy,
  picture,
  shown,
  study,
} from './browser.ts';

let browser: Browser;
let context: BrowserContext;
let page: Page;
let foreign: string[];
let errors: string[];
/** A plain CT and a CT angiography, each with findings of another model. */
let stroke: StudyDetail;

beforeAll(async () => {
  browser = await launch();
  stroke = await described(STROKE);
});
afterAll(() => browser?.close());
beforeEach(async () => {
  ({ context, page, foreign, errors } = await open(browser));
  await openStudy(context, page, stroke.study_instance_uid);
});
afterEach((test) => close({ context, page, foreign, errors }, test));

const findings = () => stroke.analysis?.report.findings ?? [];
const of = (kind: RegExp): Finding => {
  const found = findings().find((f) => kind.test(f.kind));
  if (!found) throw new Error(`No finding is of ${kind}: ${findings().map((f) => f.kind)}`);
  return found;
};
/** What is drawn over the image, waited for as long as a map takes that is there. */
const drawnSoon = async (what: 'uncertainty' | 'mask') => {
  for (let tries = 0; tries < 15; tries++) {
    const there = await drawn(page, what);
    if (there !== null) return there;
    await page.waitForTimeout(200);
  }
  return null;
};
/** The series on the screen, by the UID of its image. */
const onSeries = (uid: string) => page.waitForSelector(`[data-series="${uid}"]`);

it('jumps between the findings of two models on two series, each with its own mask', async () => {
  const [bleed, closed] = [of(/haemorrhage/), of(/occlusion/)];
  expect(bleed.series).not.toBe(closed.series);
  for (const finding of [closed, bleed, closed]) {
    await page.locator(`[data-finding="${finding.id}"]`).click();
    await onSeries(finding.series);
    // Vessels are opened with their own window.
    await page.waitForSelector(`[data-window="${finding === bleed ? '80/40' : '600/200'}"]`);
    await expect.poll(() => drawn(page, 'mask'), { timeout: 30_000 }).not.toBeNull();
    const [here, elsewhere] = finding === bleed ? [bleed, closed] : [closed, bleed];
    const names = messages.kinds as Record<string, string>;
    const legend = page.locator('.legend');
    await expect.poll(() => legend.textContent(), { timeout: 30_000 }).toContain(names[here.kind]);
    expect(await legend.textContent()).not.toContain(names[elsewhere.kind]);
    await picture(page, `stroke-${finding === bleed ? 'bleed' : 'occlusion'}`);
  }
});

it('says how far the midline is pushed, or that it was not measured', async () => {
  const shift = stroke.analysis?.report.midline_shift;
  expect(shift).toBeDefined();
  const said = await page.locator('[data-midline-shift]').textContent();
  expect(said).toContain(messages.panel.midlineShift);
  const wanted = shift ? [shift.left_mm, ...shift.interval_mm].map(sided) : [messages.panel.midlineUnknown];
  for (const words of wanted) expect(said).toContain(words);
});

it('says a probability, and between what a volume lies, where the model is calibrated, and on what', async () => {
  const bleed = of(/haemorrhage/);
  // What a server whose model is calibrated says; the rest is this server's own.
  const on = '120 cases of clinic (c1d2e3f4), 60 of them with a lesion; prevalence 0.10';
  await context.route(`**/api/studies/${stroke.study_instance_uid}`, async (route) => {
    const response = await route.fetch();
    const detail = (await response.json()) as StudyDetail;
    const report = detail.analysis?.report;
    for (const answer of report?.answers ?? []) {
      if (answer.model === bleed.model) answer.probability = 0.83;
    }
    for (const finding of report?.findings ?? []) {
      if (finding.id === bleed.id)
        Object.assign(finding, { probability: 0.91, volume_interval_ml: [1.5, 3.2] });
    }
    for (const run of report?.models ?? []) {
      if (run.id === bleed.model) run.calibration = on;
    }
    await route.fulfill({ response, json: detail });
  });
  const { panel } = messages;
  expect(await page.locator('[data-part="answers"]').textContent()).not.toContain(panel.probability);
  await openStudy(context, page, stroke.study_instance_uid);
  const answers = page.locator('[data-part="answers"]');
  await expect.poll(() => answers.textContent()).toContain(`${panel.probability}0.83`);
  expect(await answers.textContent()).toContain(panel.calibratedOn(on));
  // The other model is not calibrated, and no probability of its is said.
  expect(await answers.locator('[data-probability]').count()).toBe(1);
  const said = await page.locator(`[data-finding="${bleed.id}"]`).textContent();
  expect(said).toContain(`${panel.probability} 0.91`);
  expect(said).toContain(panel.between(millilitres(1.5), millilitres(3.2)));
  expect(await axe(page)).toEqual([]);
});

it('says ASPECTS of each side that was scored, its range, and which regions are affected', async () => {
  const regions = Object.keys(messages.panel.aspectsRegions).map((region) => ({
    region,
    volume_ml: 9,
    affected_share: region === 'm5' ? 0.6 : 0,
    affected: region === 'm5',
  }));
  const left = { score: 9, range: [7, 10], regions };
  // What a server says that asks the infarct model too; the rest is this server's own.
  await context.route(`**/api/studies/${stroke.study_instance_uid}`, async (route) => {
    const response = await route.fetch();
    const detail = (await response.json()) as StudyDetail;
    const report = detail.analysis?.report;
    const series = report?.series[0]?.uid;
    Object.assign(report ?? {}, { aspects: { series, model: 'infarct-phantom', left, right: null } });
    await route.fulfill({ response, json: detail });
  });
  const { panel } = messages;
  expect(await page.locator('[data-aspects]').count()).toBe(0);
  await openStudy(context, page, stroke.study_instance_uid);
  await expect.poll(() => page.locator('[data-aspects]').count()).toBe(1);
  const said = await page.locator('[data-aspects="left 9"]').textContent();
  expect(said).toContain(panel.aspectsOf(panel.sides.left));
  expect(said).toContain(panel.aspectsBetween(7, 10));
  expect(said).toContain(`${panel.aspectsAffected}M5`);
  expect(await axe(page)).toEqual([]);
});

it('shows each map of the analysis, and contours of the score', async () => {
  const bleed = of(/haemorrhage/);
  await page.locator(`[data-finding="${bleed.id}"]`).click();
  await onSeries(bleed.series);
  await page.keyboard.press('u');
  const map = page.locator('.legend select');
  const pictures = new Set<string>();
  for (let i = 0; i < 3; i++) {
    if (i > 0) await page.keyboard.press('h');
    await expect.poll(() => page.locator('.legend').textContent()).not.toContain(messages.viewer.loadingMap);
    // Where networks agree about a slice their disagreement is not drawn: then it is on one near by.
    for (let step = 1; (await drawnSoon('uncertainty')) === null && step <= 10; step++) {
      const key = step % 2 ? 'ArrowDown' : 'ArrowUp';
      for (let slice = 0; slice < step; slice++) await page.keyboard.press(key);
    }
    expect(await drawnSoon('uncertainty')).not.toBeNull();
    const name = await map.evaluate((select) => (select as HTMLSelectElement).selectedOptions[0]?.text ?? '');
    pictures.add(name);
    expect(await axe(page)).toEqual([]);
    await picture(page, `map-${i}`);
  }
  expect([...pictures].map((name) => name.split(':')[0]).sort()).toEqual(
    [
      messages.viewer.quantity.entropy,
      messages.viewer.quantity.score,
      messages.viewer.quantity.mutual_information,
    ].sort(),
  );
  await page.keyboard.press('u');
  await page.keyboard.press('m');
  await expect.poll(() => drawn(page, 'mask'), { timeout: 30_000 }).toBeNull();
  await page.keyboard.press('c');
  await expect.poll(() => drawn(page, 'mask'), { timeout: 30_000 }).not.toBeNull();
  await page.getByText(messages.viewer.contourNote(0.1, 0.9)).waitFor();
  await page.keyboard.press('m');
  await picture(page, 'contours');
});

it('draws the arteries that the model sees and names those of the slice, when asked', async () => {
  const closed = of(/occlusion/);
  const legend = page.locator('.legend');
  const toggle = page.locator('[data-toggle="anatomy"]');
  await onSeries(of(/haemorrhage/).series);
  // The model of bleeds knows no structures.
  expect(await toggle.count()).toBe(0);
  await page.locator(`[data-finding="${closed.id}"]`).click();
  await onSeries(closed.series);
  await page.keyboard.press('m');
  await expect.poll(() => drawn(page, 'mask'), { timeout: 30_000 }).toBeNull();
  await toggle.waitFor();
  await page.keyboard.press('r');
  await page.getByText(messages.viewer.anatomyNote).waitFor();
  await expect.poll(() => drawn(page, 'mask'), { timeout: 30_000 }).not.toBeNull();
  expect(await toggle.getAttribute('aria-pressed')).toBe('true');
  expect(await legend.textContent()).toMatch(/internal carotid|M1|M2|cerebral|basilar|vertebral/);
  expect(await axe(page)).toEqual([]);
  await picture(page, 'anatomy');
  await page.keyboard.press('r');
  await expect.poll(() => drawn(page, 'mask'), { timeout: 30_000 }).toBeNull();
  await page.keyboard.press('m');
});

it('lays another study of the patient beside this one, and scrolls them together', async () => {
  const other = stroke.comparisons[0]?.study_instance_uid;
  expect(stroke.comparisons).toHaveLength(1);
  expect((await study(other ?? '')).comparisons.map((c) => c.study_instance_uid)).toEqual([
    stroke.study_instance_uid,
  ]);
  const bleed = of(/haemorrhage/);
  await page.locator(`[data-finding="${bleed.id}"]`).click();
  await onSeries(bleed.series);
  // The slice to jump to is the mask's, which may come after the click.
  await expect.poll(() => drawn(page, 'mask'), { timeout: 30_000 }).not.toBeNull();
  const listed = page.locator(`[data-finding="${bleed.id}"]`);
  await listed.click();
  const first = await shown(page, Number(await listed.getAttribute('data-slice')));
  await page.keyboard.press('p');
  const prior = async () => {
    await page.waitForFunction(() => {
      const { shown, wanted } = document.querySelector<HTMLElement>('.beside')?.dataset ?? {};
      return shown !== undefined && shown !== '' && shown === wanted;
    });
    return Number(await page.locator('.beside').getAttribute('data-shown'));
  };
  const chosen = (await study(other ?? '')).series.find(({ chosen }) => chosen)?.series_instance_uid ?? '';
  const here = stack(await metadata(stroke.study_instance_uid, bleed.series)).slices;
  const there = stack(await metadata(other ?? '', chosen)).slices;
  const beside = (index: number, shift: number) => atDepth(there, depthMm(here, index) + shift);
  await expect.poll(prior).toBe(beside(first, 0));
  await page.keyboard.press('ArrowUp');
  await shown(page, first + 1);
  await expect.poll(prior).toBe(beside(first + 1, 0));
  // Shifted by a slice of its own, it stays so.
  const lower = beside(first + 1, 0) - 1;
  const shift = depthMm(there, lower) - depthMm(here, first + 1);
  await page.getByRole('button', { name: messages.compare.down }).click();
  await expect.poll(prior).toBe(lower);
  expect(await shown(page)).toBe(first + 1);
  await page.keyboard.press('ArrowDown');
  await expect.poll(prior).toBe(beside(first, shift));
  await page.keyboard.press('4');
  expect(await axe(page)).toEqual([]);
  await picture(page, 'compare');
  await page.getByRole('button', { name: /match again/ }).click();
  await expect.poll(prior).toBe(beside(first, 0));
  await page.keyboard.press('p');
  await page.locator('.beside').waitFor({ state: 'detached' });
  // The images of this study are still there.
  await page.keyboard.press('ArrowUp');
  await shown(page, first + 1);
});
