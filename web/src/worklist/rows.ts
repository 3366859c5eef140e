/**
 * The rows of the worklist that are loaded, of a list that may be much longer.
 *
 * The server orders and filters; here are the parts of its list that were looked at, with holes between them.
 */

import { createMemo, createSignal, onCleanup } from 'solid-js';
import { getWorklist, sentence } from '../api/client.ts';
import { keyWanted } from '../api/key.ts';
import type { Lanes, Study, StudyEvent } from '../api/model.ts';
import { onLive } from '../live.ts';

/** Rows are asked for in pages of so many. */
export const PAGE = 100;
/** Events come in bursts; the list is loaded once for those that fall into this time. */
const GATHER_MS = 250;

export type Rows = ReturnType<typeof createRows>;

/** The rows that the query lets through; `query` is what `formatFilter` writes. */
export function createRows(query: () => string) {
  const [rows, setRows] = createSignal<readonly (Study | undefined)[]>([]);
  const [lanes, setLanes] = createSignal<Lanes | null>(null);
  const [trouble, setTrouble] = createSignal<string | null>(null);
  const [loadedAt, setLoadedAt] = createSignal<number | null>(null);
  let wanted = { start: 0, end: PAGE };
  let loads = 0;
  let gathering: ReturnType<typeof setTimeout> | undefined;
  onCleanup(() => clearTimeout(gathering));

  /** Loads what is in sight: into the holes, or (`anew`) as the only part of a list that may have changed. */
  const load = async (anew: boolean) => {
    const mine = ++loads;
    const { start, end } = wanted;
    try {
      const { studies, total, lanes } = await getWorklist(query(), start, end - start);
      // An answer that was overtaken by a later request is old.
      if (mine !== loads) return;
      setRows((old) => {
        const next: (Study | undefined)[] = new Array(total).fill(undefined);
        if (!anew && old.length === total) for (let i = 0; i < total; i++) next[i] = old[i];
        studies.forEach((study, i) => {
          next[start + i] = study;
        });
        return next;
      });
      setLanes(lanes);
      setLoadedAt(Date.now());
      setTrouble(null);
    } catch (error) {
      if (mine === loads) setTrouble(keyWanted() ? null : sentence(error));
    }
  };

  /** Tells which rows are in sight; loads those that are not there. */
  const look = (first: number, last: number) => {
    const missing = rows()
      .slice(first, last + 1)
      .some((study) => study === undefined);
    const start = Math.floor(first / PAGE) * PAGE;
    const end = Math.ceil((last + 1) / PAGE) * PAGE;
    if (start === wanted.start && end === wanted.end) return;
    wanted = { start, end };
    if (missing) void load(false);
  };

  onLive((event: StudyEvent | 'reload') => {
    const at = event === 'reload' ? undefined : placeOf().get(event.study_instance_uid);
    const study = at === undefined ? undefined : rows()[at];
    // Progress alone changes neither the order nor anything else in the row.
    if (event !== 'reload' && study !== undefined && study.state === event.state && event.progress) {
      setRows((old) => old.map((row) => (row === study ? { ...study, progress: event.progress } : row)));
      return;
    }
    clearTimeout(gathering);
    gathering = setTimeout(() => load(true), GATHER_MS);
  });

  /** Where each loaded study stands. */
  const placeOf = createMemo(() => {
    const places = new Map<string, number>();
    rows().forEach((study, i) => study && places.set(study.study_instance_uid, i));
    return places;
  });

  return {
    rows,
    lanes,
    trouble,
    loadedAt,
    placeOf,
    look,
    /** The list from its start: of another query, or tried again. */
    restart: () => {
      wanted = { start: 0, end: PAGE };
      return load(true);
    },
  };
}
