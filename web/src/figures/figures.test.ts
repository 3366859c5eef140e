import { describe, expect, it } from 'vitest';
import { wilson } from './wilson.ts';

describe('the interval of a share', () => {
  it('is Wilson’s', () => {
    // 81 of 263: the example of R. G. Newcombe, Stat. Med. 17 (1998), table I.
    const [low, high] = wilson(81, 263) ?? [];
    expect(low).toBeCloseTo(0.2553, 4);
    expect(high).toBeCloseTo(0.3662, 4);
  });
  it('stays between 0 and 1, and says nothing of nothing', () => {
    expect(wilson(0, 20)?.[0]).toBe(0);
    expect(wilson(20, 20)?.[1]).toBe(1);
    expect(wilson(0, 0)).toBeNull();
  });
});
