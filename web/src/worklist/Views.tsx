/** The filters that the reader keeps under a name. */

import { createEffect, createSignal, For, Show } from 'solid-js';
import { forgetView, getViews, saveView, sentence } from '../api/client.ts';
import type { SavedView } from '../api/model.ts';
import { who } from '../api/session.ts';
import { Dialog } from '../ui/Dialog.tsx';
import { messages } from '../ui/messages.ts';

const said = messages.views;

export function Views(props: { query: string; apply: (query: string) => void }) {
  const [views, setViews] = createSignal<SavedView[]>([]);
  const [naming, setNaming] = createSignal(false);
  const [trouble, setTrouble] = createSignal<string | null>(null);
  const here = () => views().find(({ query }) => query === props.query);

  const act = async (what: () => Promise<void>) => {
    try {
      await what();
      setViews(await getViews());
      setTrouble(null);
      setNaming(false);
    } catch (error) {
      setTrouble(sentence(error));
    }
  };
  createEffect(() => {
    if (who()?.person) void act(async () => {});
    else setViews([]);
  });

  return (
    <Show when={who()?.person}>
      <select
        aria-label={said.title}
        value={here()?.name ?? ''}
        onChange={(event) => {
          const chosen = views().find(({ name }) => name === event.currentTarget.value);
          props.apply(chosen?.query ?? '');
        }}
      >
        <option value="">{said.none}</option>
        <For each={views()}>{(view) => <option value={view.name}>{view.name}</option>}</For>
      </select>
      <Show
        when={here()}
        keyed
        fallback={
          <button type="button" disabled={props.query === ''} onClick={() => setNaming(true)}>
            {said.save}
          </button>
        }
      >
        {(view) => (
          <button type="button" onClick={() => void act(() => forgetView(view.name))}>
            {said.forget(view.name)}
          </button>
        )}
      </Show>
      <Show when={naming()}>
        <Dialog title={said.save} onClose={() => setNaming(false)}>
          <form
            onSubmit={(event) => {
              event.preventDefault();
              const name = new FormData(event.currentTarget).get('name');
              void act(() => saveView({ name: String(name), query: props.query }));
            }}
          >
            <label>
              {said.name}
              <input name="name" required maxLength={60} autofocus />
            </label>
            <button type="submit">{said.keep}</button>
          </form>
        </Dialog>
      </Show>
      <Show when={trouble()} keyed>
        {(text) => (
          <p class="trouble" role="alert">
            {text}
          </p>
        )}
      </Show>
    </Show>
  );
}
