/** A stack viewport in an element, for as long as the calling component lives. */

import { type Accessor, createSignal, onCleanup, onMount } from 'solid-js';
import { sentence } from '../api/client.ts';
import type { StackListener, StackView } from './stack.ts';

/** Opens it once the element is on the page; null until then. What fails is said through `trouble`. */
export function createView(
  element: () => HTMLDivElement | undefined,
  listener: StackListener,
  trouble: (text: string) => void,
): Accessor<StackView | null> {
  const [view, setView] = createSignal<StackView | null>(null);
  onMount(() => {
    const host = element();
    if (host === undefined) return;
    let closed = false;
    const observer = new ResizeObserver(() => {
      view()?.resize();
      listener.drawn();
    });
    // The viewer's library is megabytes: it is fetched when the first study is opened.
    void import('./stack.ts')
      .then((module) => module.StackView.open(host, listener))
      .then(
        (opened) => {
          if (closed) return opened.close();
          setView(opened);
          observer.observe(host);
        },
        (error) => trouble(sentence(error)),
      );
    onCleanup(() => {
      closed = true;
      observer.disconnect();
      view()?.close();
    });
  });
  return view;
}
