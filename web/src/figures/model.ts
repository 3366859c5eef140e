/** What `/api/figures` says, and the address of the cases behind a number. */

import { json } from '../api/client.ts';

export interface AnswerFigure {
  models: string;
  answer: string;
  outcome: string;
  count: number;
  corrected: number;
}

export interface FindingFigure {
  model: string;
  kind: string;
  outcome: string;
  count: number;
  edited: number;
}

export interface ReasonFigure {
  model: string;
  reason: string;
  count: number;
}

export interface WeekFigure {
  week: string;
  outcome: string;
  count: number;
}

export interface Figures {
  answered: number;
  read: number;
  answers: AnswerFigure[];
  findings: FindingFigure[];
  reasons: ReasonFigure[];
  weeks: WeekFigure[];
}

export interface Case {
  study_instance_uid: string;
  patient_name: string | null;
  study_date: string | null;
  study_description: string | null;
  at: string;
}

export interface Candidate {
  study_instance_uid: string;
  patient_name: string | null;
  study_date: string | null;
  state: string;
  score: number;
  uncertainty: number;
  worth: number;
}

/** Which cases: as the query of the page's address, and of the server. */
export type Behind = Partial<
  Record<'what' | 'model' | 'value' | 'outcome' | 'reason' | 'from' | 'to', string>
>;

const NAMES = ['what', 'model', 'value', 'outcome', 'reason', 'from', 'to'] as const;

export function parseBehind(search: string): Behind {
  const values = new URLSearchParams(search);
  return Object.fromEntries(NAMES.flatMap((name) => (values.get(name) ? [[name, values.get(name)]] : [])));
}

export function formatBehind(behind: Behind): string {
  return new URLSearchParams(
    NAMES.flatMap((name) => (behind[name] ? [[name, behind[name]]] : [])),
  ).toString();
}

const span = ({ from, to }: Behind) => formatBehind({ ...(from && { from }), ...(to && { to }) });

export const getFigures = (behind: Behind) => json<Figures>(`/api/figures?${span(behind)}`);
export const getCases = (behind: Behind) => json<Case[]>(`/api/figures/cases?${formatBehind(behind)}`);
export const getLabelNext = () => json<Candidate[]>('/api/figures/label-next?limit=10');
