/** What the analysis said, beside the slices. */

import { For, type JSX, Show } from 'solid-js';
import type { Analysis, Answer, AspectsSide, Finding, Report, StudyDetail } from '../api/model.ts';
import { Corrections } from '../review/Corrections.tsx';
import type { Desk } from '../review/desk.ts';
import type { Masks } from '../review/masks.ts';
import { VerdictButtons, Verdicts } from '../review/Verdicts.tsx';
import { duration, kind, millilitres, moment, sided, unit } from '../ui/format.ts';
import { messages } from '../ui/messages.ts';
import { MeasureList } from './Measures.tsx';
import { css } from './palette.ts';
import type { Session } from './session.ts';

const { panel } = messages;

interface Props {
  study: StudyDetail;
  session: Session;
  desk: Desk;
  masks: Masks;
  leftOut: number;
  imageTrouble: string | null;
  onPick: (series: string) => void;
}

export function Panel(props: Props) {
  return (
    <aside class="panel" aria-label={panel.label}>
      <Show when={props.study.analysis} keyed fallback={<NoAnalysis study={props.study} />}>
        {(analysis) => (
          <>
            <Show when={analysis.superseded}>
              <p class="notice">{messages.study.superseded}</p>
            </Show>
            <Answers analysis={analysis} />
            <Findings analysis={analysis} session={props.session} desk={props.desk} />
            <Verdicts desk={props.desk} />
            <Corrections masks={props.masks} drawing={props.session.pencil.drawing() !== null} />
          </>
        )}
      </Show>
      <MeasureList session={props.session} />
      <Notices {...props} />
      <SeriesList study={props.study} session={props.session} onPick={props.onPick} />
      <Show when={props.study.analysis} keyed>
        {(analysis) => (
          <>
            <Models analysis={analysis} />
            <Timings analysis={analysis} />
          </>
        )}
      </Show>
    </aside>
  );
}

function Part(props: { title: string; children: JSX.Element; name: string }) {
  return (
    <section data-part={props.name}>
      <h2>{props.title}</h2>
      {props.children}
    </section>
  );
}

function NoAnalysis(props: { study: StudyDetail }) {
  const sentence = () => {
    const { state } = props.study;
    const said = messages.study.noAnalysis;
    return state === 'arriving' || state === 'analysing' || state === 'failed' ? said[state] : said.other;
  };
  return (
    <Part title={panel.answers} name="answers">
      <p>{sentence()}</p>
      <Show when={props.study.reason} keyed>
        {(reason) => <p class="notice">{reason}</p>}
      </Show>
    </Part>
  );
}

function Answers(props: { analysis: Analysis }) {
  const calibration = (answer: Answer) =>
    props.analysis.report.models.find(({ id }) => id === answer.model)?.calibration;
  return (
    <Part title={panel.answers} name="answers">
      <For each={props.analysis.report.answers}>
        {(answer) => (
          <div class="answer" data-answer={answer.answer}>
            <p>
              <span class="what">{kind(answer.question)}</span>
              <strong>{panel.answer[answer.answer] ?? answer.answer}</strong>
            </p>
            <dl>
              <dt>{panel.score}</dt>
              <dd class="num">
                {unit(answer.score)} <small>{panel.notCalibrated}</small>
              </dd>
              <Show when={answer.probability !== null}>
                <dt>{panel.probability}</dt>
                <dd class="num" data-probability={answer.probability}>
                  {unit(answer.probability)}
                </dd>
              </Show>
              <dt>{panel.uncertainty}</dt>
              <dd class="num">{unit(answer.uncertainty)}</dd>
            </dl>
            <Show when={calibration(answer)} keyed>
              {(on) => <p class="dim">{panel.calibratedOn(on)}</p>}
            </Show>
          </div>
        )}
      </For>
      {/* Older versions did not look for it. */}
      <Show when={props.analysis.report.midline_shift !== undefined}>
        <dl class="table" data-midline-shift={props.analysis.report.midline_shift?.left_mm ?? ''}>
          <dt>{panel.midlineShift}</dt>
          <dd class="num">
            <Show when={props.analysis.report.midline_shift} keyed fallback={panel.midlineUnknown}>
              {midlineShift}
            </Show>
          </dd>
        </dl>
      </Show>
      <Show when={props.analysis.report.aspects}>
        <p class="dim">{panel.aspectsNote}</p>
      </Show>
      <For each={['left', 'right'] as const}>
        {(side) => (
          <Show when={props.analysis.report.aspects?.[side]} keyed>
            {(reading) => (
              <dl class="table" data-aspects={`${side} ${reading.score}`}>
                <dt>{panel.aspectsOf(panel.sides[side])}</dt>
                <dd class="num">
                  {reading.score} <small>{panel.aspectsBetween(...reading.range)}</small>
                </dd>
                <dt>{panel.aspectsAffected}</dt>
                <dd>{affected(reading)}</dd>
              </dl>
            )}
          </Show>
        )}
      </For>
    </Part>
  );
}

