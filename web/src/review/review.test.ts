import { describe, expect, it } from 'vitest';
import type { Verdict } from '../api/model.ts';
import { holding } from '../api/verdicts.ts';
import { messages } from '../ui/messages.ts';
import { facts } from './facts.ts';

const verdict = (
  id: number,
  analysis: string,
  finding: string | null,
  word: Verdict['verdict'],
): Verdict => ({
  id,
  analysis,
  finding,
  verdict: word,
  reason: null,
  note: null,
  reader: 'A. Reader',
  reader_name: 'reader',
  at: '2026-01-01T00:00:00Z',
});

describe('a verdict', () => {
  const all = [
    verdict(1, 'a', 'h-1', 'accept'),
    verdict(2, 'a', null, 'accept'),
    verdict(3, 'a', 'h-1', 'reject'),
    verdict(4, 'b', 'h-1', 'unsure'),
  ];
  it('holds as the latest one on the same analysis and finding', () => {
    expect(holding(all, 'a', 'h-1')?.id).toBe(3);
    expect(holding(all, 'a', null)?.id).toBe(2);
    expect(holding(all, 'a', 'h-2')).toBeNull();
    expect(holding(all, 'b', 'h-1')?.id).toBe(4);
  });
  it('is a sentence that never says cleared', () => {
    for (const word of ['accept', 'reject', 'unsure', 'missed'] as const) {
      for (const finding of [null, 'h-1']) {
        expect(messages.review.sentence(word, finding)).not.toMatch(/clear/i);
      }
    }
  });
});

describe('the particulars of an audit row', () => {
  it('are pairs of words, and long lists are counted', () => {
    expect(
      facts({
        note_sha256: null,
        superseded: [],
        finding: 'h-1',
        results: [1, 2],
        big: [1, 2, 3, 4, 5, 6, 7],
      }),
    ).toEqual([
      ['finding', 'h-1'],
      ['results', '1; 2'],
      ['big', '7'],
    ]);
    expect(facts([{ role: 'seg' }])).toEqual([['0', 'role seg']]);
    expect(facts('text')).toEqual([]);
  });
});
