import { describe, expect, it } from 'vitest';
import { angleDegrees, density, lengthMm } from './measure.ts';

/** Pixels twice as high as wide. */
const grid = { pixelSpacingMm: [1, 0.5] };

describe('a measure', () => {
  it('is in millimetres, whatever the shape of the pixels', () => {
    // 6 columns are 3 mm, 4 rows 4 mm.
    expect(lengthMm(grid, [1, 1], [7, 5])).toBeCloseTo(5, 12);
    expect(lengthMm(grid, [2, 2], [2, 12])).toBeCloseTo(10, 12);
  });

  it('is the angle in the patient, not the one on the grid', () => {
    // On the grid 45°; in the patient 4 columns are 2 mm and 4 rows 4 mm.
    expect(angleDegrees(grid, [4, 0], [0, 0], [4, 4])).toBeCloseTo((Math.atan2(4, 2) * 180) / Math.PI, 12);
    expect(angleDegrees(grid, [0, 3], [0, 0], [5, 0])).toBeCloseTo(90, 12);
    expect(angleDegrees(grid, [5, 0], [0, 0], [-5, 0])).toBeCloseTo(180, 12);
    expect(angleDegrees(grid, [0, 0], [0, 0], [1, 1])).toBeNull();
  });

  it('tells mean, deviation, least, most and area of what an ellipse holds', () => {
    const values = (column: number, row: number) => 10 * row + column;
    // A box of 4 × 4 pixels leaves its four corners outside the ellipse.
    const found = density(grid, [4, 2], [8, 6], values);
    const twelve = [25, 26, 34, 35, 36, 37, 44, 45, 46, 47, 55, 56];
    expect(found?.pixels).toBe(12);
    expect(found?.mean).toBeCloseTo(40.5, 12);
    const variance = twelve.reduce((sum, v) => sum + (v - 40.5) ** 2, 0) / 12;
    expect(found?.deviation).toBeCloseTo(Math.sqrt(variance), 9);
    expect([found?.min, found?.max]).toEqual([25, 56]);
    // 4 columns are 2 mm, 4 rows 4 mm.
    expect(found?.areaMm2).toBeCloseTo(Math.PI * 1 * 2, 12);
  });

  it('counts only what is on the image, and says nothing of nothing', () => {
    const half = density(grid, [-2, 0], [2, 4], (column) => (column < 0 ? null : 7));
    expect(half).toMatchObject({ pixels: 6, mean: 7, deviation: 0 });
    expect(density(grid, [3, 3], [3, 3], () => 1)).toBeNull();
    expect(density(grid, [3, 3], [9, 9], () => null)).toBeNull();
  });
});
