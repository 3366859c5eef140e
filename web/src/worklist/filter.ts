/** The worklist's filter: every word must be in one of the texts that the row shows. */

import type { Study } from '../api/model.ts';
import { personName } from '../ui/format.ts';
import { messages } from '../ui/messages.ts';

const fold = (text: string) => text.normalize('NFKD').replace(/\p{M}/gu, '').toLowerCase();

/** The studies that hold every word of the query, in the order in which they came. */
export function filterStudies(studies: readonly Study[], query: string): Study[] {
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
        messages.state[study.state],
        study.reason,
      ].join(' '),
    );
    return words.every((word) => text.includes(word));
  });
}
