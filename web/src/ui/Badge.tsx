/** A state as a badge: a shape, a word and a colour, so that none of them is needed alone. */

import { Show } from 'solid-js';
import type { Progress, State } from '../api/model.ts';
import { messages } from './messages.ts';

const SHAPES: Record<State, string> = {
  flagged: 'M8 1.5 15 14H1z',
  uncertain: 'M8 1 15 8 8 15 1 8z',
  failed: 'M3 3l10 10M13 3 3 13',
  analysing: 'M8 2a6 6 0 1 1-6 6',
  arriving: 'M8 2v9M4 7.5 8 11.5l4-4M3 14h10',
  not_flagged: 'M2.5 8h11',
};

export function Badge(props: { state: State; progress?: Progress | null }) {
  return (
    <span class="badge" data-state={props.state}>
      <svg viewBox="0 0 16 16" aria-hidden="true">
        <path d={SHAPES[props.state]} />
      </svg>
      {messages.state[props.state] ?? props.state}
      <Show when={props.state === 'analysing' && (props.progress?.total ?? 0) > 0 && props.progress} keyed>
        {(progress) => (
          <>
            <progress max={progress.total} value={progress.done} aria-label={messages.state.analysing} />
            <span class="num">{messages.worklist.slices(progress.done, progress.total)}</span>
          </>
        )}
      </Show>
    </span>
  );
}
