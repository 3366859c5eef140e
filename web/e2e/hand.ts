/** What the tests of the reader's hand share: signing in, pointing at pixels, truth and saved masks as pixels. */

import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import type { Page } from 'playwright-core';
import type { SliceRuns } from '../src/api/model.ts';
import type { Slice } from '../src/dicomweb/geometry.ts';
import { messages } from '../src/ui/messages.ts';

export const [NAME = '', PASSWORD = ''] = (process.env.ICTUS_READER ?? '').split(':');

export async function signIn(page: Page): Promise<void> {
  await page.locator('.masthead').getByRole('button', { name: messages.signIn.title }).click();
  await page.getByLabel(messages.signIn.name, { exact: true }).fill(NAME);
  await page.getByLabel(messages.signIn.password).fill(PASSWORD);
  await page.keyboard.press('Enter');
  await page.getByRole('dialog').waitFor({ state: 'detached' });
  await page.locator('.masthead .who', { hasText: 'Reader of the test' }).waitFor();
}

/** Pixels of an image (edges, as the page counts them) → the point of the window, while the image is fitted. */
export async function pointing(page: Page, slice: Slice) {
  await page.locator('.viewport').focus();
  await page.keyboard.press('0');
  const box = await page.locator('.picture').boundingBox();
  if (box === null) throw new Error('no picture');
  const [rowMm = 1, columnMm = 1] = slice.pixelSpacingMm;
  const { columns, rows } = slice;
  const scale = Math.min(box.width / (columns * columnMm), box.height / (rows * rowMm));
  return ([column, row]: readonly [number, number]): [number, number] => [
    box.x + box.width / 2 + (column - columns / 2) * columnMm * scale,
    box.y + box.height / 2 + (row - rows / 2) * rowMm * scale,
  ];
}

/** Presses, follows the points, lets go, and takes the pointer away. */
export async function drag(page: Page, points: readonly [number, number][]): Promise<void> {
  const [first, ...others] = points;
  if (first === undefined) return;
  await page.mouse.move(...first);
  await page.mouse.down();
  for (const point of others) await page.mouse.move(...point, { steps: 4 });
  await page.mouse.up();
  await page.mouse.move(2, 2);
}

/** The truth of a phantom by the keys of its slices: one byte a pixel. */
export function truth(phantom: string): Map<string, Uint8Array> {
  const all = process.env.ICTUS_PHANTOMS;
  if (!all) throw new Error('Set ICTUS_PHANTOMS to the folder of the phantoms, see e2e/README.md.');
  const folder = join(all, phantom);
  const told = readdirSync(folder, { recursive: true, encoding: 'utf8' }).find((name) =>
    name.endsWith('truth.json'),
  );
  const path = join(folder, told ?? '');
  const { sop_instance_uids: keys } = JSON.parse(readFileSync(path, 'utf8')) as {
    sop_instance_uids: string[];
  };
  const file = gunzipSync(readFileSync(join(dirname(path), 'truth.nii.gz')));
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const [columns = 0, rows = 0] = [0, 1].map((axis) => view.getInt16(42 + 2 * axis, true));
  const bytes = view.getInt16(72, true) / 8;
  const start = view.getFloat32(108, true);
  const size = columns * rows;
  return new Map(
    keys.map((key, k) => [
      key,
      Uint8Array.from({ length: size }, (_, i) => (file[start + (k * size + i) * bytes] === 0 ? 0 : 1)),
    ]),
  );
}

/** What was sent for a slice, one byte a pixel. */
export function pixelsOf(runs: readonly SliceRuns[], { key, rows, columns }: Slice): Uint8Array {
  const mask = new Uint8Array(rows * columns);
  const found = runs.find((one) => one.sop_instance_uid === key)?.runs ?? [];
  for (let i = 0; i + 1 < found.length; i += 2) {
    mask.fill(1, found[i] ?? 0, (found[i] ?? 0) + (found[i + 1] ?? 0));
  }
  return mask;
}

export const area = (mask: Uint8Array) => mask.reduce((sum, v) => sum + v, 0);

/** Of two masks: twice what they share of what they hold. */
export function dice(a: Uint8Array, b: Uint8Array): number {
  return (2 * area(a.map((v, i) => v & (b[i] ?? 0)))) / (area(a) + area(b));
}
