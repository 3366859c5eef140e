/** Five addresses: `/`, `/study/{uid}`, `/study/{uid}/trail`, `/figures?…`, and `/open?…`, which leads to a study. */

import { batch, createSignal } from 'solid-js';

const [path, setPath] = createSignal(location.pathname);
/** The query of the address. */
const [search, setSearch] = createSignal(location.search);
/** The query of the worklist, kept while a study is open. */
const [listQuery, setQuery] = createSignal(path() === '/' ? location.search.slice(1) : '');
addEventListener('popstate', () => {
  here();
  if (location.pathname === '/') setQuery(location.search.slice(1));
});

export { listQuery, search };

/** Takes over what the address says now. */
function here(): void {
  batch(() => {
    setPath(location.pathname);
    setSearch(location.search);
  });
}

/** Another query of the worklist, which is shown. */
export function setListQuery(query: string): void {
  setQuery(query);
  history.replaceState(null, '', worklistPath());
}

/** The worklist as it was left. */
export function worklistPath(): string {
  return listQuery() === '' ? '/' : `/?${listQuery()}`;
}

/** The study that the address names; null on the worklist. */
export function studyUid(): string | null {
  const match = /^\/study\/([0-9.]+)\/?$/.exec(path());
  return match?.[1] ?? null;
}

/** The study whose trail the address names. */
export function trailUid(): string | null {
  const match = /^\/study\/([0-9.]+)\/trail\/?$/.exec(path());
  return match?.[1] ?? null;
}

export function trailPath(uid: string): string {
  return `/study/${uid}/trail`;
}

export function studyPath(uid: string): string {
  return `/study/${uid}`;
}

/** How the machine did against its readers. */
export function isFigures(): boolean {
  return path() === '/figures';
}

export function figuresPath(query = ''): string {
  return query === '' ? '/figures' : `/figures?${query}`;
}

/** Whether the address is a link that has yet to find its study. */
export function isOpening(): boolean {
  return path() === '/open';
}

/** Goes to another page that stands for this one: going back passes over it. */
export function replace(to: string): void {
  history.replaceState(null, '', to);
  here();
}

/** Goes to another page without loading this one anew. */
export function go(to: string): void {
  history.pushState(null, '', to);
  here();
  scrollTo(0, 0);
}

/** Whether a click means this page, and no other tab or window. */
export function isPlain(event: MouseEvent): boolean {
  return event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey && !event.altKey;
}

/** For links: a plain click stays in the page; any other is the browser's. */
export function follow(event: MouseEvent & { currentTarget: HTMLAnchorElement }): void {
  if (!isPlain(event)) return;
  event.preventDefault();
  go(event.currentTarget.pathname + event.currentTarget.search);
}
