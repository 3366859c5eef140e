import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { messages } from '../src/ui/messages.ts';
import { axe, launch, open, picture, server, single, worklist } from './browser.ts';
import { NAME, PASSWORD, signIn } from './hand.ts';

/** The account of the second reader, whom the test's server knows. */
const SECOND = 'second';

let browser: Browser;
let uid: string;

beforeAll(async () => {
  browser = await launch();
  uid = single(await worklist(), 'flagged');
});
afterAll(() => browser?.close());

/** A tab in which somebody signed in. */
async function reader(name: string) {
  const tab = await open(browser);
  await tab.page.goto(server());
  if (name === NAME) await signIn(tab.page);
  else {
    const ok = await tab.page.evaluate(
      async (body) => {
        const headers = { 'Content-Type': 'application/json' };
        return (await fetch('/api/session', { method: 'POST', headers, body })).ok;
      },
      JSON.stringify({ name, password: PASSWORD }),
    );
    expect(ok, 'the second reader signs in').toBe(true);
  }
  return tab;
}

it('tells two readers on one study of each other, and of what the other did', async () => {
  const [first, second] = [await reader(NAME), await reader(SECOND)];
  const others = (page: typeof first.page) => page.locator('[data-present]');
  await first.page.goto(`${server()}/study/${uid}`);
  await first.page.locator('[data-part=verdicts]').waitFor();
  expect(await others(first.page).count()).toBe(0);

  await second.page.goto(`${server()}/study/${uid}`);
  await others(first.page).getByText('Second reader of the test').waitFor();
  await others(second.page).getByText('Reader of the test').first().waitFor();
  expect(await axe(first.page)).toEqual([]);
  await picture(first.page, 'presence');

  // One draws, the other is told, and told again when it ends.
  await second.page.locator('.viewport[data-uid]:not([data-uid=""])').waitFor();
  await second.page.locator('.legend .swatch').first().waitFor();
  await second.page.keyboard.press('d');
  await others(first.page).getByText('is drawing a mask').waitFor();
  await second.page.keyboard.press('Escape');
  await others(first.page).getByText('is drawing a mask').waitFor({ state: 'detached' });

  // Both judge: the first is told, and both verdicts stand.
  const judged = async () =>
    (await (await first.page.request.get(`${server()}/api/studies/${uid}/verdicts`)).json()).length;
  const before = await judged();
  await second.page.keyboard.press('s');
  await first.page.getByText(messages.presence.said('Second reader of the test')).waitFor();
  await first.page.keyboard.press('a');
  await expect.poll(judged).toBe(before + 2);

  // The worklist marks the row, until the reader leaves.
  await first.page.goto(server());
  const row = first.page.locator(`tr[data-study="${uid}"]`);
  await row.getByText(messages.presence.row(['Second reader of the test'])).waitFor();
  await second.page.keyboard.press('Escape');
  await row.locator('.present').waitFor({ state: 'detached' });
  expect([first.errors, second.errors, first.foreign, second.foreign].flat()).toEqual([]);
  await second.context.close();
  await first.context.close();
});

it('opens a study by a signed link, and says what is wrong with one that was altered', async () => {
  const link = process.env.ICTUS_LINK;
  if (!link) throw new Error('Set ICTUS_LINK to a signed link of the flagged study, see e2e/README.md.');
  const { context, page, errors } = await open(browser);
  await page.goto(server() + link);
  await page.waitForURL((to) => to.pathname === `/study/${uid}`);
  await page.goto(`${server()}${link.replace('key=', 'key=x')}`);
  await page.getByText('not in use here').waitFor();
  expect(await axe(page)).toEqual([]);
  expect(errors).toEqual([]);
  await context.close();
});
