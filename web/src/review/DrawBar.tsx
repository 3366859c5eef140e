/** The tools of drawing, above the slices: each with its key. */

import { For, onCleanup, onMount, Show, untrack } from 'solid-js';
import { onKeys } from '../ui/keyboard.ts';
import { messages } from '../ui/messages.ts';
import type { Tool } from '../viewer/pencil.ts';
import type { Session } from '../viewer/session.ts';

const { draw: said, edit } = messages;

/** Tools by key. */
const TOOLS: readonly (readonly [string, Tool])[] = [
  ['B', 'brush'],
  ['E', 'eraser'],
  ['L', 'lasso'],
  ['K', 'cut'],
  ['G', 'grow'],
];

export function DrawBar(props: {
  session: Session;
  busy: boolean;
  trouble: string | null;
  save: () => void;
}) {
  const pencil = untrack(() => props.session.pencil);
  /** Shows a slice that a step of undo changed, unless one of them is on the screen. */
  const show = (images: string[]) => {
    const slices = props.session.slices();
    const here = slices[props.session.asked()]?.key ?? '';
    if (images.length === 0 || images.includes(here)) return;
    props.session.go(slices.findIndex(({ key }) => images.includes(key)));
  };
  const undo = () => show(pencil.undo());
  const redo = () => show(pencil.redo());
  const fillBetween = () => pencil.fillBetween(props.session.slices());
  const bound = (which: 0 | 1) => (event: { currentTarget: HTMLInputElement }) => {
    const value = event.currentTarget.valueAsNumber;
    if (!Number.isFinite(value)) return;
    pencil.setRange(([low, high]) => (which === 0 ? [value, high] : [low, value]));
    pencil.setBloodOnly(true);
  };
  const history = () => {
    pencil.version();
    const drawing = pencil.drawing();
    return { undo: drawing?.canUndo ?? false, redo: drawing?.canRedo ?? false };
  };
  onKeys((key) => {
    const tool = TOOLS.find(([letter]) => letter === key.toUpperCase());
    if (tool !== undefined) pencil.setTool(tool[1]);
    else if (key === 'i' || key === 'I') fillBetween();
    else if (key === 't' || key === 'T') pencil.setBloodOnly((on) => !on);
    else if (key === '[') pencil.smaller();
    else if (key === ']') pencil.larger();
    else if (key === 'z' || key === 'Z') undo();
    else if (key === 'y' || key === 'Y') redo();
    else if (key === 'Enter') props.save();
    else if (key === 'Escape' || key === 'd' || key === 'D') pencil.close();
    else return false;
    return true;
  });
  /** As every other program undoes. */
  const control = (event: KeyboardEvent) => {
    if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== 'z') return;
    event.preventDefault();
    if (event.shiftKey) redo();
    else undo();
  };
  onMount(() => document.addEventListener('keydown', control));
  onCleanup(() => document.removeEventListener('keydown', control));

  return (
    <div class="toolbar draw" role="toolbar" aria-label={said.title}>
      <div class="buttons">
        <For each={TOOLS}>
          {([key, tool]) => (
            <button
              type="button"
              aria-pressed={pencil.tool() === tool}
              aria-keyshortcuts={key}
              title={edit.hints[tool]}
              data-tool={tool}
              onClick={() => pencil.setTool(tool)}
            >
              {edit.tools[tool]} <kbd>{key}</kbd>
            </button>
          )}
        </For>
      </div>
      <div class="buttons">
        <button
          type="button"
          aria-pressed={pencil.bloodOnly()}
          aria-keyshortcuts="T"
          onClick={() => pencil.setBloodOnly((on) => !on)}
        >
          {edit.only} <kbd>T</kbd>
        </button>
        <input
          type="number"
          class="hu num"
          aria-label={edit.low}
          value={pencil.range()[0]}
          onChange={bound(0)}
        />
        <input
          type="number"
          class="hu num"
          aria-label={edit.high}
          value={pencil.range()[1]}
          onChange={bound(1)}
        />
        <span>HU</span>
      </div>
      <div class="buttons">
        <button
          type="button"
          aria-keyshortcuts="["
          aria-label={said.smaller}
          onClick={() => pencil.smaller()}
        >
          − <kbd>[</kbd>
        </button>
        <button type="button" aria-keyshortcuts="]" aria-label={said.larger} onClick={() => pencil.larger()}>
          + <kbd>]</kbd>
        </button>
        <span class="num">{said.size(pencil.radius() * 2)}</span>
      </div>
      <div class="buttons">
        <button type="button" aria-keyshortcuts="I" title={edit.hints.between} onClick={fillBetween}>
          {edit.between} <kbd>I</kbd>
        </button>
        <button type="button" aria-keyshortcuts="Z" disabled={!history().undo} onClick={undo}>
          {said.undo} <kbd>Z</kbd>
        </button>
        <button type="button" aria-keyshortcuts="Y" disabled={!history().redo} onClick={redo}>
          {said.redo} <kbd>Y</kbd>
        </button>
      </div>
      <div class="buttons end">
        <button type="button" class="strong" disabled={props.busy} onClick={() => props.save()}>
          {said.save} <kbd>Enter</kbd>
        </button>
        <button type="button" onClick={() => pencil.close()}>
          {said.leave} <kbd>Esc</kbd>
        </button>
        <button type="button" onClick={() => pencil.discard()}>
          {said.discard}
        </button>
      </div>
      <Show when={pencil.refused()} keyed>
        {(why) => (
          <p class="notice" role="alert">
            {edit.refused[why]}
          </p>
        )}
      </Show>
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
