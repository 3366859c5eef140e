/** `/`: every study, in the server's order, live. */

import { createEffect, createMemo, createSignal, For, onCleanup, Show } from 'solid-js';
import { createStore, reconcile } from 'solid-js/store';
import { getWorklist, sentence } from '../api/client.ts';
import { keyVersion, keyWanted } from '../api/key.ts';
import type { State, Study, StudyEvent } from '../api/model.ts';
import { onLive } from '../live.ts';
import { Help } from '../ui/Help.tsx';
import { onKeys } from '../ui/keyboard.ts';
import { messages } from '../ui/messages.ts';
import { Trouble } from '../ui/Trouble.tsx';
import { filterStudies } from './filter.ts';
import { Row } from './Row.tsx';

const PAGE = 100;
/** Events come in bursts; the list is loaded once for those that fall into this time. */
const GATHER_MS = 250;
const CLOCK_MS = 10_000;

export function WorklistPage() {
  const [list, setList] = createStore<{ studies: Study[]; total: number }>({ studies: [], total: 0 });
  const [loaded, setLoaded] = createSignal(false);
  const [trouble, setTrouble] = createSignal<string | null>(null);
  const [query, setQuery] = createSignal('');
  const [state, setState] = createSignal<State | null>(null);
  const [limit, setLimit] = createSignal(PAGE);
  const [now, setNow] = createSignal(Date.now());
  const [help, setHelp] = createSignal(false);
  let search: HTMLInputElement | undefined;
  let body: HTMLTableSectionElement | undefined;
  let gathering: ReturnType<typeof setTimeout> | undefined;

  let loads = 0;
  const load = async () => {
    const mine = ++loads;
    try {
      const { studies, total } = await getWorklist(limit());
      // An answer that was overtaken by a later request is old.
      if (mine !== loads) return;
      setList('studies', reconcile(studies, { key: 'study_instance_uid' }));
      setList('total', total);
      setNow(Date.now());
      setTrouble(null);
      setLoaded(true);
    } catch (error) {
      setTrouble(keyWanted() ? null : sentence(error));
    }
  };
  const loadSoon = () => {
    clearTimeout(gathering);
    gathering = setTimeout(load, GATHER_MS);
  };
  const hear = (event: StudyEvent | 'reload') => {
    const index =
      event === 'reload'
        ? -1
        : list.studies.findIndex((s) => s.study_instance_uid === event.study_instance_uid);
    // Progress alone changes neither the order nor anything else in the row.
    if (event !== 'reload' && index >= 0 && list.studies[index]?.state === event.state && event.progress) {
      setList('studies', index, 'progress', event.progress);
    } else loadSoon();
  };
  createEffect(() => {
    keyVersion();
    void load();
  });
  onLive(hear);
  const clock = setInterval(() => setNow(Date.now()), CLOCK_MS);
  onCleanup(() => {
    clearInterval(clock);
    clearTimeout(gathering);
  });
  createEffect(() => {
    document.title = `${messages.worklist.title} · ${messages.title}`;
  });

  const shown = createMemo(() => filterStudies(list.studies, query(), state()));
  const flagged = () => list.studies.filter((s) => s.state === 'flagged').length;

  /** Moves the focus by rows; the focused link is what Enter opens. */
  const step = (by: 1 | -1): boolean => {
    const links = [...(body?.querySelectorAll<HTMLAnchorElement>('a.patient') ?? [])];
    const at = links.indexOf(document.activeElement as HTMLAnchorElement);
    const next = at < 0 ? (by > 0 ? 0 : links.length - 1) : Math.min(Math.max(at + by, 0), links.length - 1);
    links[next]?.focus();
    return links.length > 0;
  };
  onKeys((key) => {
    if (key === 'j' || key === 'ArrowDown') return step(1);
    if (key === 'k' || key === 'ArrowUp') return step(-1);
    if (key === '/') search?.focus();
    else if (key === '?') setHelp(true);
    else if (key === 'Escape' && document.activeElement === search) {
      setQuery('');
      search?.blur();
    } else return false;
    return true;
  });

  return (
    <div class="worklist">
      <div class="head">
        <h1>{messages.worklist.title}</h1>
        <p class="count" aria-live="polite">
          <Show when={loaded()}>{messages.worklist.count(shown().length, list.total)}</Show>
          <Show when={flagged() > 0}>
            <strong> · {messages.worklist.attention(flagged())}</strong>
          </Show>
        </p>
        <label class="search">
          <span>{messages.worklist.filter}</span>
          <input
            ref={search}
            type="search"
            value={query()}
            placeholder={messages.worklist.filterHint}
            aria-keyshortcuts="/"
            onInput={(event) => setQuery(event.currentTarget.value)}
          />
        </label>
        <select
          aria-label={messages.worklist.state}
          onChange={(event) => setState((event.currentTarget.value || null) as State | null)}
        >
          <option value="">{messages.worklist.anyState}</option>
          <For each={Object.entries(messages.state)}>
            {([value, name]) => <option value={value}>{name}</option>}
          </For>
        </select>
        <button type="button" aria-keyshortcuts="?" onClick={() => setHelp(true)}>
          {messages.help.open} <kbd>?</kbd>
        </button>
      </div>
      <Show when={trouble()} keyed>
        {(text) => <Trouble text={text} retry={load} />}
      </Show>
      <Show
        when={loaded()}
        fallback={<p class="wait">{trouble() === null ? messages.worklist.loading : ''}</p>}
      >
        <Show
          when={shown().length > 0}
          fallback={
            <p class="wait">{list.total === 0 ? messages.worklist.empty : messages.worklist.noMatch}</p>
          }
        >
          <div class="scroll">
            <table>
              <thead>
                <tr>
                  <th scope="col">{messages.worklist.columns.state}</th>
                  <th scope="col">{messages.worklist.columns.patient}</th>
                  <th scope="col">{messages.worklist.columns.study}</th>
                  <th scope="col" class="num">
                    {messages.worklist.columns.arrived}
                  </th>
                  <th scope="col" class="num">
                    {messages.worklist.columns.findings}
                  </th>
                  <th scope="col" class="num">
                    {messages.worklist.columns.volume}
                  </th>
                  <th scope="col" class="num" title={messages.panel.scoreNote}>
                    {messages.worklist.columns.score}
                    <small>{messages.panel.notCalibrated}</small>
                  </th>
                  <th scope="col" class="num">
                    {messages.worklist.columns.uncertainty}
                  </th>
                </tr>
              </thead>
              <tbody ref={body}>
                <For each={shown()}>{(study) => <Row study={study} now={now()} />}</For>
              </tbody>
            </table>
          </div>
        </Show>
        <Show when={list.studies.length < list.total}>
          <button type="button" class="more" onClick={() => setLimit((n) => n + PAGE)}>
            {messages.worklist.more}
          </button>
        </Show>
      </Show>
      <Show when={help()}>
        <Help keys={messages.help.worklist} onClose={() => setHelp(false)} />
      </Show>
    </div>
  );
}
