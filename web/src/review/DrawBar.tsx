/** The tools of drawing, above the slices: each with its key. */

import { onCleanup, onMount, Show } from 'solid-js';
import { onKeys } from '../ui/keyboard.ts';
import { messages } from '../ui/messages.ts';
import type { Pencil } from '../viewer/pencil.ts';

const said = messages.draw;

export function DrawBar(props: { pencil: Pencil; busy: boolean; trouble: string | null; save: () => void }) {
  const history = () => {
    props.pencil.version();
    const drawing = props.pencil.drawing();
    return { undo: drawing?.canUndo ?? false, redo: drawing?.canRedo ?? false };
  };
  onKeys((key) => {
    const { pencil } = props;
    if (key === 'b' || key === 'B') pencil.setTool('brush');
    else if (key === 'e' || key === 'E') pencil.setTool('eraser');
    else if (key === 't' || key === 'T') pencil.setBloodOnly((on) => !on);
    else if (key === '[') pencil.smaller();
    else if (key === ']') pencil.larger();
    else if (key === 'z' || key === 'Z') pencil.undo();
    else if (key === 'y' || key === 'Y') pencil.redo();
    else if (key === 'Enter') props.save();
    else if (key === 'Escape' || key === 'd' || key === 'D') pencil.close();
    else return false;
    return true;
  });
  /** As every other program undoes. */
  const control = (event: KeyboardEvent) => {
    if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== 'z') return;
    event.preventDefault();
    if (event.shiftKey) props.pencil.redo();
    else props.pencil.undo();
  };
  onMount(() => document.addEventListener('keydown', control));
  onCleanup(() => document.removeEventListener('keydown', control));

  return (
    <div class="toolbar draw" role="toolbar" aria-label={said.title}>
      <div class="buttons">
        <button
          type="button"
          aria-pressed={props.pencil.tool() === 'brush'}
          aria-keyshortcuts="B"
          onClick={() => props.pencil.setTool('brush')}
        >
          {said.brush} <kbd>B</kbd>
        </button>
        <button
          type="button"
          aria-pressed={props.pencil.tool() === 'eraser'}
          aria-keyshortcuts="E"
          onClick={() => props.pencil.setTool('eraser')}
        >
          {said.eraser} <kbd>E</kbd>
        </button>
        <button
          type="button"
          aria-pressed={props.pencil.bloodOnly()}
          aria-keyshortcuts="T"
          onClick={() => props.pencil.setBloodOnly((on) => !on)}
        >
          {said.bloodOnly} <kbd>T</kbd>
        </button>
      </div>
      <div class="buttons">
        <button
          type="button"
          aria-keyshortcuts="["
          aria-label={said.smaller}
          onClick={() => props.pencil.smaller()}
        >
          − <kbd>[</kbd>
        </button>
        <button
          type="button"
          aria-keyshortcuts="]"
          aria-label={said.larger}
          onClick={() => props.pencil.larger()}
        >
          + <kbd>]</kbd>
        </button>
        <span class="num">{said.size(props.pencil.radius() * 2)}</span>
      </div>
      <div class="buttons">
        <button
          type="button"
          aria-keyshortcuts="Z"
          disabled={!history().undo}
          onClick={() => props.pencil.undo()}
        >
          {said.undo} <kbd>Z</kbd>
        </button>
        <button
          type="button"
          aria-keyshortcuts="Y"
          disabled={!history().redo}
          onClick={() => props.pencil.redo()}
        >
          {said.redo} <kbd>Y</kbd>
        </button>
      </div>
      <div class="buttons end">
        <button type="button" class="strong" disabled={props.busy} onClick={() => props.save()}>
          {said.save} <kbd>Enter</kbd>
        </button>
        <button type="button" onClick={() => props.pencil.close()}>
          {said.leave} <kbd>Esc</kbd>
        </button>
        <button type="button" onClick={() => props.pencil.discard()}>
          {said.discard}
        </button>
      </div>
      <Show when={props.trouble} keyed>
        {(text) => (
          <p class="notice" role="alert">
            {text}
          </p>
        )}
      </Show>
    </div>
  );
}
