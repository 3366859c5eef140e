import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import type { StudyDetail } from '../src/api/model.ts';
import { messages } from '../src/ui/messages.ts';
import { STROKE, axe, close, described, launch, open, picture, server } from './browser.ts';
import { signIn } from './hand.ts';

const said = messages.figures;

let browser: Browser;
let context: BrowserContext;
let page: Page;
let foreign: string[];
let errors: string[];
let stroke: StudyDetail;

beforeAll(async () => {
  browser = await launch();
  stroke = await described(STROKE);
});
afterAll(() => browser?.close());
beforeEach(async () => {
  ({ context, page, foreign, errors } = await open(browser));
  await page.goto(server());
  await signIn(page);
});
afterEach((test) => close({ context, page, foreign, errors }, test));

/** What the reader says of the study or of one of its findings, as the page sends it. */
const judge = (finding: string | null, verdict: string, reason: string | null) =>
  page.evaluate(
    async ([uid, body]) => {
      const headers = { 'Content-Type': 'application/json' };
      const answer = await fetch(`/api/studies/${uid}/verdicts`, { method: 'POST', headers, body });
      if (!answer.ok) throw new Error(await answer.text());
    },
    [
      stroke.study_instance_uid,
      JSON.stringify({ analysis: stroke.analysis?.id, finding, verdict, reason, note: null }),
    ] as const,
  );

it('counts what readers said, and each bar leads to its cases', async () => {
  const [first] = stroke.analysis?.report.findings ?? [];
  await judge(first?.id ?? '', 'reject', 'calcification');
  await judge(null, 'accept', null);
  await page.getByRole('link', { name: said.open }).click();
  await page.getByRole('heading', { name: said.title }).waitFor();
  await page.locator('[data-part=answers] .chart svg a').first().waitFor();
  expect(await axe(page)).toEqual([]);
  await picture(page, 'figures');

  // A bar can be reached and pressed without a mouse.
  const bar = page.locator('[data-part=findings] .chart svg a', {
    has: page.locator('[aria-label*=overruled]'),
  });
  await bar.first().focus();
  await page.keyboard.press('Enter');
  await page.locator(`[data-case="${stroke.study_instance_uid}"]`).waitFor();
  expect(new URL(page.url()).search).toContain('outcome=reject');
  await picture(page, 'figures-cases');
  // So can the number in the table, and the case leads to its study; going back leads to the list again.
  await page.getByRole('link', { name: said.close }).click();
  await page.locator('.cases').waitFor({ state: 'detached' });
  await page.locator('[data-part=reasons] tbody a').first().click();
  await page.locator(`[data-case="${stroke.study_instance_uid}"] a`).click();
  await page.waitForURL((to) => to.pathname === `/study/${stroke.study_instance_uid}`);
  await page.goBack();
  await page.locator(`[data-case="${stroke.study_instance_uid}"]`).waitFor();
  await page.emulateMedia({ colorScheme: 'light' });
  expect(await axe(page)).toEqual([]);
  await picture(page, 'figures-light');
});

it('takes the days that are asked for, and says when there is nothing', async () => {
  await judge(null, 'accept', null);
  await page.goto(`${server()}/figures?to=2020-01-01`);
  await page.getByText(said.none).waitFor();
  await page.getByLabel(said.to, { exact: true }).fill('');
  await page.locator('[data-part=answers]').waitFor();
});

it('says what to label next, and leads there', async () => {
  await page.goto(`${server()}/figures`);
  const candidates = (await (await page.request.get(`${server()}/api/figures/label-next`)).json()) as {
    study_instance_uid: string;
  }[];
  const shown = page.locator('[data-candidate]');
  await expect.poll(() => shown.count()).toBe(candidates.length);
  for (const { study_instance_uid: uid } of candidates) expect(uid).not.toBe(stroke.study_instance_uid);
});
