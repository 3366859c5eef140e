/** What readers say of the machine's answers. */

import { json } from './client.ts';
import type { NewVerdict, Verdict } from './model.ts';

const path = (study: string) => `/api/studies/${encodeURIComponent(study)}/verdicts`;

export function getVerdicts(study: string): Promise<Verdict[]> {
  return json(path(study));
}

export function giveVerdict(study: string, verdict: NewVerdict): Promise<Verdict> {
  return json(path(study), {
    method: 'POST',
    body: JSON.stringify(verdict),
    headers: { 'Content-Type': 'application/json' },
  });
}

/** The verdict that holds for a finding, or for the whole with `null`: the latest one on this analysis. */
export function holding(verdicts: Verdict[], analysis: string, finding: string | null): Verdict | null {
  return verdicts.findLast((v) => v.analysis === analysis && v.finding === finding) ?? null;
}
