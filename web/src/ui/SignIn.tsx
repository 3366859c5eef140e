/** Asks who is there: name and password, or an API key where the server wants to know at once. */

import { createResource, createSignal, Show } from 'solid-js';
import { sentence } from '../api/client.ts';
import { enterKey } from '../api/key.ts';
import { getWays, providerPath, signIn } from '../api/session.ts';
import { Dialog } from './Dialog.tsx';
import { messages } from './messages.ts';

const said = messages.signIn;

export function SignIn(props: { needed: boolean; onClose: () => void }) {
  const [trouble, setTrouble] = createSignal<string | null>(null);
  const [busy, setBusy] = createSignal(false);
  // Without an answer there is still name and password.
  const [ways] = createResource(() => getWays().catch(() => null));
  let name: HTMLInputElement | undefined;
  let password: HTMLInputElement | undefined;
  let key: HTMLInputElement | undefined;
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    setBusy(true);
    setTrouble(null);
    try {
      await signIn(name?.value.trim() ?? '', password?.value ?? '');
    } catch (error) {
      setTrouble(sentence(error));
    }
    setBusy(false);
  };
  return (
    <Dialog title={said.title} {...(props.needed ? {} : { onClose: props.onClose })}>
      <p>{props.needed ? said.needed : said.explain}</p>
      <form onSubmit={submit}>
        <label>
          {said.name}
          <input ref={name} name="name" autocomplete="username" spellcheck={false} required />
        </label>
        <label>
          {said.password}
          <input ref={password} name="password" type="password" autocomplete="current-password" required />
        </label>
        <p class="form-trouble" role="alert">
          {trouble() ?? ''}
        </p>
        <button type="submit" disabled={busy()}>
          {said.enter}
        </button>
      </form>
      <Show when={ways()?.oidc} keyed>
        {(provider) => (
          <p class="provider">
            <a class="button" href={providerPath()}>
              {said.at(provider)}
            </a>
          </p>
        )}
      </Show>
      <Show when={props.needed}>
        <details>
          <summary>{messages.key.title}</summary>
          <p>{messages.key.explain}</p>
          <form
            onSubmit={(event) => {
              event.preventDefault();
              if (key?.value.trim()) enterKey(key.value);
            }}
          >
            <label>
              {messages.key.label}
              <input ref={key} type="password" autocomplete="off" spellcheck={false} required />
            </label>
            <button type="submit">{messages.key.enter}</button>
          </form>
        </details>
      </Show>
    </Dialog>
  );
}
