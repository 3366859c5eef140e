/** Slices and the SEG and Parametric Map on them, for tests only. */

import { type Slice, stack } from './geometry.ts';
import type { DicomJson } from './json.ts';
import { type Dataset, part10 } from './writing.ts';

export const ROWS = 3;
export const COLUMNS = 3;
export const ORIENTATION = [1, 0, 0, 0, 0.9483237, -0.3173047];

/** Metadata of one image of a tilted stack. */
export function image(uid: string, z: number, instanceNumber = 1): DicomJson {
  return {
    '00080018': { vr: 'UI', Value: [uid] },
    '00180050': { vr: 'DS', Value: [4] },
    '00200013': { vr: 'IS', Value: [instanceNumber] },
    '00200032': { vr: 'DS', Value: [-10, -20, z] },
    '00200037': { vr: 'DS', Value: ORIENTATION },
    '00200052': { vr: 'UI', Value: ['1.2.9'] },
    '00280010': { vr: 'US', Value: [ROWS] },
    '00280011': { vr: 'US', Value: [COLUMNS] },
    '00280030': { vr: 'DS', Value: [0.5, 0.5] },
  };
}

/** Metadata of an enhanced CT whose frames lie at these places. */
export function enhanced(uid: string, places: number[]): DicomJson {
  const of = ({ '00200032': position }: DicomJson): DicomJson => ({
    '00209113': { vr: 'SQ', Value: [{ '00200032': position }] },
  });
  const { '00200032': _, '00200037': orientation, '00280030': spacing, ...common } = image(uid, 0);
  return {
    ...common,
    '00080016': { vr: 'UI', Value: ['1.2.840.10008.5.1.4.1.1.2.1'] },
    '00280008': { vr: 'IS', Value: [places.length] },
    '52009229': {
      vr: 'SQ',
      Value: [
        {
          '00209116': { vr: 'SQ', Value: [{ '00200037': orientation }] },
          '00289110': { vr: 'SQ', Value: [{ '00280030': spacing }] },
          '00289145': { vr: 'SQ', Value: [{ '00281053': { vr: 'DS', Value: [1] } }] },
        },
      ],
    },
    '52009230': { vr: 'SQ', Value: places.map((z) => of(image(uid, z))) },
  };
}

/** Three slices, unevenly spaced. */
export function threeSlices(): Slice[] {
  return stack([image('1.1', 0), image('1.2', 4), image('1.3', 11)]).slices;
}

/** How a frame is to differ from one that lies on its source. */
export interface Frame {
  source: string | string[];
  z: number;
  segment?: number;
  orientation?: number[];
  spacing?: number;
}

function groups(frame: Frame): Dataset {
  const sources = [frame.source].flat();
  return {
    '00089124': [
      'SQ',
      [{ '00082112': ['SQ', sources.map((uid): Dataset => ({ '00081155': ['UI', uid] }))] }],
    ],
    '00209113': ['SQ', [{ '00200032': ['DS', `-10\\-20\\${frame.z}`] }]],
    '00209116': ['SQ', [{ '00200037': ['DS', (frame.orientation ?? ORIENTATION).join('\\')] }]],
    '00289110': ['SQ', [{ '00280030': ['DS', `${frame.spacing ?? 0.5}\\${frame.spacing ?? 0.5}`] }]],
    '0062000A': ['SQ', [{ '0062000B': ['US', [frame.segment ?? 1]] }]],
  };
}

function common(frames: Frame[], changes: Dataset): Dataset {
  return {
    '00200052': ['UI', '1.2.9'],
    '00280008': ['IS', String(frames.length)],
    '00280010': ['US', [ROWS]],
    '00280011': ['US', [COLUMNS]],
    '52009230': ['SQ', frames.map(groups)],
    ...changes,
  };
}

/** A binary SEG; bits as one list over all frames. */
export function segmentation(frames: Frame[], bits: number[], changes: Dataset = {}): Uint8Array {
  const bytes = new Uint8Array(Math.ceil(bits.length / 8));
  bits.forEach((bit, i) => {
    bytes[i >> 3] = (bytes[i >> 3] ?? 0) | (bit << (i & 7));
  });
  return part10(
    '1.2.840.10008.1.2.1',
    common(frames, {
      '00080016': ['UI', '1.2.840.10008.5.1.4.1.1.66.4'],
      '00280100': ['US', [1]],
      '00620001': ['CS', 'BINARY'],
      '7FE00010': ['OB', bytes],
      ...changes,
    }),
  );
}

/** A 16-bit map whose values run from 0 to 1. */
export function map(
  frames: Frame[],
  changes: Dataset,
  transferSyntaxUid = '1.2.840.10008.1.2.1',
): Uint8Array {
  return part10(
    transferSyntaxUid,
    common(frames, {
      '00080016': ['UI', '1.2.840.10008.5.1.4.1.1.30'],
      '00280100': ['US', [16]],
      '00280103': ['US', [0]],
      '52009229': [
        'SQ',
        [{ '00409096': ['SQ', [{ '00409224': ['FD', [0]], '00409225': ['FD', [1 / 65535]] }]] }],
      ],
      ...changes,
    }),
  );
}
