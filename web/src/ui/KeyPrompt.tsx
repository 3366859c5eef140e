/** Asks for the API key when the server wants one. */

import { enterKey } from '../api/key.ts';
import { Dialog } from './Dialog.tsx';
import { messages } from './messages.ts';

export function KeyPrompt() {
  let input: HTMLInputElement | undefined;
  return (
    <Dialog title={messages.key.title}>
      <p>{messages.key.explain}</p>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (input?.value.trim()) enterKey(input.value);
        }}
      >
        <label>
          {messages.key.label}
          <input ref={input} type="password" autocomplete="off" spellcheck={false} required />
        </label>
        <button type="submit">{messages.key.enter}</button>
      </form>
    </Dialog>
  );
}
