/**
 * The metadata of an enhanced multi-frame CT → one dataset a frame, as if each had come by itself; any other dataset as it is.
 *
 * What the functional groups say of a frame stands where a single-frame CT has it, so that whoever reads slices need not know.
 *
 * Source: PS3.3 A.38.1, A.70 and C.7.6.16.
 */

import { type DicomJson, number, text } from './json.ts';

const ENHANCED_CT = ['1.2.840.10008.5.1.4.1.1.2.1', '1.2.840.10008.5.1.4.1.1.2.2'];

const SHARED = '52009229';
const PER_FRAME = '52009230';
const FRAMES = '00280008';
const CONVERTED_SHARED = '00209170';
const CONVERTED_PER_FRAME = '00209171';

/** Groups whose attributes a single-frame CT has under the same tags. */
const GROUPS = [
  '00289110',
  '00209113',
  '00209116',
  '00289145',
  '00289132',
  CONVERTED_SHARED,
  CONVERTED_PER_FRAME,
];

/** One frame: its number when its instance has several, and its metadata. */
export interface FrameMetadata {
  frame: number | null;
  metadata: DicomJson;
}

export function frames(dataset: DicomJson): FrameMetadata[] {
  const per = items(dataset, PER_FRAME);
  const count = number(dataset, FRAMES) ?? 1;
  const known = ENHANCED_CT.includes(text(dataset, '00080016') ?? '');
  if (!known || per.length !== count) return [{ frame: null, metadata: dataset }];
  const shared = items(dataset, SHARED)[0] ?? {};
  const { [SHARED]: _, [PER_FRAME]: __, [FRAMES]: ___, ...common } = dataset;
  return per.map((own, at) => {
    const metadata: DicomJson = { ...common };
    for (const group of GROUPS) Object.assign(metadata, items(own, group)[0] ?? items(shared, group)[0]);
    return { frame: at + 1, metadata };
  });
}

function items(dataset: DicomJson, tag: string): DicomJson[] {
  return (dataset[tag]?.Value ?? []) as DicomJson[];
}
