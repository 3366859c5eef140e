/** One study of the worklist. */

import { onMount, Show } from 'solid-js';
import type { Study } from '../api/model.ts';
import { follow, go, studyPath } from '../router.ts';
import { Badge } from '../ui/Badge.tsx';
import {
  DASH,
  dicomDate,
  dicomTime,
  millilitres,
  moment,
  personName,
  remaining,
  since,
  unit,
} from '../ui/format.ts';
import { messages } from '../ui/messages.ts';

export function Row(props: {
  study: Study;
  /** 0 for the first of the list. */
  place: number;
  now: number;
  measure: (row: HTMLElement) => void;
}) {
  let row: HTMLTableRowElement | undefined;
  onMount(() => row && props.measure(row));
  const href = () => studyPath(props.study.study_instance_uid);
  const details = () =>
    [props.study.patient_id, dicomDate(props.study.patient_birth_date), props.study.patient_sex]
      .filter(Boolean)
      .join(' · ');
  const when = () =>
    [dicomDate(props.study.study_date), dicomTime(props.study.study_time), props.study.accession_number]
      .filter(Boolean)
      .join(' · ');
  /** Before there is an answer, a count of 0 would say more than is known. */
  const answered = () => ['flagged', 'uncertain', 'not_flagged'].includes(props.study.state);
  return (
    // The link in the row is what keyboard and screen reader use; a click anywhere else in the row is a convenience.
    <tr
      ref={row}
      data-index={props.place}
      aria-rowindex={props.place + 2}
      data-state={props.study.state}
      data-study={props.study.study_instance_uid}
      onClick={(event) => {
        if (!(event.target as HTMLElement).closest('a') && getSelection()?.isCollapsed) go(href());
      }}
    >
      <td>
        <Badge state={props.study.state} progress={props.study.progress} />
        <Show when={remaining(props.study.progress, props.now)} keyed>
          {(left) => <small>{messages.worklist.left(left)}</small>}
        </Show>
        <Show when={props.study.reading} keyed>
          {(reading) => (
            <small class="reading" data-outdated={reading.outdated}>
              {messages.review.read(reading.verdict, reading.reader, reading.outdated)}
            </small>
          )}
        </Show>
        <Show when={props.study.present.length > 0}>
          <small class="present">{messages.presence.row(props.study.present)}</small>
        </Show>
      </td>
      <td>
        <a class="patient" href={href()} onClick={follow}>
          {personName(props.study.patient_name)}
        </a>
        <small>{details()}</small>
      </td>
      <td>
        {props.study.study_description ?? ''}
        <small>{when()}</small>
        <Show when={props.study.reason} keyed>
          {(reason) => <p class="reason">{reason}</p>}
        </Show>
      </td>
      <td class="num">
        <time dateTime={props.study.arrived_at} title={moment(props.study.arrived_at)}>
          {since(props.study.arrived_at, props.now)}
        </time>
        <small>{messages.worklist.images(props.study.instance_count)}</small>
      </td>
      <td class="num">{answered() ? (props.study.findings ?? DASH) : DASH}</td>
      <td class="num">{millilitres(props.study.volume_ml)}</td>
      <td class="num">{unit(props.study.score)}</td>
      <td class="num">{unit(props.study.uncertainty)}</td>
    </tr>
  );
}
