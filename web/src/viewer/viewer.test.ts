import { describe, expect, it } from 'vitest';
import { threeSlices } from '../dicomweb/results.ts';
import { atDepth, depthMm } from './depth.ts';
import { outline } from './outline.ts';
import { findingCm2, keySlice, NO_OVERLAYS, type Overlays } from './overlays.ts';
import { structureColour, uncertaintyAlpha, uncertaintyColour } from './palette.ts';

const mask = (segment: number, pixels: number) => ({
  segment,
  name: '',
  rows: 3,
  columns: 3,
  pixels,
  unpack: () => new Uint8Array(9),
});
const overlays: Overlays = {
  ...NO_OVERLAYS,
  masks: new Map([
    ['1.1', [mask(1, 2), mask(2, 1)]],
    ['1.3', [mask(1, 6)]],
  ]),
};

describe('the key slice', () => {
  it('is the one with most of the segment', () => {
    expect(keySlice(overlays, threeSlices(), 1)).toBe(2);
    expect(keySlice(overlays, threeSlices(), 2)).toBe(0);
  });
  it('is none where the mask has none of it', () => {
    expect(keySlice(overlays, threeSlices(), 3)).toBeNull();
  });
});

describe('slices of two studies', () => {
  /** Slices at 0, 4 and 11 mm along a normal that points to the head. */
  const slices = threeSlices();
  const top = depthMm(slices, 2);
  it('are matched by their distance from the uppermost', () => {
    expect(top).toBe(0);
    expect(depthMm(slices, 1)).toBeCloseTo(7 * 0.9483237, 3);
    expect([0, 3, 4, 8, 9, 50].map((mm) => atDepth(slices, mm))).toEqual([2, 2, 1, 1, 0, 0]);
  });
});

describe('the strip', () => {
  it('measures findings in cm²', () => {
    const [first, second] = threeSlices();
    // Three pixels of 0.5 × 0.5 mm.
    expect(first && findingCm2(overlays, first)).toBeCloseTo(0.0075, 9);
    expect(second && findingCm2(overlays, second)).toBe(0);
  });
});

describe('an outline', () => {
  it('goes round a block in its longest straight pieces', () => {
    const block = Uint8Array.of(0, 0, 0, 0, 1, 1, 0, 1, 1);
    expect(outline(block, 3, 3).sort()).toEqual(
      [
        [1, 1, 3, 1],
        [1, 3, 3, 3],
        [1, 1, 1, 3],
        [3, 1, 3, 3],
      ].sort(),
    );
  });
  it('is nothing round nothing', () => {
    expect(outline(new Uint8Array(9), 3, 3)).toEqual([]);
  });
});

describe('the colours of uncertainty', () => {
  it('grow lighter with the value', () => {
    const lightness = (v: number) => {
      const [r, g, b] = uncertaintyColour(v);
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    for (let v = 0; v < 0.95; v += 0.05) expect(lightness(v + 0.05)).toBeGreaterThan(lightness(v));
  });
  it('draw nothing where the members agree', () => {
    expect([uncertaintyAlpha(0), uncertaintyAlpha(0.05), uncertaintyAlpha(0.9)]).toEqual([0, 0, 1]);
  });
});

describe('the colours of structures', () => {
  it('are one a region of ASPECTS, one an artery, and the same whatever else is seen', () => {
    const regions = [
      'caudate',
      'lentiform',
      'internal_capsule',
      'insula',
      'm1',
      'm2',
      'm3',
      'm4',
      'm5',
      'm6',
    ];
    const arteries = [
      'internal_carotid',
      'm1',
      'm2',
      'anterior_cerebral',
      'posterior_cerebral',
      'basilar',
      'vertebral',
    ];
    for (const names of [regions, arteries]) {
      const colours = names.map((name) => structureColour(name, 1).join());
      expect(new Set(colours).size).toBe(names.length);
      expect(names.map((name) => structureColour(name, 7).join())).toEqual(colours);
    }
    expect(structureColour('liver', 1)).not.toEqual(structureColour('liver', 2));
  });
});
