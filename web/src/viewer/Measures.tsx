/** Measurements over the slice that is shown, and the list of all of them beside it. */

import { createMemo, For, Show } from 'solid-js';
import type { Place } from '../review/drawing.ts';
import { messages } from '../ui/messages.ts';
import type { Kind } from './measure.ts';
import type { Shown } from './painter.ts';
import type { Measurement, Ruler } from './ruler.ts';
import type { Session } from './session.ts';

const { measure: said } = messages;

const KEYS: readonly (readonly [string, Kind])[] = [
  ['L', 'length'],
  ['G', 'angle'],
  ['O', 'ellipse'],
];

/** What was measured, in words. */
export function told({ kind, value, density }: Measurement): string {
  if (density !== null) return said.density(density);
  return value === null ? '' : kind === 'angle' ? said.degrees(value) : said.millimetres(value);
}

/** Does what a key says to the ruler; answers whether it says anything. */
export function rulerKey(ruler: Ruler, key: string): boolean {
  const tool = KEYS.find(([letter]) => letter === key.toUpperCase());
  if (tool !== undefined) ruler.use(tool[1]);
  else if ((key === 'Delete' || key === 'Backspace') && ruler.chosen() !== null) ruler.remove(ruler.chosen());
  else if (key === 'Escape' && ruler.tool() !== null) ruler.use(null);
  else return false;
  return true;
}

/** Keys that are the ruler's while one of its tools is in the hand. */
export const isRulerKey = (key: string) =>
  ['Enter', ' ', 'Escape', 'Delete', 'Backspace'].includes(key) || key.startsWith('Arrow');

/** The three buttons. */
export function MeasureButtons(props: { ruler: Ruler }) {
  return (
    <div class="buttons" role="group" aria-label={said.title}>
      <For each={KEYS}>
        {([key, kind]) => (
          <button
            type="button"
            aria-pressed={props.ruler.tool() === kind}
            aria-keyshortcuts={key}
            title={said.hints[kind]}
            data-measure={kind}
            onClick={(event) => {
              props.ruler.use(kind);
              // So that the next keys are the ruler's and not this button's.
              event.currentTarget.closest('section')?.querySelector<HTMLElement>('.viewport')?.focus();
            }}
          >
            {said.kinds[kind]} <kbd>{key}</kbd>
          </button>
        )}
      </For>
    </div>
  );
}

/** The lines over the image, in CSS pixels of the viewport. */
export function MeasureLines(props: { ruler: Ruler; shown: Shown | null }) {
  const here = createMemo(() => {
    const { shown } = props;
    if (shown === null) return [];
    const done = props.ruler.all().filter(({ slice }) => slice === shown.slice);
    const now = props.ruler.underWay(shown.slice);
    return [
      ...done.map((one) => ({ ...one, text: `${one.id} · ${told(one)}` })),
      ...(now === null ? [] : [{ ...now, id: 0, text: '' }]),
    ];
  });
  const on = ([x, y]: Place): Place => {
    const [a, b, c, d, e, f] = props.shown?.affine ?? [1, 0, 0, 1, 0, 0];
    return [a * x + c * y + e, b * x + d * y + f];
  };
  const cursor = createMemo(() => (props.ruler.tool() === null ? null : props.ruler.cursor()));
  return (
    <svg class="over measures" data-layer="measures">
      <For each={here()}>
        {(one) => (
          <g class="measure" data-chosen={one.id === props.ruler.chosen()} data-measurement={one.id}>
            <path class="edge" d={path(one.kind, one.places, on)} />
            <path d={path(one.kind, one.places, on)} />
            <For each={one.kind === 'ellipse' ? [] : one.places}>
              {(at) => <circle cx={on(at)[0]} cy={on(at)[1]} r="3" />}
            </For>
            <text x={label(one.places, on)[0] + 8} y={label(one.places, on)[1] - 8}>
              {one.text}
            </text>
          </g>
        )}
      </For>
      <Show when={cursor()} keyed>
        {(at) => (
          <path class="cursor" d={`M${on(at)[0] - 9} ${on(at)[1]}h18M${on(at)[0]} ${on(at)[1] - 9}v18`} />
        )}
      </Show>
    </svg>
  );
}

/** The rightmost place, where words have room. */
function label(places: readonly Place[], on: (at: Place) => Place): Place {
  const all = places.map(on);
  return all.reduce((most, at) => (at[0] > most[0] ? at : most), all[0] ?? [0, 0]);
}

function path(kind: Kind, places: readonly Place[], on: (at: Place) => Place): string {
  const [first, second] = places;
  if (kind !== 'ellipse' || first === undefined || second === undefined) {
    return places.map((at, i) => `${i === 0 ? 'M' : 'L'}${on(at).join(' ')}`).join('');
  }
  // Through the places of the image, so that it is right on pixels that are not square and on turned images.
  const [x, y] = [(first[0] + second[0]) / 2, (first[1] + second[1]) / 2];
  const [halfX, halfY] = [(second[0] - first[0]) / 2, (second[1] - first[1]) / 2];
  const corners = Array.from({ length: 64 }, (_, i) => {
    const turn = (i / 64) * 2 * Math.PI;
    return on([x + halfX * Math.cos(turn), y + halfY * Math.sin(turn)]).join(' ');
  });
  return `M${corners.join('L')}Z`;
}

/** All measurements of the study, each with its slice. */
export function MeasureList(props: { session: Session }) {
  const ruler = () => props.session.ruler;
  const index = (one: Measurement) => props.session.slices().findIndex(({ key }) => key === one.slice.key);
  return (
    <Show when={ruler().all().length > 0}>
      <section data-part="measures">
        <h2>{said.title}</h2>
        <p class="dim">{said.notSaved}</p>
        <ul class="measurements">
          <For each={ruler().all()}>
            {(one) => (
              <li>
                <button
                  type="button"
                  class="small"
                  aria-pressed={ruler().chosen() === one.id}
                  data-measured={one.id}
                  onClick={() => {
                    ruler().setChosen(one.id);
                    if (index(one) >= 0) props.session.go(index(one));
                  }}
                >
                  {said.named(one.id, said.kinds[one.kind], told(one), index(one) + 1)}
                </button>
                <button
                  type="button"
                  class="small"
                  aria-label={said.remove(one.id, said.kinds[one.kind])}
                  onClick={() => ruler().remove(one.id)}
                >
                  ×
                </button>
              </li>
            )}
          </For>
        </ul>
      </section>
    </Show>
  );
}
