/** `/`: every study that the filter lets through, in the server's order, live. */

import { createWindowVirtualizer } from '@tanstack/solid-virtual';
import { createEffect, createMemo, createSignal, For, on, onCleanup, Show } from 'solid-js';
import { keyVersion } from '../api/key.ts';
import type { State } from '../api/model.ts';
import { listQuery, setListQuery } from '../router.ts';
import { Help } from '../ui/Help.tsx';
import { onKeys } from '../ui/keyboard.ts';
import { messages } from '../ui/messages.ts';
import { Trouble } from '../ui/Trouble.tsx';
import { type Filter, formatFilter, parseFilter, STATES } from './filter.ts';
import { Row } from './Row.tsx';
import { createRows } from './rows.ts';
import { Views } from './Views.tsx';

const said = messages.worklist;
const CLOCK_MS = 10_000;
/** Typing pauses so long before the server is asked. */
const TYPING_MS = 200;
/** A row of two lines; the true height is measured once it is drawn. */
const ROW_PIXELS = 62;
const COLUMNS = 8;
/** Frames to wait for a row that was scrolled to: it may have to be loaded first. */
const FRAMES = 120;

export function WorklistPage() {
  const filter = createMemo(() => parseFilter(listQuery()));
  const { rows, lanes, trouble, loadedAt, placeOf, look, restart } = createRows(listQuery);
  const [now, setNow] = createSignal(Date.now());
  const [help, setHelp] = createSignal(false);
  const [top, setTop] = createSignal(0);
  let search: HTMLInputElement | undefined;
  let body: HTMLTableSectionElement | undefined;
  let typing: ReturnType<typeof setTimeout> | undefined;

  const change = (part: Partial<Filter>) => {
    clearTimeout(typing);
    setListQuery(formatFilter({ ...filter(), ...part }));
  };
  createEffect(on([keyVersion, listQuery], () => void restart()));
  const clock = setInterval(() => setNow(Date.now()), CLOCK_MS);
  onCleanup(() => {
    clearInterval(clock);
    clearTimeout(typing);
  });
  createEffect(() => {
    const flagged = lanes()?.flagged ?? 0;
    document.title = `${flagged > 0 ? `(${flagged}) ` : ''}${said.title} · ${messages.title}`;
  });

  const virtual = createWindowVirtualizer({
    get count() {
      return rows().length;
    },
    get scrollMargin() {
      return top();
    },
    estimateSize: () => ROW_PIXELS,
    overscan: 12,
    // A row keeps its height when it moves.
    getItemKey: (index: number) => rows()[index]?.study_instance_uid ?? index,
  });
  const items = () => virtual.getVirtualItems();
  createEffect(() => {
    const [first, last] = [items()[0], items().at(-1)];
    if (first && last) look(first.index, last.index);
  });
  createEffect(() => {
    // What stands above the rows changes with the filter and the width.
    if (loadedAt() !== null && body) setTop(body.getBoundingClientRect().top + scrollY);
  });
  /** By study, so that a row and the focus in it follow the study and not the place. */
  const keys = createMemo(() => items().map(({ index }) => rows()[index]?.study_instance_uid ?? `#${index}`));
  const above = () => (items()[0]?.start ?? top()) - top();
  const below = () => virtual.getTotalSize() - ((items().at(-1)?.end ?? top()) - top());

  /** Moves the focus by rows; the focused link is what Enter opens. */
  const step = (by: 1 | -1): boolean => {
    if (rows().length === 0) return false;
    const uid = document.activeElement?.closest<HTMLElement>('tr[data-study]')?.dataset.study;
    const at = uid === undefined ? undefined : placeOf().get(uid);
    const next =
      at === undefined ? (by > 0 ? 0 : rows().length - 1) : Math.min(Math.max(at + by, 0), rows().length - 1);
    let frames = FRAMES;
    const reach = () => {
      const wanted = rows()[next]?.study_instance_uid;
      const link = wanted && body?.querySelector<HTMLElement>(`tr[data-study="${wanted}"] a.patient`);
      if (link) link.focus();
      else if (frames-- > 0) requestAnimationFrame(reach);
    };
    virtual.scrollToIndex(next);
    reach();
    return true;
  };
  onKeys((key) => {
    if (key === 'j' || key === 'ArrowDown') return step(1);
    if (key === 'k' || key === 'ArrowUp') return step(-1);
    if (key === '/') search?.focus();
    else if (key === 'u') change({ read: filter().read === null ? false : null });
    else if (key === '?') setHelp(true);
    else if (key === 'Escape' && document.activeElement === search) {
      change({ text: '' });
      search?.blur();
    } else return false;
    return true;
  });

  return (
    <div class="worklist">
      <div class="head">
        <h1>{said.title}</h1>
        <p class="count" aria-live="polite">
          <Show when={lanes()} keyed>
            {(known) => (
              <>
                {said.count(rows().length, known.flagged + known.uncertain + known.other + known.read)}
                <strong>{said.attention(known.flagged)}</strong>
                {said.doubtful(known.uncertain)}
              </>
            )}
          </Show>
        </p>
        <label class="search">
          <span>{said.filter}</span>
          <input
            ref={search}
            type="search"
            value={filter().text}
            placeholder={said.filterHint}
            aria-keyshortcuts="/"
            onInput={(event) => {
              const text = event.currentTarget.value;
              clearTimeout(typing);
              typing = setTimeout(() => change({ text }), TYPING_MS);
            }}
          />
        </label>
        <select
          aria-label={said.state}
          value={filter().state ?? ''}
          onChange={(event) => change({ state: (event.currentTarget.value || null) as State | null })}
        >
          <option value="">{said.anyState}</option>
          <For each={STATES}>{(state) => <option value={state}>{messages.state[state]}</option>}</For>
        </select>
        <select
          aria-label={said.reading}
          value={String(filter().read)}
          onChange={(event) => change({ read: parseFilter(`read=${event.currentTarget.value}`).read })}
        >
          <option value="null">{said.readOrNot}</option>
          <option value="false">{said.unread}</option>
          <option value="true">{said.readOnly}</option>
        </select>
        <select
          aria-label={said.order}
          value={filter().order}
          onChange={(event) => change({ order: event.currentTarget.value as Filter['order'] })}
        >
          <option value="urgency">{said.byUrgency}</option>
          <option value="newest">{said.byArrival}</option>
        </select>
        <Views query={listQuery()} apply={setListQuery} />
        <button type="button" aria-keyshortcuts="?" onClick={() => setHelp(true)}>
          {messages.help.open} <kbd>?</kbd>
        </button>
      </div>
      <Show when={trouble()} keyed>
        {(text) => <Trouble text={text} retry={restart} />}
      </Show>
      <Show
        when={loadedAt() !== null}
        fallback={<p class="wait">{trouble() === null ? said.loading : ''}</p>}
      >
        <Show
          when={rows().length > 0}
          fallback={<p class="wait">{listQuery() === '' ? said.empty : said.noMatch}</p>}
        >
          <div class="scroll">
            <table aria-rowcount={rows().length + 1}>
              <thead>
                <tr aria-rowindex={1}>
                  <th scope="col">{said.columns.state}</th>
                  <th scope="col">{said.columns.patient}</th>
                  <th scope="col">{said.columns.study}</th>
                  <th scope="col" class="num">
                    {said.columns.arrived}
                  </th>
                  <th scope="col" class="num">
                    {said.columns.findings}
                  </th>
                  <th scope="col" class="num">
                    {said.columns.volume}
                  </th>
                  <th scope="col" class="num" title={messages.panel.scoreNote}>
                    {said.columns.score}
                    <small>{messages.panel.notCalibrated}</small>
                  </th>
                  <th scope="col" class="num">
                    {said.columns.uncertainty}
                  </th>
                </tr>
              </thead>
              <tbody ref={body}>
                <Gap pixels={above()} />
                <For each={keys()}>
                  {(key) => {
                    const place = () => placeOf().get(key);
                    const study = () => rows()[place() ?? -1];
                    return (
                      <Show when={study()} fallback={<Gap pixels={ROW_PIXELS} />}>
                        {(known) => (
                          <Row
                            study={known()}
                            place={place() ?? 0}
                            now={now()}
                            measure={(row) => virtual.measureElement(row)}
                          />
                        )}
                      </Show>
                    );
                  }}
                </For>
                <Gap pixels={below()} />
              </tbody>
            </table>
          </div>
        </Show>
      </Show>
      <Show when={help()}>
        <Help keys={messages.help.worklist} onClose={() => setHelp(false)} />
      </Show>
    </div>
  );
}

/** Rows that are not drawn. */
function Gap(props: { pixels: number }) {
  return (
    <Show when={props.pixels > 0}>
      <tr class="gap" aria-hidden="true">
        <td colSpan={COLUMNS} style={{ height: `${props.pixels}px` }} />
      </tr>
    </Show>
  );
}
