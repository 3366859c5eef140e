/** `/figures`: how the machine did against its readers so far, each number leading to its cases, and what to label next. */

import { createMemo, createResource, For, type JSX, Show } from 'solid-js';
import { sentence } from '../api/client.ts';
import { keyVersion } from '../api/key.ts';
import type { State } from '../api/model.ts';
import { figuresPath, follow, go, search, studyPath, worklistPath } from '../router.ts';
import { Badge } from '../ui/Badge.tsx';
import { dicomDate, kind, moment, personName, unit } from '../ui/format.ts';
import { messages } from '../ui/messages.ts';
import { Trouble } from '../ui/Trouble.tsx';
import { type Bar, Chart } from './Chart.tsx';
import {
  type Behind,
  type Figures,
  formatBehind,
  getCases,
  getFigures,
  getLabelNext,
  parseBehind,
} from './model.ts';
import { wilson } from './wilson.ts';

const said = messages.figures;
const percent = (share: number) => `${(100 * share).toFixed(0)} %`;

export default function FiguresPage() {
  document.title = `${said.title} · ${messages.title}`;
  const behind = createMemo(() => parseBehind(search()));
  const days = createMemo(() => `${behind().from ?? ''}/${behind().to ?? ''}`);
  const [figures, { refetch }] = createResource(
    () => [days(), keyVersion()] as const,
    () => getFigures(behind()),
  );
  const [next] = createResource(keyVersion, getLabelNext);
  const span = (): Behind => {
    const { from, to } = behind();
    return { ...(from && { from }), ...(to && { to }) };
  };
  const to = (more: Behind) => figuresPath(formatBehind({ ...span(), ...more }));
  const setDay = (which: 'from' | 'to') => (event: { currentTarget: HTMLInputElement }) => {
    const { [which]: _, ...rest } = span();
    const day = event.currentTarget.value;
    go(figuresPath(formatBehind(day === '' ? rest : { ...rest, [which]: day })));
  };
  return (
    <div class="figures">
      <p>
        <a class="back" href={worklistPath()} onClick={follow}>
          <span aria-hidden="true">‹ </span>
          {messages.study.back}
        </a>
      </p>
      <h1>{said.title}</h1>
      <p>{said.explain}</p>
      <p class="days">
        <label>
          {said.from} <input type="date" value={behind().from ?? ''} onChange={setDay('from')} />
        </label>
        <label>
          {said.to} <input type="date" value={behind().to ?? ''} onChange={setDay('to')} />
        </label>
      </p>
      <Show when={behind().what} keyed>
        <Cases behind={behind()} close={figuresPath(formatBehind(span()))} />
      </Show>
      <Show when={figures.error as unknown} keyed>
        {(error) => <Trouble text={sentence(error)} retry={() => void refetch()} />}
      </Show>
      <Show when={!figures.error && figures.latest} keyed>
        {(known) => <Known figures={known} to={to} />}
      </Show>
      <section aria-labelledby="label-next">
        <h2 id="label-next">{said.next.title}</h2>
        <p class="dim">{said.next.explain}</p>
        <Show when={!next.error && next()} keyed>
          {(candidates) => (
            <Show when={candidates.length > 0} fallback={<p>{said.next.none}</p>}>
              <Table
                titles={[said.study, said.date, said.state, said.score, said.uncertainty, said.next.worth]}
              >
                <For each={candidates}>
                  {(one) => (
                    <tr data-candidate={one.study_instance_uid}>
                      <td>
                        <a href={studyPath(one.study_instance_uid)} onClick={follow}>
                          {personName(one.patient_name)}
                        </a>
                      </td>
                      <td class="num">{dicomDate(one.study_date)}</td>
                      <td>
                        <Badge state={one.state as State} />
                      </td>
                      <td class="num">{unit(one.score)}</td>
                      <td class="num">{unit(one.uncertainty)}</td>
                      <td class="num">{unit(one.worth)}</td>
                    </tr>
                  )}
                </For>
              </Table>
            </Show>
          )}
        </Show>
      </section>
    </div>
  );
}

const total = (all: readonly { count: number }[]) => all.reduce((sum, { count }) => sum + count, 0);

/** One bar for those of several models with one name and outcome. */
function together(bars: readonly Bar[]): Bar[] {
  const all = new Map<string, Bar>();
  for (const bar of bars) {
    const key = `${bar.name}/${bar.outcome}`;
    all.set(key, { ...bar, count: bar.count + (all.get(key)?.count ?? 0) });
  }
  return [...all.values()];
}

