import { describe, expect, it } from 'vitest';
import { dicomDate, dicomTime, duration, millilitres, personName, sided, since, unit } from './format.ts';
import { messages } from './messages.ts';

describe('what a reader sees', () => {
  it('is a dash where nothing is known, never 0', () => {
    expect([unit(null), millilitres(null), duration(null)]).toEqual(['–', '–', '–']);
  });
  it('has the units and digits of the quantity', () => {
    expect([unit(0.905), millilitres(28.52), millilitres(128.5), duration(950), duration(21_840)]).toEqual([
      '0.91',
      '28.5 mL',
      '129 mL',
      '0.9 s',
      '22 s',
    ]);
  });
  it('names a distance from the middle by its side', () => {
    expect([sided(4.2), sided(-11.04), sided(-0.02)]).toEqual(['4.2 mm left', '11.0 mm right', '0.0 mm']);
  });
  it('names a person by the alphabetic group', () => {
    expect(personName('YAMADA^Tarou=山田^太郎=やまだ^たろう')).toBe('YAMADA, Tarou');
    expect(personName('^^')).toBe(messages.worklist.unnamed);
    expect(personName(null)).toBe(messages.worklist.unnamed);
  });
  it('gives dates and times as DICOM means them', () => {
    expect([dicomDate('20261122'), dicomTime('231500.12'), dicomDate(null), dicomTime('')]).toEqual([
      '2026-11-22',
      '23:15',
      '',
      '',
    ]);
  });
  it('tells the time since in the largest useful unit', () => {
    const at = (minutes: number) =>
      since('2026-01-01T00:00:00Z', Date.parse('2026-01-01T00:00:00Z') + minutes * 60_000);
    expect([at(0.5), at(6), at(95), at(3000)]).toEqual(['now', '6 min', '1 h 35 min', '2 days']);
  });
  it('speaks of probability in one place only and never clears a study', () => {
    const said: string[] = [];
    const collect = (value: unknown) => {
      if (typeof value === 'string') said.push(value);
      else if (typeof value === 'object' && value !== null) Object.values(value).forEach(collect);
    };
    collect(messages);
    expect(said.length).toBeGreaterThan(100);
    expect(said.filter((text) => /probab|clear|normal study/i.test(text))).toEqual([
      messages.panel.probability,
    ]);
  });
});
