/**
 * What the server says, in its own words (`/api/openapi.json`).
 *
 * What is not known is `null`, never 0.
 */

export type State = 'arriving' | 'analysing' | 'flagged' | 'not_flagged' | 'uncertain' | 'failed';

export interface Progress {
  done: number;
  /** 0 until the worker knows. */
  total: number;
  /** When it began. */
  since: string;
}

/** A row of the worklist. */
export interface Study {
  study_instance_uid: string;
  patient_name: string | null;
  patient_id: string | null;
  patient_birth_date: string | null;
  patient_sex: string | null;
  accession_number: string | null;
  study_date: string | null;
  study_time: string | null;
  study_description: string | null;
  arrived_at: string;
  updated_at: string;
  state: State;
  progress: Progress | null;
  score: number | null;
  uncertainty: number | null;
  findings: number | null;
  volume_ml: number | null;
  reason: string | null;
  revision: number | null;
  series_count: number;
  instance_count: number;
  /** The latest verdict on the study as a whole; null until somebody gave one. */
  reading: Reading | null;
  /** Who has it open now. */
  present: string[];
}

export type Word = 'accept' | 'reject' | 'unsure' | 'missed';

export interface Reading {
  verdict: Word;
  reader: string;
  at: string;
  /** Whether the answer was revised since. */
  outdated: boolean;
}

/** Who sends our requests. */
export interface Who {
  name: string;
  display_name: string;
  role: string;
  /** Whether it is a person who signed in. */
  person: boolean;
}

export interface NewVerdict {
  analysis: string;
  finding: string | null;
  verdict: Word;
  reason: string | null;
  note: string | null;
}

export interface Verdict extends NewVerdict {
  id: number;
  reader: string;
  reader_name: string;
  at: string;
}

/** First pixel and number of pixels of each run on an image, row by row, ascending. */
export interface SliceRuns {
  sop_instance_uid: string;
  /** Of an image with several. */
  frame?: number;
  runs: number[];
}

export interface NewCorrection {
  analysis: string;
  kind: string;
  /** Whether it began with the machine's mask. */
  edited: boolean;
  slices: SliceRuns[];
}

/** A mask that a reader drew. */
export interface Correction extends ObjectReference {
  id: number;
  analysis: string;
  kind: string;
  edited: boolean;
  regions: { segment: number; volume_ml: number; side: string; key_slice: number }[];
  reader: string;
  reader_name: string | null;
  at: string;
}

/** A row of the audit trail. */
export interface AuditEntry {
  seq: number;
  at: string;
  principal: string;
  act: string;
  detail: unknown;
  hash: string;
  prev_hash: string;
}

/** Studies by where they stand, whatever the filter. */
export interface Lanes {
  flagged: number;
  uncertain: number;
  other: number;
  read: number;
}

export interface Worklist {
  studies: Study[];
  /** Studies that the filter lets through. */
  total: number;
  lanes: Lanes;
}

/** A filter of the worklist under a name. */
export interface SavedView {
  name: string;
  query: string;
}

export interface Series {
  series_instance_uid: string;
  modality: string | null;
  series_number: number | null;
  series_description: string | null;
  instance_count: number;
  origin: string;
  /** Whether the current analysis used it; null before there is one. */
  chosen: boolean | null;
  reason: string | null;
}

/** A result object in the archive. */
export interface ObjectReference {
  series_instance_uid: string;
  sop_instance_uid: string;
}

export type Side = 'left' | 'right' | 'midline' | 'bilateral' | 'unknown';

export interface Code {
  value: string;
  scheme: string;
  meaning: string;
}

export interface Finding {
  id: string;
  kind: string;
  code: Code;
  model: string;
  series: string;
  /** Segment Number in the SEG, from 1. */
  segment: number;
  volume_ml: number;
  /** Absent in the results of older versions. */
  abc2_ml?: number | null;
  volume_interval_ml: [number, number] | null;
  /** LPS mm. */
  center_mm: [number, number, number];
  side: Side;
  site: Code | null;
  score: number;
  /** Null until the model is calibrated. */
  probability: number | null;
  uncertainty: number;
  /** Index of the slice, along the normal, from 0. */
  key_slice: number;
}

export interface Answer {
  question: string;
  model: string | null;
  answer: 'present' | 'absent' | 'uncertain' | 'not_evaluated';
  score: number | null;
  /** Null until the model is calibrated. */
  probability: number | null;
  uncertainty: number | null;
}

export interface ModelRun {
  id: string;
  version: string;
  weights_sha256: string;
  numeric_mode: string;
  duration_ms: number;
  /** On what its probabilities and thresholds rest; null or absent where it is not calibrated. */
  calibration?: string | null;
}

export interface Refusal {
  code: string;
  text: string;
}

/** ASPECTS of one side. */
export interface AspectsSide {
  score: number;
  range: [number, number];
  /** All ten. */
  regions: { region: string; volume_ml: number; affected_share: number; affected: boolean }[];
}

/** `findings.json`, as far as the page reads it. */
export interface Report {
  disclaimer: string;
  series: { uid: string; origin: string; chosen: boolean; reason: string }[];
  models: ModelRun[];
  answers: Answer[];
  findings: Finding[];
  /** Towards the patient's left; null where it was not to be seen, absent in the results of older versions. */
  midline_shift?: { series: string; left_mm: number; interval_mm: [number, number] } | null;
  /** Null where no side was scored, absent in the results of older versions; a side is null where a region of it was not seen. */
  aspects?: { series: string; model: string; left: AspectsSide | null; right: AspectsSide | null } | null;
  refusals: Refusal[];
  warnings: Refusal[];
  /** Milliseconds a stage. */
  timings: Record<string, number>;
}

export interface Analysis {
  id: string;
  revision: number;
  superseded: boolean;
  created_at: string;
  duration_ms: number | null;
  waited_ms: number | null;
  report: Report;
  /** The results of each model that ran. */
  objects: ResultObject[];
}

export interface ResultObject extends ObjectReference {
  role: string;
  /** The question that it answers; null when it cannot be told. */
  question: string | null;
  /** The series of the images that it lies on; null for what lies on none. */
  source_series: string | null;
  /** Which quantity a map shows. */
  content_label: string | null;
}

export interface Revision {
  id: string;
  revision: number;
  created_at: string;
  superseded: boolean;
}

export interface StudyDetail extends Study {
  series: Series[];
  analysis: Analysis | null;
  revisions: Revision[];
  /** Other studies of the patient with CT images, the latest first. */
  comparisons: Comparison[];
}

export interface Comparison {
  study_instance_uid: string;
  study_date: string | null;
  study_time: string | null;
  study_description: string | null;
}

export interface Version {
  version: string;
  models: { id: string; version: string; weights_sha256: string }[];
  numeric_mode: string | null;
  disclaimer: string;
}

/** An event of `/api/events`. */
export interface StudyEvent {
  study_instance_uid: string;
  state: State;
  progress: Progress | null;
}
