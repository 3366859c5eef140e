import { describe, expect, it } from 'vitest';
import { formatFilter, parseFilter } from './filter.ts';

describe('the filter', () => {
  it('comes back from the address as it went in', () => {
    for (const query of [
      '',
      'state=flagged',
      'read=false&q=doe+jane&order=newest',
      'state=failed&read=true',
    ]) {
      expect(formatFilter(parseFilter(query))).toBe(query);
    }
  });

  it('leaves out what it does not know', () => {
    expect(formatFilter(parseFilter('?state=cleared&read=maybe&order=oldest&x=1'))).toBe('');
  });

  it('does not search for blanks', () => {
    expect(formatFilter({ ...parseFilter(''), text: '  ' })).toBe('');
  });
});
