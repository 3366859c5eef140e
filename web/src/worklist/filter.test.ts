import { describe, expect, it } from 'vitest';
import type { State, Study } from '../api/model.ts';
import { filterStudies } from './filter.ts';

const study = (uid: string, patient_name: string, more: Partial<Study> = {}): Study => ({
  study_instance_uid: uid,
  patient_name,
  patient_id: null,
  patient_birth_date: null,
  patient_sex: null,
  accession_number: null,
  study_date: null,
  study_time: null,
  study_description: null,
  arrived_at: '2026-01-01T00:00:00Z',
  updated_at: '2026-01-01T00:00:00Z',
  state: 'not_flagged',
  progress: null,
  score: null,
  uncertainty: null,
  findings: null,
  volume_ml: null,
  reason: null,
  revision: null,
  series_count: 1,
  reading: null,
  instance_count: 1,
  ...more,
});
const list = [
  study('1', 'MÜLLER^Ana', { state: 'flagged', patient_id: 'P-77' }),
  study('2', 'DOE^JANE', { study_description: 'CT HEAD' }),
  study('3', 'DOE^JOHN', { state: 'flagged' }),
];
const found = (query: string, state: State | null = null) =>
  filterStudies(list, query, state).map((s) => s.study_instance_uid);

describe('the filter', () => {
  it('keeps all, in order, when nothing is asked', () => {
    expect(found('  ')).toEqual(['1', '2', '3']);
  });
  it('finds names without regard to case and accents', () => {
    expect(found('muller')).toEqual(['1']);
  });
  it('wants every word, each anywhere', () => {
    expect(found('doe ct')).toEqual(['2']);
    expect(found('doe nobody')).toEqual([]);
  });
  it('tells flagged from not flagged', () => {
    expect(found('', 'flagged')).toEqual(['1', '3']);
    expect(found('doe', 'flagged')).toEqual(['3']);
    expect(found('', 'not_flagged')).toEqual(['2']);
  });
  it('finds the ID', () => {
    expect(found('p-77')).toEqual(['1']);
  });
});
