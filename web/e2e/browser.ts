/** A real browser on a real server. */

import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { type Browser, type BrowserContext, chromium, type Page, type Request } from 'playwright-core';
import { expect, type TestContext } from 'vitest';
import type { StudyDetail, Worklist } from '../src/api/model.ts';
import type { DicomJson } from '../src/dicomweb/json.ts';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const KEY = process.env.ICTUS_KEY;

/** The server's address, without a slash at the end. */
export function server(): string {
  const url = process.env.ICTUS_URL;
  if (!url) throw new Error('Set ICTUS_URL to the address of a running server, see e2e/README.md.');
  return url.replace(/\/$/, '');
}

/** Chromium with a software GPU, and no business of its own on the network. */
export function launch(): Promise<Browser> {
  const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
  if (!existsSync(executablePath))
    throw new Error(`${executablePath} is not there: apt-get install chromium.`);
  return chromium.launch({
    executablePath,
    args: [
      '--no-sandbox',
      '--use-gl=angle',
      '--use-angle=swiftshader',
      '--enable-unsafe-swiftshader',
      '--disable-background-networking',
    ],
  });
}

/** What the tabs of a context asked for last, which a test that failed tells. */
const asked = new WeakMap<BrowserContext, string[]>();
const TOLD = 30;

/** A tab with the key, and the list of other hosts that it asked for anything. */
export async function open(browser: Browser, colorScheme: 'dark' | 'light' = 'dark') {
  const context = await browser.newContext({
    viewport: { width: 1440, height: 900 },
    colorScheme,
    // Colours are looked at, not colours on their way to others.
    reducedMotion: 'reduce',
  });
  if (KEY) await context.addInitScript((key) => sessionStorage.setItem('ictus-key', key), KEY);
  // The machine may be compiling at the same time, and has no GPU.
  context.setDefaultTimeout(120_000);
  const page = await context.newPage();
  const foreign: string[] = [];
  const errors: string[] = [];
  context.on('request', (request) => {
    const { protocol, origin } = new URL(request.url());
    if (protocol.startsWith('http') && origin !== new URL(server()).origin) foreign.push(request.url());
  });
  page.on('pageerror', (error) => errors.push(error.message));
  const last: string[] = [];
  asked.set(context, last);
  const tell = (request: Request, answer: string) => {
    last.push(`${request.method()} ${new URL(request.url()).pathname}: ${answer}`);
    if (last.length > TOLD) last.shift();
  };
  context.on('response', (response) => tell(response.request(), String(response.status())));
  context.on('requestfailed', (request) => tell(request, request.failure()?.errorText ?? 'failed'));
  return { context, page, foreign, errors };
}

/** Closes a tab, which must have asked no other host for anything and met no error. A test that failed tells what its page showed. */
export async function close(
  { context, page, foreign, errors }: Awaited<ReturnType<typeof open>>,
  test?: TestContext,
): Promise<void> {
  const task = test?.task;
  if (task?.result?.state === 'fail' && !page.isClosed()) {
    await picture(page, `failed-${task.id}`);
    const said = await page.locator('body').innerText();
    const focus = await page.evaluate(() => document.activeElement?.outerHTML.slice(0, 200));
    await context.close();
    throw new Error(
      [page.url(), said, `focus on ${focus}`, ...(asked.get(context) ?? []), ...errors].join('\n'),
    );
  }
  await context.close();
  expect(foreign, 'requests to other hosts').toEqual([]);
  expect(errors, 'errors of the page').toEqual([]);
}

async function get<T>(path: string, accept = 'application/json'): Promise<T> {
  const headers: Record<string, string> = {
    Accept: accept,
    ...(KEY ? { Authorization: `Bearer ${KEY}` } : {}),
  };
  const response = await fetch(server() + path, { headers });
  if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
  return (await response.json()) as T;
}

