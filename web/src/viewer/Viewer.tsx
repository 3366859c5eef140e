/** The stack on the screen: image, overlays, labels, toolbar, strip. */

import { createEffect, createSignal, type JSX, lazy, on, onMount, Show, untrack } from 'solid-js';
import { sentence } from '../api/client.ts';
import type { Comparison } from '../api/model.ts';
import type { Slice } from '../dicomweb/geometry.ts';
import type { Place } from '../review/drawing.ts';
import { onKeys } from '../ui/keyboard.ts';
import { messages } from '../ui/messages.ts';
import { Trouble } from '../ui/Trouble.tsx';
import { Legend } from './Legend.tsx';
import { MeasureLines, rulerKey } from './Measures.tsx';
import { Painter, type Shown } from './painter.ts';
import { isRound } from './pencil.ts';
import { Sides } from './Sides.tsx';
import { Strip } from './Strip.tsx';
import type { Session } from './session.ts';
import type { StackView } from './stack.ts';
import { Toolbar } from './Toolbar.tsx';
import { createView } from './view.ts';

const Planes = lazy(() => import('./planes/Planes.tsx'));
const Prior = lazy(() => import('./Prior.tsx'));

/** By how many pixels an arrow moves the cursor of the ruler. */
const ARROWS: Readonly<Record<string, readonly [number, number]>> = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};
/** Wheel distance that makes a step: one notch of a mouse, a short stroke on a touchpad. */
const WHEEL_STEP = 50;

