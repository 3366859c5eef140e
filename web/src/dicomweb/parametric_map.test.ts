import { describe, expect, it } from 'vitest';
import { readParametricMap } from './parametric_map.ts';
import { map, threeSlices } from './results.ts';
import { decodeRle16 } from './rle.ts';

const RLE = '1.2.840.10008.1.2.5';
const STORED = [0, 65535, 32768, 1, 2, 3, 255, 256, 257];

function bytes(values: number[]): Uint8Array {
  return new Uint8Array(Uint16Array.from(values).buffer);
}

/** One RLE frame, all literal: the control byte 8 stands before nine bytes. */
function rle(values: number[]): Uint8Array {
  const frame = new Uint8Array(64 + 10 + 10);
  const header = new DataView(frame.buffer);
  [2, 64, 74].forEach((n, i) => {
    header.setUint32(i * 4, n, true);
  });
  frame.set([8, ...values.map((v) => v >> 8)], 64);
  frame.set([8, ...values.map((v) => v & 255)], 74);
  return frame;
}

function at(file: Uint8Array, uid: string): number[] {
  return [...(readParametricMap(file, threeSlices()).bySource.get(uid)?.values() ?? [])];
}

describe('a parametric map', () => {
  const frames = [
    { source: '1.2', z: 4 },
    { source: '1.1', z: 0 },
  ];

  it('gives real-world values on the image that each frame references', () => {
    const file = map(frames, { '7FE00010': ['OW', bytes([...STORED, ...STORED.map(() => 65535)])] });
    STORED.forEach((stored, i) => {
      expect(at(file, '1.2')[i]).toBeCloseTo(stored / 65535, 6);
    });
    expect(at(file, '1.1')).toEqual(STORED.map(() => 1));
  });

  it('reads RLE Lossless as it reads plain pixels', () => {
    const plain = map(frames, { '7FE00010': ['OW', bytes([...STORED, ...STORED])] });
    const packed = map(frames, { '7FE00010': ['OB', [rle(STORED), rle(STORED)]] }, RLE);
    expect(at(packed, '1.2')).toEqual(at(plain, '1.2'));
    expect(at(packed, '1.1')).toEqual(at(plain, '1.1'));
  });

  it('reads float pixels', () => {
    const values = Float32Array.from([0, 0.25, 0.5, 0.75, 1, 0, 0, 0, 0]);
    const file = map([{ source: '1.1', z: 0 }], {
      '00280100': ['US', [32]],
      '52009229': ['SQ', [{ '00409096': ['SQ', [{ '00409224': ['FD', [0]], '00409225': ['FD', [1]] }]] }]],
      '7FE00008': ['OF', new Uint8Array(values.buffer)],
    });
    expect(at(file, '1.1')).toEqual([...values]);
  });

  it('is refused where a frame is not in the plane of its image', () => {
    const file = map([{ source: '1.2', z: 0 }], { '7FE00010': ['OW', bytes(STORED)] });
    expect(() => readParametricMap(file, threeSlices())).toThrow('position');
  });

  it('is refused without a real-world value mapping', () => {
    const file = map([{ source: '1.1', z: 0 }], {
      '52009229': ['SQ', [{}]],
      '7FE00010': ['OW', bytes(STORED)],
    });
    expect(() => readParametricMap(file, threeSlices())).toThrow('real-world value mapping');
  });

  it('is refused with fewer compressed frames than it describes', () => {
    const file = map(frames, { '7FE00010': ['OB', [rle(STORED)]] }, RLE);
    expect(() => readParametricMap(file, threeSlices())).toThrow('shorter');
  });
});

describe('an RLE frame', () => {
  it('repeats a byte that a run stands for', () => {
    const frame = rle(STORED).slice(0, 64);
    const header = new DataView(frame.buffer);
    header.setUint32(8, 66, true);
    // High bytes: 5 nine times; low bytes: two literal, then seven times 1, after a no-operation byte.
    const file = Uint8Array.from([...frame, 248, 5, 128, 1, 7, 8, 250, 1]);
    expect([...(decodeRle16(file, 9) ?? [])]).toEqual([0x507, 0x508, ...Array(7).fill(0x501)]);
  });

  it.each([
    ['ends early', rle(STORED).slice(0, 80)],
    ['holds more than its size', Uint8Array.from([...rle(STORED).slice(0, 64), 20, ...Array(30).fill(0)])],
    ['has no header', new Uint8Array(10)],
  ])('that %s is none', (_, frame) => {
    expect(decodeRle16(frame, 9)).toBeNull();
  });
});