export const worklist = () => get<Worklist>('/api/worklist?limit=100&offset=0');
export const study = (uid: string) => get<StudyDetail>(`/api/studies/${uid}`);
/** The description of the study of two series; the other studies have one. */
export const STROKE = 'Stroke protocol';
/** How the descriptions of the studies begin on which masks are held to the truth in pixels; their geometry follows. */
export const PLACEMENT = 'Placement';

/** The study of one series that is in a state. What was read goes last, so that the place in the list says nothing. */
export function single({ studies }: Worklist, state: 'flagged' | 'not_flagged'): string {
  const own = (text: string | null) => text === STROKE || text?.startsWith(PLACEMENT);
  const found = studies.find((s) => s.state === state && !own(s.study_description));
  if (!found) throw new Error(`The server holds no study that is ${state}: send one first.`);
  return found.study_instance_uid;
}

/** The study with a description. */
export async function described(description: string): Promise<StudyDetail> {
  const found = (await worklist()).studies.find((s) => s.study_description === description);
  if (!found) throw new Error(`The server holds no study that is called ${description}: send one first.`);
  return study(found.study_instance_uid);
}
export const metadata = (uid: string, series: string) =>
  get<DicomJson[]>(`/dicom-web/studies/${uid}/series/${series}/metadata`, 'application/dicom+json');

/** A picture of the page, if pictures are wanted. */
export async function picture(page: Page, name: string): Promise<void> {
  const folder = process.env.ICTUS_SCREENSHOTS;
  if (!folder) return;
  mkdirSync(folder, { recursive: true });
  await page.screenshot({ path: join(folder, `${name}.png`) });
}

/** What axe has against the page, one line a violation. */
export async function axe(page: Page): Promise<string[]> {
  await page.evaluate(AXE);
  return page.evaluate(async () => {
    const run = (globalThis as unknown as { axe: { run(): Promise<AxeResult> } }).axe.run;
    const { violations } = await run();
    return violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' | ')}`);
  });
}

interface AxeResult {
  violations: { id: string; nodes: { html: string }[] }[];
}

/** The box of what is drawn in an overlay, in CSS pixels of the viewport; null when it is empty. */
export function drawn(page: Page, layer: 'mask' | 'uncertainty'): Promise<Box | null> {
  return page.locator(`canvas[data-layer=${layer}]`).evaluate((element) => {
    const canvas = element as HTMLCanvasElement;
    const { data, width, height } = canvas
      .getContext('2d')
      ?.getImageData(0, 0, canvas.width, canvas.height) ?? { data: [], width: 0, height: 0 };
    let [left, top, right, bottom] = [width, height, -1, -1];
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        if ((data[(y * width + x) * 4 + 3] ?? 0) === 0) continue;
        left = Math.min(left, x);
        right = Math.max(right, x);
        top = Math.min(top, y);
        bottom = Math.max(bottom, y);
      }
    }
    return right < 0 ? null : { left, top, right: right + 1, bottom: bottom + 1, width, height };
  });
}

export interface Box {
  left: number;
  top: number;
  right: number;
  bottom: number;
  /** Of the whole canvas. */
  width: number;
  height: number;
}

/** Waits until a slice is on the screen (a certain one, if given) and answers its index. */
export async function shown(page: Page, index?: number): Promise<number> {
  const wanted = index === undefined ? '' : String(index);
  await page.waitForFunction((want) => {
    const now = document.querySelector<HTMLElement>('.viewport')?.dataset.shown ?? '';
    return now !== '' && (want === '' || now === want);
  }, wanted);
  return Number(await page.locator('.viewport').getAttribute('data-shown'));
}

/** Opens a study's page and waits for its first image and its overlays. */
export async function openStudy(context: BrowserContext, page: Page, uid: string): Promise<void> {
  const overlays = context.waitForEvent('response', {
    predicate: (response) => /\/instances\/[0-9.]+$/.test(response.url()),
  });
  await page.goto(`${server()}/study/${uid}`);
  await shown(page);
  await (await overlays).finished();
  await page.waitForFunction(() => document.querySelector('.legend')?.textContent !== null);
}
