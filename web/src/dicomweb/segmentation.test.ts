import { describe, expect, it } from 'vitest';
import { COLUMNS, ROWS, segmentation, threeSlices } from './results.ts';
import { readSegmentation, unpackBits } from './segmentation.ts';
import { part10 } from './writing.ts';

const SIZE = ROWS * COLUMNS;
const first = [1, 0, 0, 0, 1, 0, 0, 0, 1];
const second = [0, 1, 1, 0, 0, 0, 1, 1, 0];

describe('a segmentation', () => {
  it('puts each frame on the image that it references, whatever the order of the frames', () => {
    const seg = segmentation(
      [
        { source: '1.3', z: 11 },
        { source: '1.1', z: 0 },
      ],
      [...first, ...second],
    );
    const { bySource, elsewhere } = readSegmentation(seg, threeSlices());
    expect([...(bySource.get('1.3')?.[0]?.unpack() ?? [])]).toEqual(first);
    expect([...(bySource.get('1.1')?.[0]?.unpack() ?? [])]).toEqual(second);
    expect(bySource.get('1.1')?.[0]?.pixels).toBe(4);
    expect(bySource.has('1.2')).toBe(false);
    expect(elsewhere).toBe(0);
  });

  it('reads frames that do not start on a byte', () => {
    // Nine bits a frame: the second starts at bit 1 of byte 1.
    const packed = Uint8Array.of(0b00010001, 0b11001101, 0b00000000);
    expect([...unpackBits(packed, 1, SIZE)]).toEqual([0, 1, 1, 0, 0, 1, 1, 0, 0]);
  });

  it('keeps several segments on one image apart', () => {
    const seg = segmentation(
      [
        { source: '1.1', z: 0 },
        { source: '1.1', z: 0, segment: 2 },
      ],
      [...first, ...second],
    );
    expect(
      readSegmentation(seg, threeSlices())
        .bySource.get('1.1')
        ?.map((m) => m.segment),
    ).toEqual([1, 2]);
  });

  it('counts frames of images that are not shown instead of placing them', () => {
    const seg = segmentation(
      [
        { source: '7.7', z: 0 },
        { source: '1.1', z: 0 },
      ],
      [...first, ...second],
    );
    const { bySource, elsewhere } = readSegmentation(seg, threeSlices());
    expect([...bySource.keys()]).toEqual(['1.1']);
    expect(elsewhere).toBe(1);
  });

  const on = { source: '1.1', z: 0 };
  it.each([
    ['a position 0.01 mm away', segmentation([{ ...on, z: 0.01 }], first), 'position'],
    ['the position of its neighbour', segmentation([{ ...on, z: 4 }], first), 'position'],
    [
      'an orientation without the tilt',
      segmentation([{ ...on, orientation: [1, 0, 0, 0, 1, 0] }], first),
      'orientation',
    ],
    ['another pixel spacing', segmentation([{ ...on, spacing: 0.6 }], first), 'pixel spacing'],
    ['another number of rows', segmentation([on], first, { '00280010': ['US', [4]] }), 'rows'],
    [
      'another frame of reference',
      segmentation([on], first, { '00200052': ['UI', '1.2.8'] }),
      'frame of reference',
    ],
    ['two source images', segmentation([{ ...on, source: ['1.1', '1.2'] }], first), '2 source images'],
    ['no source image', segmentation([{ ...on, source: [] }], first), '0 source images'],
    ['two frames of one segment on one image', segmentation([on, on], [...first, ...second]), 'repeats'],
    ['more frames than it describes', segmentation([on], first, { '00280008': ['IS', '2'] }), '2 frames'],
    ['too few pixels', segmentation([on, { source: '1.2', z: 4 }], first), 'shorter'],
    ['fractional values', segmentation([on], first, { '00620001': ['CS', 'FRACTIONAL'] }), 'binary'],
    [
      'another transfer syntax',
      part10('1.2.840.10008.1.2.4.90', { '00280008': ['IS', '1'] }),
      'transfer syntax',
    ],
    ['no DICOM at all', new TextEncoder().encode('not DICOM'), 'DICOM'],
  ])('is refused with %s', (_, bytes, why) => {
    expect(() => readSegmentation(bytes, threeSlices())).toThrow(why);
  });
});