/** The regions of which enough is affected, as readers abbreviate them. */
function affected({ regions }: AspectsSide) {
  const names = regions.filter((r) => r.affected).map((r) => panel.aspectsRegions[r.region] ?? r.region);
  return names.length > 0 ? names.join(', ') : panel.aspectsNone;
}

/** How far to which side, and between what; the end nearer to the middle first. */
function midlineShift({ left_mm, interval_mm: [low, high] }: NonNullable<Report['midline_shift']>) {
  const [from, to] = left_mm < 0 ? [high, low] : [low, high];
  return (
    <>
      {sided(left_mm)} <small>{panel.midlineBetween(sided(from), sided(to))}</small>
    </>
  );
}

function Findings(props: { analysis: Analysis; session: Session; desk: Desk }) {
  const evaluated = () => props.analysis.report.answers.some(({ answer }) => answer !== 'not_evaluated');
  return (
    <Part title={panel.findings} name="findings">
      <Show
        when={props.session.findings().length > 0}
        fallback={
          <Show when={evaluated()} fallback={<p>{panel.notEvaluated}</p>}>
            <p>
              {panel.none} <span class="dim">{panel.noneNote}</span>
            </p>
          </Show>
        }
      >
        <ul class="findings">
          <For each={props.session.findings()}>
            {(finding) => (
              <li>
                <FindingButton finding={finding} session={props.session} />
                <VerdictButtons desk={props.desk} finding={finding.id} label={finding.id} />
              </li>
            )}
          </For>
        </ul>
        <p class="dim">{panel.scoreNote}</p>
      </Show>
    </Part>
  );
}

function FindingButton(props: { finding: Finding; session: Session }) {
  const slice = () => props.session.sliceOf(props.finding);
  return (
    <button
      type="button"
      class="finding"
      data-finding={props.finding.id}
      data-slice={slice() ?? ''}
      aria-pressed={props.session.chosenFinding()?.id === props.finding.id}
      style={{ 'border-inline-start-color': css(props.session.colour(props.finding)) }}
      onClick={() => props.session.jump(props.finding)}
    >
      <span class="line">
        <strong>{kind(props.finding.kind)}</strong>
        <span class="num volume">{millilitres(props.finding.volume_ml)}</span>
      </span>
      <span class="facts num">
        <span>
          {panel.side} <b>{panel.sides[props.finding.side] ?? props.finding.side}</b>
        </span>
        <span>
          {panel.score} <b>{unit(props.finding.score)}</b> {panel.notCalibrated}
        </span>
        <Show when={props.finding.probability !== null}>
          <span>
            {panel.probability} <b>{unit(props.finding.probability)}</b>
          </span>
        </Show>
        <span>
          {panel.uncertainty} <b>{unit(props.finding.uncertainty)}</b>
        </span>
        <Show when={props.finding.volume_interval_ml} keyed>
          {([low, high]) => (
            <span>
              {panel.interval} <b>{panel.between(millilitres(low), millilitres(high))}</b>
            </span>
          )}
        </Show>
        <span>
          {panel.keySliceLabel}{' '}
          <b>
            {props.finding.series !== props.session.series()
              ? panel.otherSeries
              : slice() === null
                ? panel.noSlice
                : panel.keySlice((slice() ?? 0) + 1)}
          </b>
        </span>
      </span>
    </button>
  );
}

