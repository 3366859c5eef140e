/** What the reader wants to see of the worklist, as it stands in the page's address and in the server's query. */

import type { State } from '../api/model.ts';

export const STATES: readonly State[] = [
  'flagged',
  'uncertain',
  'not_flagged',
  'failed',
  'analysing',
  'arriving',
];

export interface Filter {
  /** Null: any. */
  state: State | null;
  /** Null: read and unread. */
  read: boolean | null;
  /** Words, as they were typed. */
  text: string;
  order: 'urgency' | 'newest';
}

/** The filter that a query says; what it does not understand it leaves out. */
export function parseFilter(query: string): Filter {
  const values = new URLSearchParams(query);
  const read = values.get('read');
  return {
    state: STATES.find((state) => state === values.get('state')) ?? null,
    read: read === 'true' ? true : read === 'false' ? false : null,
    text: values.get('q') ?? '',
    order: values.get('order') === 'newest' ? 'newest' : 'urgency',
  };
}

/** The query of a filter, without `?`; empty for the filter that lets everything through. */
export function formatFilter(filter: Filter): string {
  const values = new URLSearchParams();
  if (filter.state !== null) values.set('state', filter.state);
  if (filter.read !== null) values.set('read', String(filter.read));
  if (filter.text.trim() !== '') values.set('q', filter.text.trim());
  if (filter.order !== 'urgency') values.set('order', filter.order);
  return values.toString();
}