function Known(props: { figures: Figures; to: (behind: Behind) => string }) {
  const bars = createMemo(() => ({
    answers: together(
      props.figures.answers.map(
        (a): Bar => ({
          name: said.answer[a.answer] ?? a.answer,
          outcome: a.outcome,
          count: a.count,
          href: props.to({ what: 'answers', value: a.answer, outcome: a.outcome }),
        }),
      ),
    ),
    findings: together(
      props.figures.findings.map(
        (f): Bar => ({
          name: kind(f.kind),
          outcome: f.outcome,
          count: f.count,
          href: props.to({ what: 'findings', value: f.kind, outcome: f.outcome }),
        }),
      ),
    ),
    weeks: props.figures.weeks.map(
      (w): Bar => ({ name: w.week, outcome: w.outcome, count: w.count, href: null }),
    ),
  }));
  const answersOf = (models: string, answer: string) =>
    total(props.figures.answers.filter((a) => a.models === models && a.answer === answer));
  const findingsOf = (model: string, name: string) =>
    total(props.figures.findings.filter((f) => f.model === model && f.kind === name));
  return (
    <>
      <p class="num">{said.read(props.figures.read, props.figures.answered)}</p>
      <Show when={props.figures.answers.length > 0} fallback={<p>{said.none}</p>}>
        <Part name="answers" title={said.answers}>
          <Chart label={said.answers} bars={bars().answers} />
          <Table titles={[said.models, said.given, said.outcome, said.count, said.share, said.corrected]}>
            <For each={props.figures.answers}>
              {(a) => (
                <tr>
                  <td>{a.models}</td>
                  <td>{said.answer[a.answer] ?? a.answer}</td>
                  <td>{said.outcomes[a.outcome] ?? a.outcome}</td>
                  <Number
                    count={a.count}
                    href={props.to({ what: 'answers', model: a.models, value: a.answer, outcome: a.outcome })}
                  />
                  <Share count={a.count} of={answersOf(a.models, a.answer)} />
                  <td class="num">{a.corrected}</td>
                </tr>
              )}
            </For>
          </Table>
        </Part>
        <Show when={props.figures.findings.length > 0}>
          <Part name="findings" title={said.findings}>
            <Chart label={said.findings} bars={bars().findings} />
            <Table titles={[said.model, said.kind, said.outcome, said.count, said.share, said.edited]}>
              <For each={props.figures.findings}>
                {(f) => (
                  <tr>
                    <td>{f.model}</td>
                    <td>{kind(f.kind)}</td>
                    <td>{said.outcomes[f.outcome] ?? f.outcome}</td>
                    <Number
                      count={f.count}
                      href={props.to({ what: 'findings', model: f.model, value: f.kind, outcome: f.outcome })}
                    />
                    <Share count={f.count} of={findingsOf(f.model, f.kind)} />
                    <td class="num">{f.edited}</td>
                  </tr>
                )}
              </For>
            </Table>
          </Part>
        </Show>
        <Show when={props.figures.reasons.length > 0}>
          <Part name="reasons" title={said.reasons}>
            <Table titles={[said.model, said.reason, said.count]}>
              <For each={props.figures.reasons}>
                {(r) => (
                  <tr>
                    <td>{r.model}</td>
                    <td>{messages.review.reasons[r.reason] ?? r.reason}</td>
                    <Number
                      count={r.count}
                      href={props.to({ what: 'findings', model: r.model, reason: r.reason })}
                    />
                  </tr>
                )}
              </For>
            </Table>
          </Part>
        </Show>
        <Part name="weeks" title={said.weeks}>
          <Chart label={said.weeks} bars={bars().weeks} upright />
          <Table titles={[said.week, said.outcome, said.count]}>
            <For each={props.figures.weeks}>
              {(w) => (
                <tr>
                  <td class="num">{w.week}</td>
                  <td>{said.outcomes[w.outcome] ?? w.outcome}</td>
                  <td class="num">{w.count}</td>
                </tr>
              )}
            </For>
          </Table>
        </Part>
      </Show>
    </>
  );
}

/** The studies behind the number that the address names. */
function Cases(props: { behind: Behind; close: string }) {
  const [cases] = createResource(
    () => [formatBehind(props.behind), keyVersion()] as const,
    () => getCases(props.behind),
  );
  const about = () => {
    const { model, value, outcome, reason } = props.behind;
    return [
      model,
      value && (said.answer[value] ?? kind(value)),
      outcome && (said.outcomes[outcome] ?? outcome),
      reason && (messages.review.reasons[reason] ?? reason),
    ]
      .filter(Boolean)
      .join(' · ');
  };
  return (
    <section class="cases" aria-labelledby="cases">
      <h2 id="cases">{said.cases(about())}</h2>
      <p>
        <a href={props.close} onClick={follow}>
          {said.close}
        </a>
      </p>
      <Show when={cases.error as unknown} keyed>
        {(error) => <Trouble text={sentence(error)} />}
      </Show>
      <Show when={!cases.error && cases()} keyed>
        {(all) => (
          <Show when={all.length > 0} fallback={<p>{said.noCase}</p>}>
            <Table titles={[said.study, said.date, said.description, said.judged]}>
              <For each={all}>
                {(one) => (
                  <tr data-case={one.study_instance_uid}>
                    <td>
                      <a href={studyPath(one.study_instance_uid)} onClick={follow}>
                        {personName(one.patient_name)}
                      </a>
                    </td>
                    <td class="num">{dicomDate(one.study_date)}</td>
                    <td>{one.study_description ?? ''}</td>
                    <td class="num">{moment(one.at)}</td>
                  </tr>
                )}
              </For>
            </Table>
          </Show>
        )}
      </Show>
    </section>
  );
}

function Part(props: { name: string; title: string; children: JSX.Element }) {
  return (
    <section data-part={props.name} aria-labelledby={`part-${props.name}`}>
      <h2 id={`part-${props.name}`}>{props.title}</h2>
      {props.children}
    </section>
  );
}

function Table(props: { titles: readonly string[]; children: JSX.Element }) {
  return (
    <table>
      <thead>
        <tr>
          <For each={props.titles}>{(title) => <th scope="col">{title}</th>}</For>
        </tr>
      </thead>
      <tbody>{props.children}</tbody>
    </table>
  );
}

function Number(props: { count: number; href: string }) {
  return (
    <td class="num">
      <a href={props.href} onClick={follow}>
        {props.count}
      </a>
    </td>
  );
}

/** A share with its interval, and of how many. */
function Share(props: { count: number; of: number }) {
  const interval = () => wilson(props.count, props.of);
  return (
    <td class="num">
      {percent(props.count / Math.max(props.of, 1))}{' '}
      <small>
        <Show when={interval()} keyed>
          {([low, high]) => said.interval(percent(low), percent(high), props.of)}
        </Show>
      </small>
    </td>
  );
}
