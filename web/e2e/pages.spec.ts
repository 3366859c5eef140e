import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, type TestContext } from 'vitest';
import type { StudyDetail, Worklist } from '../src/api/model.ts';
import { dot, type Slice, stack } from '../src/dicomweb/geometry.ts';
import { messages } from '../src/ui/messages.ts';
import {
  axe,
  type Box,
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

let browser: Browser;
let list: Worklist;
let context: BrowserContext;
let page: Page;
let foreign: string[];
let errors: string[];

beforeAll(async () => {
  list = await worklist();
  browser = await launch();
});
afterAll(() => browser?.close());
async function openTab() {
  ({ context, page, foreign, errors } = await open(browser));
}

const closeTab = (test?: TestContext) => close({ context, page, foreign, errors }, test);

const one = (state: 'flagged' | 'not_flagged') => single(list, state);

const row = (uid: string) => page.locator(`tr[data-study="${uid}"]`);
const noted = () => page.locator('[role=note]', { hasText: messages.disclaimer });

describe('the worklist', () => {
  beforeEach(async () => {
    await openTab();
    await page.goto(server());
    await page.waitForSelector('tr[data-study]');
  });
  afterEach(closeTab);

  it('shows every study with its state, in the order of the server', async () => {
    const uids = await page.locator('tr[data-study]').evaluateAll((rows) => rows.map((r) => r.dataset.study));
    expect(uids).toEqual(list.studies.map((s) => s.study_instance_uid));
    expect(await row(one('flagged')).locator('.badge').textContent()).toBe(messages.state.flagged);
    expect(await row(one('not_flagged')).locator('.badge').textContent()).toBe(messages.state.not_flagged);
    expect(await noted().isVisible()).toBe(true);
    await picture(page, 'worklist');
  });

  it('is free of what axe finds, in the dark and in the light', async () => {
    expect(await axe(page)).toEqual([]);
    await page.emulateMedia({ colorScheme: 'light' });
    expect(await axe(page)).toEqual([]);
    await picture(page, 'worklist-light');
  });

  it('does not load the viewer', async () => {
    const scripts = await page.evaluate(() =>
      performance
        .getEntriesByType('resource')
        .reduce((sum, r) => sum + (r as PerformanceResourceTiming).decodedBodySize, 0),
    );
    expect(scripts).toBeLessThan(300_000);
  });

  it('is walked and opened by keys', async () => {
    const [first, second] = list.studies;
    await page.keyboard.press('j');
    expect(
      await row(first?.study_instance_uid ?? '')
        .locator(':focus')
        .count(),
    ).toBe(1);
    await page.keyboard.press('j');
    expect(
      await row(second?.study_instance_uid ?? '')
        .locator(':focus')
        .count(),
    ).toBe(1);
    await page.keyboard.press('k');
    await page.keyboard.press('Enter');
    await page.waitForURL(`**/study/${first?.study_instance_uid}`);
    await page.waitForSelector('.patient-bar');
    await page.keyboard.press('Escape');
    await page.waitForSelector('tbody tr');
    await page.keyboard.press('?');
    expect(await page.getByRole('dialog').textContent()).toContain(messages.help.worklist[0][1]);
  });

  it('is filtered by state and by text, and stays so while a study is open', async () => {
    const uid = one('flagged');
    await page.getByLabel(messages.worklist.state, { exact: true }).selectOption('flagged');
    await row(one('not_flagged')).waitFor({ state: 'detached' });
    const states = await page
      .locator('tr[data-study]')
      .evaluateAll((rows) => rows.map((r) => r.dataset.state));
    expect(states.length).toBeGreaterThan(0);
    expect(new Set(states)).toEqual(new Set(['flagged']));
    expect(new URL(page.url()).search).toBe('?state=flagged');
    await row(uid).locator('a.patient').click();
    await page.waitForSelector('.patient-bar');
    await page.keyboard.press('Escape');
    await row(uid).waitFor();
    expect(await row(one('not_flagged')).count()).toBe(0);
    await page.reload();
    await row(uid).waitFor();
    expect(await row(one('not_flagged')).count()).toBe(0);
    await page.keyboard.press('/');
    await page.keyboard.type('nobody has this name');
    await page.getByText(messages.worklist.noMatch).waitFor();
    await page.keyboard.press('Escape');
    await row(uid).waitFor();
  });

  it('holds thousands of studies with few rows in the page, and keys reach them all', async () => {
    const [first] = list.studies;
    const many = 5000;
    const uidOf = (i: number) => `1.2.3.${i}`;
    const asked: number[] = [];
    await context.route('**/api/worklist*', (route) => {
      const query = new URL(route.request().url()).searchParams;
      const [offset, limit] = [Number(query.get('offset')), Number(query.get('limit'))];
      asked.push(limit);
      const studies = Array.from({ length: Math.min(limit, many - offset) }, (_, i) => ({
        ...first,
        study_instance_uid: uidOf(offset + i),
        patient_name: `Number^${offset + i}`,
      }));
      return route.fulfill({ json: { ...list, total: many, studies } });
    });
    await page.goto(server());
    await row(uidOf(0)).waitFor();
    expect(await page.locator('table').getAttribute('aria-rowcount')).toBe(String(many + 1));
    await page.evaluate(() => scrollTo(0, document.documentElement.scrollHeight / 2));
    await page.waitForFunction(() => {
      const middle = document.elementFromPoint(innerWidth / 2, innerHeight / 2)?.closest('tr');
      return Number(middle?.dataset.index ?? 0) > 2000;
    });
    // Upwards from nothing is the last; upwards again the one before it.
    await page.keyboard.press('k');
    await row(uidOf(many - 1))
      .locator('a:focus')
      .waitFor();
    await page.keyboard.press('k');
    await row(uidOf(many - 2))
      .locator('a:focus')
      .waitFor();
    expect(await page.locator('tr[data-study]').count()).toBeLessThan(100);
    expect(Math.max(...asked)).toBeLessThanOrEqual(300);
    expect(await axe(page)).toEqual([]);
  });

  it('keeps the focus on a study when others come before it', async () => {
    const [first] = list.studies;
    const uids = ['1.1', '1.2', '1.3'];
    const known = () => uids.map((uid) => ({ ...first, study_instance_uid: uid }));
    let arrive = () => {};
    const arrived = new Promise<void>((resolve) => {
      arrive = resolve;
    });
    await context.route('**/api/events', async (route) => {
      await arrived;
      const event = { study_instance_uid: '1.0', state: 'flagged', progress: null };
      const body = `event: study\ndata: ${JSON.stringify(event)}\n\n`;
      await route.fulfill({ contentType: 'text/event-stream', body });
    });
    await context.route('**/api/worklist*', (route) =>
      route.fulfill({ json: { ...list, total: uids.length, studies: known() } }),
    );
    await page.goto(server());
    await row('1.2').waitFor();
    await page.keyboard.press('j');
    await page.keyboard.press('j');
    await row('1.2').locator('a:focus').waitFor();
    uids.unshift('1.0');
    arrive();
    await row('1.0').waitFor();
    expect(await row('1.2').locator('a:focus').count()).toBe(1);
    expect(await row('1.2').getAttribute('data-index')).toBe('2');
  });

  it('is loaded again when the server tells of a change', async () => {
    const event = `event: study\ndata: ${JSON.stringify({ study_instance_uid: '1.2', state: 'arriving', progress: null })}\n\n`;
    await context.route('**/api/events', (route) =>
      route.fulfill({ contentType: 'text/event-stream', body: event }),
    );
    const title = 'A study that has just arrived';
    await page.goto(server());
    await page.waitForSelector('tbody tr');
    await context.route('**/api/worklist*', async (route) => {
      const [first] = list.studies;
      await route.fulfill({
        json: { ...list, total: 1, studies: [{ ...first, study_description: title }] },
      });
    });
    await page.getByText(title).waitFor();
  });
});

describe('a flagged study', () => {
  let detail: StudyDetail;
  let slices: readonly Slice[];

  beforeAll(async () => {
    detail = await study(one('flagged'));
    const chosen = detail.series.find((s) => s.chosen);
    const series = await metadata(detail.study_instance_uid, chosen?.series_instance_uid ?? '');
    ({ slices } = stack(series));
    // One tab for all of them: loading the viewer takes longer than all that is done with it.
    await openTab();
    await openStudy(context, page, detail.study_instance_uid);
    await page.locator('.legend .swatch').first().waitFor();
  });
  afterAll(() => closeTab());
  const findings = () => detail.analysis?.report.findings ?? [];
  const keySlice = () => findings()[0]?.key_slice ?? -1;

  it('opens on the key slice of its first finding, with the mask drawn', async () => {
    expect(await shown(page)).toBe(keySlice());
    expect(await page.locator('.viewport').getAttribute('data-uid')).toBe(slices[keySlice()]?.key);
    await expect.poll(() => drawn(page, 'mask')).not.toBeNull();
    expect(await noted().isVisible()).toBe(true);
    await picture(page, 'flagged');
  });

  /** Back to how the page opened. */
  afterEach(async () => {
    for (const [toggle, on] of [
      ['mask', 'true'],
      ['uncertainty', 'false'],
    ]) {
      const button = page.locator(`[data-toggle=${toggle}]`);
      if ((await button.getAttribute('aria-pressed')) !== on) await button.click();
    }
    await page.getByLabel(messages.viewer.opacity).fill('0.6');
    await page.emulateMedia({ colorScheme: 'dark' });
    await page.locator('.viewport').focus();
    await page.keyboard.press('0');
    await page.keyboard.press('1');
    await page.locator(`[data-finding="${findings()[0]?.id}"]`).click();
    await shown(page, keySlice());
  });

  it('draws the mask inside the bounding boxes that the report states', async () => {
    const box = await drawn(page, 'mask');
    const slice = slices[keySlice()];
    if (box === null || slice === undefined) throw new Error('nothing is drawn');
    const corners = [place(slice, box, box.left, box.top), place(slice, box, box.right, box.bottom)];
    const boxes = findings().map((f) => (f as unknown as { bounding_box_mm: number[][] }).bounding_box_mm);
    // The outline runs along pixel edges and is two CSS pixels wide.
    const slack = 2.5;
    for (const axis of [0, 1, 2]) {
      const low = Math.min(...boxes.map((b) => b[0]?.[axis] ?? Number.NaN)) - slack;
      const high = Math.max(...boxes.map((b) => b[1]?.[axis] ?? Number.NaN)) + slack;
      for (const corner of corners) {
        expect(corner[axis]).toBeGreaterThan(low);
        expect(corner[axis]).toBeLessThan(high);
      }
    }
  });

  it('draws no mask on the uppermost and the lowest slice', async () => {
    for (const [key, index] of [
      ['Home', slices.length - 1],
      ['End', 0],
    ] as const) {
      await page.keyboard.press(key);
      await shown(page, index);
      await expect.poll(() => drawn(page, 'mask')).toBeNull();
    }
  });

  it('jumps to a finding that is clicked', async () => {
    await page.keyboard.press('End');
    await shown(page, 0);
    await page.locator(`[data-finding="${findings()[0]?.id}"]`).click();
    await shown(page, keySlice());
    await expect.poll(() => drawn(page, 'mask')).not.toBeNull();
  });

  it('moves by arrow keys and by the wheel', async () => {
    const start = await shown(page);
    await page.keyboard.press('ArrowUp');
    await shown(page, start + 1);
    await page.locator('.picture').hover();
    await page.mouse.wheel(0, 100);
    await shown(page, start);
    await page.mouse.wheel(0, 100);
    await shown(page, start - 1);
  });

  it('changes the window by keys', async () => {
    const looks = new Set<string>();
    for (const [key, window] of [
      ['4', '2000/500'],
      ['3', '200/70'],
      ['2', '40/40'],
      ['1', '80/40'],
    ] as const) {
      await page.keyboard.press(key);
      expect(await page.locator('.viewport').getAttribute('data-window')).toBe(window);
      await page.waitForTimeout(300);
      looks.add((await page.locator('.viewport').screenshot()).toString('base64'));
    }
    expect(looks.size).toBe(4);
  });

  it('shows and hides the mask and the uncertainty', async () => {
    await expect.poll(() => drawn(page, 'uncertainty')).toBeNull();
    await page.keyboard.press('u');
    await expect.poll(() => drawn(page, 'uncertainty')).not.toBeNull();
    expect(await page.locator('.legend').textContent()).toContain(messages.viewer.ends.entropy[1]);
    await picture(page, 'flagged-uncertainty');
    await page.keyboard.press('m');
    await expect.poll(() => drawn(page, 'mask')).toBeNull();
    await page.getByLabel(messages.viewer.opacity).fill('0');
    await expect.poll(() => drawn(page, 'uncertainty')).toBeNull();
  });

  it('keeps the mask on the image under zoom', async () => {
    const before = await drawn(page, 'mask');
    await page.locator('.picture').hover();
    await page.keyboard.down('Control');
    await page.mouse.wheel(0, -100);
    await page.keyboard.up('Control');
    await page.waitForTimeout(300);
    const after = await drawn(page, 'mask');
    if (before === null || after === null) throw new Error('nothing is drawn');
    expect((after.right - after.left) / (before.right - before.left)).toBeCloseTo(1.1, 1);
  });

  it('says what was found, by what, and how sure it is', async () => {
    const text = (await page.locator('.panel').textContent()) ?? '';
    for (const model of detail.analysis?.report.models ?? []) {
      expect(text).toContain(model.id);
      expect(text).toContain(model.weights_sha256.slice(0, 16));
    }
    expect(text).toContain(messages.panel.notCalibrated);
    expect(text).toContain(messages.panel.waited);
    expect(await page.locator('body').textContent()).not.toMatch(/probability|cleared/i);
  });

  it('is free of what axe finds, in the dark and in the light', async () => {
    await page.keyboard.press('u');
    expect(await axe(page)).toEqual([]);
    await page.emulateMedia({ colorScheme: 'light' });
    expect(await axe(page)).toEqual([]);
    await picture(page, 'flagged-light');
  });
});

describe('a study that is open', () => {
  beforeEach(openTab);
  afterEach(closeTab);

  it('is loaded again when a new revision arrives, and says so', async () => {
    const detail = await study(one('flagged'));
    const { analysis } = detail;
    if (analysis === null) throw new Error('a flagged study without an analysis');
    const revised = { ...detail, analysis: { ...analysis, id: 'another', revision: analysis.revision + 1 } };
    const event = { study_instance_uid: detail.study_instance_uid, state: 'flagged', progress: null };
    let opened = () => {};
    const isOpen = new Promise<void>((resolve) => {
      opened = resolve;
    });
    await context.route('**/api/events', async (route) => {
      await isOpen;
      const body = `event: study\ndata: ${JSON.stringify(event)}\n\n`;
      await route.fulfill({ contentType: 'text/event-stream', body });
    });
    await openStudy(context, page, detail.study_instance_uid);
    await context.route('**/api/studies/*', (route) => route.fulfill({ json: revised }));
    opened();
    await page.getByText(messages.study.revised(analysis.revision + 1)).waitFor();
  });

  it('draws no mask that lies elsewhere than its images, and says so', async () => {
    const detail = await study(one('flagged'));
    const seg = detail.analysis?.objects.find(({ role }) => role === 'seg')?.sop_instance_uid ?? '';
    const chosen = detail.series.find((s) => s.chosen)?.series_instance_uid ?? '';
    const [first] = stack(await metadata(detail.study_instance_uid, chosen)).slices;
    const frame = first?.frameOfReferenceUid ?? '';
    await context.route(`**/instances/${seg}`, async (route) => {
      const response = await route.fetch();
      const body = await response.body();
      const at = body.indexOf(frame);
      body.write(frame.endsWith('1') ? '2' : '1', at + frame.length - 1, 'latin1');
      await route.fulfill({ response, body });
    });
    await openStudy(context, page, detail.study_instance_uid);
    await page.getByText(messages.placement.frameOfReference).waitFor();
    await expect.poll(() => drawn(page, 'mask')).toBeNull();
  });
});

describe('a study that is not flagged', () => {
  beforeEach(openTab);
  afterEach(closeTab);

  it('shows its slices without a mask, and does not call it clear', async () => {
    const detail = await study(one('not_flagged'));
    await openStudy(context, page, detail.study_instance_uid);
    const part = page.locator('[data-part=answers]');
    expect(await part.textContent()).toContain(messages.panel.answer.absent);
    expect(await page.locator('[data-part=findings]').textContent()).toContain(messages.panel.noneNote);
    for (const key of ['End', 'PageUp', 'PageUp', 'Home']) {
      await page.keyboard.press(key);
      await page.waitForTimeout(200);
      await expect.poll(() => drawn(page, 'mask')).toBeNull();
    }
    await page.keyboard.press('End');
    for (let i = 0; i < Math.floor((detail.series.find((s) => s.chosen)?.instance_count ?? 2) / 2); i++) {
      await page.keyboard.press('ArrowUp');
    }
    await page.waitForTimeout(500);
    await picture(page, 'not-flagged');
    expect(await page.locator('body').textContent()).not.toMatch(/probability|cleared/i);
  });
});

describe('trouble', () => {
  beforeEach(openTab);
  afterEach(closeTab);

  it('is shown as the sentence that the server said', async () => {
    const problem = { title: 'Internal error', detail: 'Something broke', status: 500, request_id: 'r-9' };
    await context.route('**/api/worklist*', (route) =>
      route.fulfill({ status: 500, contentType: 'application/problem+json', body: JSON.stringify(problem) }),
    );
    await page.goto(server());
    const said = await page.getByRole('alert').textContent();
    expect(said).toContain('Internal error. Something broke. (Request r-9.)');
  });

  it('is a sentence for a study that is not there', async () => {
    await page.goto(`${server()}/study/1.2.3.4.5.6.7`);
    expect(((await page.getByRole('alert').textContent()) ?? '').length).toBeGreaterThan(10);
  });

  it('asks for the key when the server wants one, and sends it', async () => {
    const sent: (string | undefined)[] = [];
    await context.addInitScript(() => sessionStorage.clear());
    await context.route('**/api/**', (route) => {
      const key = route.request().headers().authorization;
      if (key !== 'Bearer secret-of-the-test') return route.fulfill({ status: 401, body: '' });
      sent.push(key);
      if (route.request().url().includes('/api/worklist')) return route.fulfill({ json: list });
      return route.fulfill({ status: 204, body: '' });
    });
    await page.goto(server());
    await page.getByRole('dialog').waitFor();
    expect(await axe(page)).toEqual([]);
    await page.keyboard.press('Escape');
    expect(await page.getByRole('dialog').isVisible()).toBe(true);
    await page.getByText(messages.key.title, { exact: true }).click();
    await page.getByLabel(messages.key.label, { exact: true }).fill('secret-of-the-test');
    await page.keyboard.press('Enter');
    await page.waitForSelector('tbody tr');
    expect(sent.length).toBeGreaterThan(0);
  });
});

describe('a link from another system', () => {
  beforeEach(openTab);
  afterEach(closeTab);

  it('opens the study of an accession number or a UID, and says when there is none', async () => {
    const uid = one('not_flagged');
    const accession = list.studies.find((s) => s.study_instance_uid === uid)?.accession_number ?? '';
    for (const query of [`accession=${accession}`, `study=${uid}`]) {
      await page.goto(`${server()}/open?${query}`);
      await page.waitForURL(`**/study/${uid}`);
    }
    await page.goto(`${server()}/open?accession=${accession.slice(0, -1)}`);
    await page.getByText(messages.open.none(accession.slice(0, -1))).waitFor();
    expect(await axe(page)).toEqual([]);
    await page.goto(`${server()}/open`);
    await page.getByText(messages.open.nothing).waitFor();
  });
});

describe('a reader', () => {
  const [name = '', password = ''] = (process.env.ICTUS_READER ?? '').split(':');
  beforeEach(openTab);
  afterEach(closeTab);

  it('has to sign in for a verdict, judges by keys, and finds it in the trail', async () => {
    const uid = one('flagged');
    await openStudy(context, page, uid);
    await page.locator('[data-part=verdicts]').waitFor();
    await page.keyboard.press('a');
    const dialog = page.getByRole('dialog');
    await dialog.waitFor();
    expect(await axe(page)).toEqual([]);
    await page.getByLabel(messages.signIn.name, { exact: true }).fill(name);
    await page.getByLabel(messages.signIn.password).fill('not the password');
    await page.keyboard.press('Enter');
    await page.getByText('do not belong to an account').waitFor();
    await page.getByLabel(messages.signIn.password).fill(password);
    await page.keyboard.press('Enter');
    await dialog.waitFor({ state: 'detached' });
    await page.locator('.masthead .who', { hasText: 'Reader of the test' }).waitFor();

    // The first finding is chosen by N, rejected by X and one digit; the answer is agreed to and left by Enter.
    const finding = (await study(uid)).analysis?.report.findings[0]?.id ?? '';
    await page.keyboard.press('n');
    await page.locator(`.finding[data-finding="${finding}"][aria-pressed=true]`).waitFor();
    await page.keyboard.press('x');
    await page.getByText(messages.review.why.reject).waitFor();
    expect(await axe(page)).toEqual([]);
    await picture(page, 'reason');
    await page.keyboard.press('1');
    const given = page.locator(`[data-verdict-of="${finding}"] [data-verdict=reject]`);
    await page.waitForFunction(
      (b) => b?.getAttribute('aria-pressed') === 'true',
      await given.elementHandle(),
    );
    await picture(page, 'verdict');
    expect(await axe(page)).toEqual([]);
    await page.locator('.panel h2').first().click();
    await page.keyboard.press('Enter');
    await page.waitForURL((to) => !to.pathname.includes(uid));

    await page.goto(`${server()}/study/${uid}/trail`);
    await page.locator('tr[data-act=verdict]').first().waitFor();
    const rows = await page.locator('tr[data-act=verdict]').allTextContents();
    expect(rows.some((text) => text.includes('artefact') && text.includes(finding))).toBe(true);
    expect(rows.some((text) => text.includes('accept'))).toBe(true);
    expect(await page.locator('tr[data-act=analyse]').count()).toBe(1);
    expect(await axe(page)).toEqual([]);
    await picture(page, 'trail');

    await page.goto(server());
    await row(uid).locator('.reading').waitFor();
    // What was read stands behind what nobody has read.
    const order = await page.locator('tr[data-study]').evaluateAll((rows) =>
      rows.map((row) => ({
        uid: row.getAttribute('data-study'),
        read: row.querySelector('.reading[data-outdated=false]') !== null,
      })),
    );
    expect(order.find((one) => one.uid === uid)?.read).toBe(true);
    expect(order.slice(order.findIndex(({ read }) => read)).every(({ read }) => read)).toBe(true);
    await page.keyboard.press('u');
    await row(uid).waitFor({ state: 'detached' });
    await page.getByRole('button', { name: messages.views.save }).click();
    await page.getByLabel(messages.views.name, { exact: true }).fill('To do');
    expect(await axe(page)).toEqual([]);
    await page.keyboard.press('Enter');
    await page.getByRole('button', { name: messages.views.forget('To do') }).waitFor();
    await page.keyboard.press('u');
    await row(uid).waitFor();
    await page.getByLabel(messages.views.title).selectOption('To do');
    await row(uid).waitFor({ state: 'detached' });
    await picture(page, 'worklist-view');
    await page.getByRole('button', { name: messages.views.forget('To do') }).click();
    await page.getByRole('button', { name: messages.views.save }).waitFor();
    await page.keyboard.press('u');
    await row(uid).waitFor();
    expect(await row(uid).locator('.reading').textContent()).toContain('Reader of the test');
    await page.getByRole('button', { name: messages.signIn.out }).click();
    await page.getByRole('button', { name: messages.signIn.title }).waitFor();
  });

  it('corrects the mask by hand, loses nothing on the way, and finds it saved as it was drawn', async () => {
    const uid = one('flagged');
    const detail = await study(uid);
    const key = detail.analysis?.report.findings[0]?.key_slice ?? -1;
    const signIn = async () => {
      await page.getByLabel(messages.signIn.name, { exact: true }).fill(name);
      await page.getByLabel(messages.signIn.password).fill(password);
      await page.keyboard.press('Enter');
      await page.getByRole('dialog').waitFor({ state: 'detached' });
    };
    const viewport = page.locator('.viewport');
    /** Signing in loads everything anew, and until the mask is back there is nothing to begin with. */
    const begin = () =>
      expect
        .poll(async () => {
          await viewport.focus();
          if ((await viewport.getAttribute('data-drawing')) === 'false') await page.keyboard.press('d');
          return viewport.getAttribute('data-drawing');
        })
        .toBe('true');
    /** Draws along a line, in shares of the viewport, and takes the brush away. */
    const stroke = async (from: [number, number], to: [number, number]) => {
      const box = await viewport.boundingBox();
      if (box === null) throw new Error('no viewport');
      await page.mouse.move(box.x + box.width * from[0], box.y + box.height * from[1]);
      await page.mouse.down();
      await page.mouse.move(box.x + box.width * to[0], box.y + box.height * to[1], { steps: 5 });
      await page.mouse.up();
      await page.mouse.move(2, 2);
    };
    await openStudy(context, page, uid);
    await shown(page, key);
    await expect.poll(() => drawn(page, 'mask')).not.toBeNull();
    /** Where the mask is, in shares of the height to which the image is fitted: the tools take some of it. */
    const place = async () => {
      const box = await drawn(page, 'mask');
      if (box === null) return [];
      const across = (x: number) => Math.round(((x - box.width / 2) / box.height) * 100);
      return [
        across(box.left),
        across(box.right),
        ...[box.top, box.bottom].map((y) => Math.round((y / box.height) * 100)),
      ];
    };
    const lies = (wanted: number[]) =>
      expect
        .poll(async () => {
          const now = await place();
          return now.length === wanted.length && now.every((v, i) => Math.abs(v - (wanted[i] ?? 0)) <= 1);
        })
        .toBe(true);
    const machine = await place();
    await viewport.focus();
    await page.keyboard.press('d');
    await page.getByRole('dialog').waitFor();
    await signIn();
    await begin();
    expect(await axe(page)).toEqual([]);
    // It begins with the machine's mask; a stroke beside it widens what is drawn, and Z takes it back.
    await lies(machine);
    await stroke([0.44, 0.5], [0.56, 0.5]);
    const wider = await place();
    expect(Math.max(...wider.map((v, i) => Math.abs(v - (machine[i] ?? 0))))).toBeGreaterThan(3);
    await page.keyboard.press('z');
    await lies(machine);
    await page.keyboard.press('y');
    await lies(wider);
    // The eraser takes all of it away within its reach.
    await page.keyboard.press('e');
    await stroke([0.44, 0.5], [0.56, 0.5]);
    await page.keyboard.press('z');
    await lies(wider);
    await picture(page, 'drawing');
    // Left, and the page loaded anew: nothing is lost.
    await page.keyboard.press('Escape');
    await lies(machine);
    await page.reload();
    await shown(page, key);
    await lies(machine);
    await begin();
    await lies(wider);
    await page.keyboard.press('Enter');
    await page.locator('[data-correction][aria-pressed=true]').waitFor();
    await page.locator('.viewport[data-drawing=false]').waitFor();
    // What comes back over DICOMweb lies where it was drawn; the machine's mask is still there.
    await lies(wider);
    expect(await page.locator('.legend').textContent()).toContain(messages.draw.legend);
    expect(await axe(page)).toEqual([]);
    await picture(page, 'corrected');
    await page.getByRole('button', { name: messages.draw.machine }).click();
    await lies(machine);
    await page.goto(`${server()}/study/${uid}/trail`);
    await page.locator('tr[data-act=correct]').last().waitFor();
  });
});

/** A point of the canvas → LPS millimetres, by the image's own attributes and the fact that it is fitted and centred. */
function place(slice: Slice, box: Box, x: number, y: number): number[] {
  const [rowSpacing = 0, columnSpacing = 0] = slice.pixelSpacingMm;
  const scale = Math.min(box.width / (slice.columns * columnSpacing), box.height / (slice.rows * rowSpacing));
  const across = (x - box.width / 2) / scale + ((slice.columns - 1) / 2) * columnSpacing;
  const down = (y - box.height / 2) / scale + ((slice.rows - 1) / 2) * rowSpacing;
  const [row, column] = [slice.imageOrientationPatient.slice(0, 3), slice.imageOrientationPatient.slice(3)];
  expect(dot(row, column)).toBeCloseTo(0, 3);
  return slice.imagePositionPatient.map((p, i) => p + across * (row[i] ?? 0) + down * (column[i] ?? 0));
}
