import { describe, expect, it } from 'vitest';
import { headward, letters, stack } from './geometry.ts';
import { image } from './results.ts';

describe('a stack', () => {
  it('is ordered along the normal, whatever the instance numbers say', () => {
    const { slices } = stack([image('3', 11, 1), image('1', 0, 2), image('2', 4, 3)]);
    expect(slices.map((s) => s.key)).toEqual(['1', '2', '3']);
  });

  it('keeps uneven steps as they are', () => {
    const along = stack([image('1', 0), image('2', 4), image('3', 11)]).slices.map((s) => s.alongMm);
    // Steps of 4 and 7 mm in z are 4 and 7 times the cosine of the tilt along the normal.
    expect((along[1] ?? 0) - (along[0] ?? 0)).toBeCloseTo(4 * 0.9483237, 5);
    expect((along[2] ?? 0) - (along[1] ?? 0)).toBeCloseTo(7 * 0.9483237, 5);
  });

  it('leaves out and counts images of another orientation, of several frames and without a position', () => {
    const scout = { ...image('9', 0), '00200037': { vr: 'DS', Value: [0, 1, 0, 0, 0, -1] } };
    const multi = { ...image('8', 2), '00280008': { vr: 'IS', Value: [2] } };
    const { '00200032': _, ...lost } = image('7', 3);
    const { slices, leftOut } = stack([scout, image('1', 0), multi, image('2', 4), lost]);
    expect(slices.map((s) => s.key)).toEqual(['1', '2']);
    expect(leftOut).toBe(3);
  });

  it('refuses positions that are no numbers', () => {
    const broken = { ...image('1', 0), '00200032': { vr: 'DS', Value: [0, 'NaN', 1] } };
    expect(stack([broken]).slices).toEqual([]);
  });

  it('knows which end is nearer the head', () => {
    expect(headward(stack([image('1', 0), image('2', 4)]).slices)).toBe(1);
    const reversed = (uid: string, z: number) => ({
      ...image(uid, z),
      '00200037': { vr: 'DS', Value: [1, 0, 0, 0, -1, 0] },
    });
    expect(headward(stack([reversed('1', 0), reversed('2', 4)]).slices)).toBe(-1);
  });
});

describe('orientation letters', () => {
  it.each([
    [[1, 0, 0], 'L'],
    [[-1, 0, 0], 'R'],
    [[0, 0.948, -0.317], 'PF'],
    [[0, -0.317, 0.948], 'HA'],
    [[0.05, 0, 1], 'H'],
  ])('of %j are %s', (direction, expected) => {
    expect(letters(direction)).toBe(expected);
  });
});
