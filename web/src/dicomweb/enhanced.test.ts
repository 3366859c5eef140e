import { describe, expect, it } from 'vitest';
import { framePath } from './client.ts';
import { stack } from './geometry.ts';
import { enhanced } from './results.ts';

describe('an enhanced CT', () => {
  it('is a stack of its frames, each where its own position says', () => {
    const { slices, leftOut } = stack([enhanced('9', [11, 0, 4])]);
    expect(slices.map((s) => s.key)).toEqual(['9/frames/2', '9/frames/3', '9/frames/1']);
    expect(leftOut).toBe(0);
    expect(slices[0]?.metadata['00281053']?.Value).toEqual([1]);
  });

  it('is asked for frame by frame', () => {
    const [slice] = stack([enhanced('9', [0, 4])]).slices;
    expect(framePath('1', '2', slice?.key ?? '')).toBe('/dicom-web/studies/1/series/2/instances/9/frames/1');
    expect(framePath('1', '2', '8')).toBe('/dicom-web/studies/1/series/2/instances/8/frames/1');
  });

  it('is left out when its frames have no groups of their own', () => {
    const { '52009230': _, ...without } = enhanced('9', [0, 4]);
    expect(stack([without]).leftOut).toBe(1);
  });
});