function Notices(props: Props) {
  const all = () => {
    const report = props.study.analysis?.report;
    const notices = [
      ...(report?.refusals ?? []).map(({ code, text }) => ({ label: panel.refusal, code, text })),
      ...props.session.overlays().refused.map((text) => ({ label: panel.overlay, code: '', text })),
      ...(report?.warnings ?? []).map(({ code, text }) => ({ label: panel.warning, code, text })),
    ];
    if (props.leftOut > 0) {
      notices.push({ label: panel.warning, code: '', text: messages.study.leftOut(props.leftOut) });
    }
    if (props.imageTrouble !== null)
      notices.push({ label: panel.warning, code: '', text: props.imageTrouble });
    return notices;
  };
  return (
    <Show when={all().length > 0}>
      <Part title={panel.warnings} name="warnings">
        <ul class="notices">
          <For each={all()}>
            {({ label, code, text }) => (
              <li class="notice">
                <strong>{label}</strong>{' '}
                <Show when={code !== ''}>
                  <code>{code}</code>{' '}
                </Show>
                {text}
              </li>
            )}
          </For>
        </ul>
      </Part>
    </Show>
  );
}

function SeriesList(props: { study: StudyDetail; session: Session; onPick: (series: string) => void }) {
  return (
    <Part title={panel.series} name="series">
      <ul class="series">
        <For each={props.study.series}>
          {(series) => {
            const isShown = () => series.series_instance_uid === props.session.series();
            const canShow = () => series.modality === 'CT' && series.origin === 'received' && !isShown();
            return (
              <li>
                <p class="line">
                  <span>
                    <b class="num">{series.series_number ?? ''}</b> {series.modality ?? ''}{' '}
                    {series.series_description ?? ''}
                  </span>
                  <Show when={isShown()}>
                    <span class="tag">{panel.shown}</span>
                  </Show>
                  <Show when={series.origin === 'received' && series.chosen !== null}>
                    <span class="tag" data-on={series.chosen === true}>
                      {series.chosen ? panel.chosen : panel.notChosen}
                    </span>
                  </Show>
                  <Show when={canShow()}>
                    <button
                      type="button"
                      class="small"
                      aria-label={`${panel.show} ${series.series_description ?? series.series_number ?? ''}`}
                      onClick={() => props.onPick(series.series_instance_uid)}
                    >
                      {panel.show}
                    </button>
                  </Show>
                </p>
                <p class="dim">
                  {messages.worklist.images(series.instance_count)}
                  <Show when={series.reason} keyed>
                    {(reason) => <> · {reason}</>}
                  </Show>
                </p>
              </li>
            );
          }}
        </For>
      </ul>
    </Part>
  );
}

function Models(props: { analysis: Analysis }) {
  return (
    <Part title={panel.models} name="models">
      <For each={props.analysis.report.models}>
        {(model) => (
          <dl class="table">
            <dt>{model.id}</dt>
            <dd class="num">
              {panel.version} {model.version}
            </dd>
            <dt>{panel.weights}</dt>
            <dd>
              <code title={model.weights_sha256}>sha256 {model.weights_sha256.slice(0, 16)}…</code>
            </dd>
            <dt>{panel.mode}</dt>
            <dd>
              <code>{model.numeric_mode}</code>
            </dd>
            <dt>{panel.inference}</dt>
            <dd class="num">{duration(model.duration_ms)}</dd>
          </dl>
        )}
      </For>
    </Part>
  );
}

function Timings(props: { analysis: Analysis }) {
  return (
    <Part title={panel.timings} name="timings">
      <dl class="table">
        <dt>{panel.waited}</dt>
        <dd class="num">{duration(props.analysis.waited_ms)}</dd>
        <dt>{panel.total}</dt>
        <dd class="num">{duration(props.analysis.duration_ms)}</dd>
        <For each={Object.entries(props.analysis.report.timings)}>
          {([stage, ms]) => (
            <>
              <dt class="sub">{panel.stages[stage] ?? stage}</dt>
              <dd class="num">{duration(ms)}</dd>
            </>
          )}
        </For>
      </dl>
      <p class="dim num">
        {messages.study.revision(props.analysis.revision)} · {panel.made(moment(props.analysis.created_at))}
      </p>
    </Part>
  );
}
