/** The worklist's filter: the state asked for, and every word in one of the texts that the row shows. */

import type { State, Study } from '../api/model.ts';
import { personName } from '../ui/format.ts';

const fold = (text: string) => text.normalize('NFKD').replace(/\p{M}/gu, '').toLowerCase();

/** The studies in the state (null: any) that hold every word of the query, in the order in which they came. */
export function filterStudies(studies: readonly Study[], query: string, state: State | null): Study[] {
  const words = fold(query).split(/\s+/).filter(Boolean);
  return studies.filter((study) => {
    const text = fold(
      [
        personName(study.patient_name),
        study.patient_name,
        study.patient_id,
        study.accession_number,
        study.study_description,
        study.study_date,
        study.reason,
      ].join(' '),
    );
    return (state === null || study.state === state) && words.every((word) => text.includes(word));
  });
}