export function Viewer(props: {
  study: string;
  name: string;
  session: Session;
  /** Other studies of the patient. */
  comparisons: readonly Comparison[];
  tools: JSX.Element;
}) {
  const session = untrack(() => props.session);
  const [trouble, setTrouble] = createSignal<string | null>(null);
  const [hu, setHu] = createSignal<number | null>(null);
  const [pointer, setPointer] = createSignal<Place | null>(null);
  const [onScreen, setOnScreen] = createSignal<Shown | null>(null);
  const { pencil, ruler } = session;
  let element: HTMLDivElement | undefined;
  let maskCanvas: HTMLCanvasElement | undefined;
  let mapCanvas: HTMLCanvasElement | undefined;
  let painter: Painter | undefined;

  const brush = () => {
    const at = pencil.drawing() === null || !isRound(pencil.tool()) ? null : pointer();
    return at && { at, radiusMm: pencil.radius() };
  };
  const paint = () => {
    const shown = view()?.shown() ?? null;
    const chosen = session.chosenFinding();
    painter?.paint(shown, {
      mask: session.mask(),
      map: session.uncertainty() ? session.layer() : null,
      contours: session.contours() ? session.scores() : null,
      anatomy: session.anatomy(),
      opacity: session.opacity(),
      colour: session.segmentColour,
      chosen: chosen && session.numberOf(chosen),
      drawing: pencil.drawing(),
      brush: brush(),
      trace: { places: pencil.trace(), box: pencil.tool() === 'grow' },
    });
    setOnScreen(shown);
    const index = shown === null ? -1 : session.slices().indexOf(shown.slice);
    session.setShown(index < 0 ? null : index);
  };

  onMount(() => {
    if (maskCanvas && mapCanvas) painter = new Painter(maskCanvas, mapCanvas, session.overlays());
  });
  const view = createView(
    () => element,
    {
      drawn: () => paint(),
      windowed: session.setWindow,
      failed: (index) => setTrouble(messages.viewer.unreadable(index + 1)),
      grabbed: (down) => draw(down) || span(down),
    },
    setTrouble,
  );

  createEffect(
    on([view, session.slices], ([opened, slices]) => {
      const series = session.series();
      if (opened === null || series === null || slices.length === 0) return;
      setTrouble(null);
      opened.show(props.study, series, slices, session.asked(), session.window()).catch((error) => {
        setTrouble(sentence(error));
      });
    }),
  );
  createEffect(on([view, session.asked], ([opened, index]) => void opened?.go(index), { defer: true }));
  createEffect(on(session.window, (window) => view()?.window(window), { defer: true }));
  createEffect(
    on(session.overlays, (overlays) => {
      painter?.use(overlays);
      paint();
    }),
  );
  createEffect(
    on(
      [
        session.mask,
        session.uncertainty,
        session.layer,
        session.contours,
        session.anatomy,
        session.opacity,
        session.chosenFinding,
        pencil.drawing,
        pencil.version,
        brush,
      ],
      paint,
      { defer: true },
    ),
  );
  onKeys((key) => {
    if (key === '0') view()?.fit();
    else return pencil.drawing() === null && (pointed(key) || rulerKey(ruler, key));
    return true;
  });
  const huAt = (column: number, row: number) => view()?.valueAt(column, row) ?? null;
  /** The cursor of the ruler by keys: arrows move it, Enter and the space bar set a place. */
  const pointed = (key: string): boolean => {
    const now = view()?.shown();
    if (ruler.tool() === null || !now) return false;
    const { slice } = now;
    const [x, y] = ruler.cursor() ?? [slice.columns / 2, slice.rows / 2];
    const [dx, dy] = ARROWS[key] ?? [0, 0];
    if (key === 'Enter' || key === ' ') ruler.put(slice, [x, y], huAt);
    else if (dx === 0 && dy === 0) return false;
    ruler.setCursor([
      Math.min(Math.max(x + dx, 0), slice.columns),
      Math.min(Math.max(y + dy, 0), slice.rows),
    ]);
    return true;
  };

  let wheel = 0;
  const scroll = (event: WheelEvent) => {
    event.preventDefault();
    if (event.ctrlKey) {
      view()?.zoom(event.deltaY < 0 ? 1.1 : 1 / 1.1);
      return;
    }
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_PIXEL ? 1 : WHEEL_STEP;
    wheel += event.deltaY * lines;
    const steps = Math.trunc(wheel / WHEEL_STEP);
    if (steps !== 0) session.move(-Math.sign(steps));
    wheel = steps === 0 ? wheel : 0;
  };
  onMount(() => element?.addEventListener('wheel', scroll, { passive: false }));

  const point = (event: PointerEvent) => {
    const opened = view();
    const shown = opened?.shown();
    if (!opened || !shown) return;
    const at = placeAt(shown, event.offsetX, event.offsetY);
    setPointer(at);
    if (ruler.tool() !== null) ruler.setCursor(at);
    const value = at && opened.valueAt(Math.floor(at[0]), Math.floor(at[1]));
    setHu(typeof value === 'number' ? Math.round(value) : null);
  };

  /** A press of the left button while drawing is a stroke; with Shift or Ctrl the image moves as ever. */
  const draw = (down: PointerEvent): boolean => {
    const [opened, host] = [view(), element];
    const shown = opened?.shown();
    const plain = down.button === 0 && !down.shiftKey && !down.ctrlKey;
    if (pencil.drawing() === null || !opened || !shown || !host || !plain) return false;
    const { slice } = shown;
    let from = placeAt(shown, down.offsetX, down.offsetY);
    if (from === null) return false;
    const to = (event: PointerEvent) => {
      const now = opened.shown();
      const next = now?.slice === slice ? placeAt(now, event.offsetX, event.offsetY) : null;
      if (from !== null && next !== null) pencil.draw(slice, from, next, huAt);
      from = next;
    };
    to(down);
    press(host, down, to, () => pencil.finish(slice, huAt));
    return true;
  };

  /** A press of the left button with the ruler sets a place, and where it ends another. */
  const span = (down: PointerEvent): boolean => {
    const [opened, host] = [view(), element];
    const shown = opened?.shown();
    const plain = down.button === 0 && !down.shiftKey && !down.ctrlKey;
    if (ruler.tool() === null || !opened || !shown || !host || !plain) return false;
    const { slice } = shown;
    const at = placeAt(shown, down.offsetX, down.offsetY);
    if (at === null) return false;
    ruler.put(slice, at, huAt);
    press(
      host,
      down,
      () => undefined,
      (up) => {
        const now = opened.shown();
        const end = now?.slice === slice ? placeAt(now, up.offsetX, up.offsetY) : null;
        if (end !== null) ruler.lift(slice, end, huAt);
      },
    );
    return true;
  };

  const slice = (): Slice | undefined => session.slices()[session.shown() ?? -1];

  return (
    <>
      <Toolbar session={session} comparable={props.comparisons.length > 0} onFit={() => view()?.fit()} />
      {props.tools}
      <div class="screen">
        <Strip session={session} />
        <div
          class="viewport"
          inert={session.planes()}
          role="application"
          aria-label={messages.viewer.label}
          tabIndex={0}
          data-shown={session.shown() ?? ''}
          data-uid={slice()?.key ?? ''}
          data-series={session.series() ?? ''}
          data-drawing={pencil.drawing() !== null}
          data-measuring={ruler.tool() !== null}
          data-window={`${Math.round(session.window().width)}/${Math.round(session.window().level)}`}
        >
          <div
            class="picture"
            ref={element}
            onPointerMove={point}
            onPointerLeave={() => {
              setHu(null);
              setPointer(null);
            }}
          />
          <div aria-hidden="true">
            <canvas class="over" data-layer="uncertainty" ref={mapCanvas} />
            <canvas class="over" data-layer="mask" ref={maskCanvas} />
            <MeasureLines ruler={ruler} shown={onScreen()} />
          </div>
          <div class="labels" aria-hidden="true">
            <p class="tl">
              <strong>{props.name}</strong>
            </p>
            <p class="tr num">
              {messages.viewer.slice((session.shown() ?? session.asked()) + 1, session.slices().length)}
              <br />
              {messages.viewer.place((slice()?.alongMm ?? 0).toFixed(1))}
              <Show when={slice()?.sliceThicknessMm ?? null} keyed>
                {(mm) => (
                  <>
                    <br />
                    {messages.viewer.thickness(String(mm))}
                  </>
                )}
              </Show>
            </p>
            <p class="br num">
              {messages.viewer.window(Math.round(session.window().width), Math.round(session.window().level))}
              <br />
              <Show when={hu() !== null} fallback={'\u00a0'}>
                {messages.viewer.hu(hu() ?? 0)}
              </Show>
            </p>
            <Sides slice={slice()} />
          </div>
          <Legend session={session} />
          <Show when={trouble()} keyed>
            {(text) => <Trouble text={text} />}
          </Show>
        </div>
        <Show when={session.comparing() && view() !== null && props.comparisons.length > 0}>
          <Prior session={session} comparisons={props.comparisons} />
        </Show>
        <Show when={session.planes() && view() !== null ? session.slices() : null} keyed>
          {(slices) => <Planes session={session} slices={slices} view={view() as StackView} />}
        </Show>
      </div>
    </>
  );
}

/** Follows a press until the button is let go. */
function press(
  host: HTMLElement,
  down: PointerEvent,
  to: (event: PointerEvent) => void,
  end: (event: PointerEvent) => void,
): void {
  const over = new AbortController();
  const { signal } = over;
  const up = (event: PointerEvent) => {
    over.abort();
    end(event);
  };
  host.setPointerCapture(down.pointerId);
  host.addEventListener('pointermove', to, { signal });
  host.addEventListener('pointerup', up, { signal });
  host.addEventListener('pointercancel', up, { signal });
}

/** The place on the image under a point of the viewport, in pixels. */
function placeAt({ affine: [a, b, c, d, e, f] }: Shown, x: number, y: number): Place | null {
  const determinant = a * d - b * c;
  if (determinant === 0) return null;
  const [dx, dy] = [x - e, y - f];
  return [(d * dx - c * dy) / determinant, (a * dy - b * dx) / determinant];
}
