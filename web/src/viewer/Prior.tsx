/**
 * Another study of the same patient beside the slices.
 *
 * Nothing is registered: slices are matched by their distance from the uppermost one, and scrolling here shifts the match.
 */

import { createEffect, createMemo, createSignal, For, on, onCleanup, onMount, Show, untrack } from 'solid-js';
import { getStudy, sentence } from '../api/client.ts';
import type { Comparison, StudyDetail } from '../api/model.ts';
import { seriesMetadata } from '../dicomweb/client.ts';
import { headward, stack } from '../dicomweb/geometry.ts';
import { dicomDate, dicomTime } from '../ui/format.ts';
import { messages } from '../ui/messages.ts';
import { Trouble } from '../ui/Trouble.tsx';
import { atDepth, depthMm } from './depth.ts';
import { Loader } from './overlays.ts';
import { Painter } from './painter.ts';
import { firstSeries } from './series.ts';
import { Sides } from './Sides.tsx';
import { createSession, type Session } from './session.ts';
import { createView } from './view.ts';

const said = messages.compare;

export default function Prior(props: { session: Session; comparisons: readonly Comparison[] }) {
  const [uid, setUid] = createSignal(untrack(() => props.comparisons[0]?.study_instance_uid ?? ''));
  const title = (other: Comparison) =>
    [`${dicomDate(other.study_date)} ${dicomTime(other.study_time)}`.trim(), other.study_description]
      .filter(Boolean)
      .join(' · ');
  return (
    <section class="prior" aria-label={said.label}>
      <header>
        <select aria-label={said.which} value={uid()} onChange={(event) => setUid(event.currentTarget.value)}>
          <For each={props.comparisons}>
            {(other) => <option value={other.study_instance_uid}>{title(other)}</option>}
          </For>
        </select>
        <p class="dim">{said.note}</p>
      </header>
      <Show when={uid()} keyed>
        {(other) => <Beside uid={other} now={props.session} />}
      </Show>
    </section>
  );
}

function Beside(props: { uid: string; now: Session }) {
  const now = untrack(() => props.now);
  const [study, setStudy] = createSignal<StudyDetail | null>(null);
  const [trouble, setTrouble] = createSignal<string | null>(null);
  /** How much deeper this study is shown than the other, mm. */
  const [shift, setShift] = createSignal(0);
  const session = createSession(study, () => undefined);
  let element: HTMLDivElement | undefined;
  let maskCanvas: HTMLCanvasElement | undefined;
  let mapCanvas: HTMLCanvasElement | undefined;
  let painter: Painter | undefined;
  let closed = false;
  onCleanup(() => {
    closed = true;
  });

  void (async () => {
    try {
      const found = await getStudy(untrack(() => props.uid));
      const series = firstSeries(found);
      if (closed) return;
      setStudy(found);
      if (series === null) return void setTrouble(messages.study.noSeries);
      const { slices } = stack(await seriesMetadata(found.study_instance_uid, series));
      if (closed) return;
      if (slices.length === 0) return void setTrouble(messages.study.noSeries);
      session.use(series, slices);
      if (found.analysis === null) return;
      const loader = new Loader(
        found.study_instance_uid,
        found.analysis,
        series,
        slices,
        (overlays) => !closed && session.setOverlays(overlays),
      );
      await loader.start();
    } catch (error) {
      setTrouble(sentence(error));
    }
  })();

  const paint = () => {
    const shown = view()?.shown() ?? null;
    painter?.paint(shown, {
      mask: now.mask(),
      map: now.uncertainty() ? session.layer() : null,
      contours: null,
      anatomy: false,
      opacity: now.opacity(),
      colour: session.segmentColour,
      chosen: null,
      drawing: null,
      brush: null,
      trace: { places: [], box: false },
    });
    const index = shown === null ? -1 : session.slices().indexOf(shown.slice);
    session.setShown(index < 0 ? null : index);
  };
  onMount(() => {
    if (maskCanvas && mapCanvas) painter = new Painter(maskCanvas, mapCanvas, session.overlays());
    element?.addEventListener('wheel', scroll, { passive: false });
  });
  const view = createView(
    () => element,
    {
      drawn: () => paint(),
      windowed: now.setWindow,
      failed: (index) => setTrouble(messages.viewer.unreadable(index + 1)),
      grabbed: () => false,
    },
    setTrouble,
  );

  /** The slice beside the one that is shown in the other study. */
  const matched = createMemo(() =>
    session.slices().length === 0
      ? 0
      : atDepth(session.slices(), depthMm(now.slices(), now.asked()) + shift()),
  );
  createEffect(
    on([view, session.slices], ([opened, slices]) => {
      const series = session.series();
      if (opened === null || series === null || slices.length === 0) return;
      opened
        .show(
          untrack(() => props.uid),
          series,
          slices,
          matched(),
          now.window(),
        )
        .catch((error) => {
          setTrouble(sentence(error));
        });
    }),
  );
  createEffect(
    on(
      [view, matched],
      ([opened, index]) => {
        session.go(index);
        if (session.slices().length > 0) void opened?.go(index);
      },
      { defer: true },
    ),
  );
  createEffect(on(now.window, (window) => view()?.window(window), { defer: true }));
  createEffect(
    on(session.overlays, (overlays) => {
      painter?.use(overlays);
      paint();
    }),
  );
  createEffect(on([now.mask, now.uncertainty, now.opacity, session.layer], paint, { defer: true }));

  const move = (steps: number) => {
    const slices = session.slices();
    const to = Math.min(Math.max(matched() + steps * headward(slices), 0), slices.length - 1);
    setShift(depthMm(slices, to) - depthMm(now.slices(), now.asked()));
  };
  const scroll = (event: WheelEvent) => {
    event.preventDefault();
    if (event.deltaY !== 0) move(-Math.sign(event.deltaY));
  };
  const slice = () => session.slices()[session.shown() ?? -1];

  return (
    <div
      class="beside"
      data-shown={session.shown() ?? ''}
      data-wanted={matched()}
      data-shift={shift().toFixed(1)}
    >
      <div class="picture" ref={element} />
      <div aria-hidden="true">
        <canvas class="over" ref={mapCanvas} />
        <canvas class="over" data-layer="prior-mask" ref={maskCanvas} />
      </div>
      <div class="labels" aria-hidden="true">
        <p class="tr num">
          {messages.viewer.slice((session.shown() ?? 0) + 1, session.slices().length)}
          <br />
          {said.below(depthMm(session.slices(), session.shown() ?? 0).toFixed(1))}
          <Show when={slice()?.sliceThicknessMm ?? null} keyed>
            {(mm) => (
              <>
                <br />
                {messages.viewer.thickness(String(mm))}
              </>
            )}
          </Show>
        </p>
        <Sides slice={slice()} />
      </div>
      <div class="buttons shift">
        <button type="button" aria-label={said.up} onClick={() => move(1)}>
          ↑
        </button>
        <button type="button" aria-label={said.down} onClick={() => move(-1)}>
          ↓
        </button>
        <Show when={Math.abs(shift()) > 0.05}>
          <button type="button" onClick={() => setShift(0)}>
            {said.reset(shift().toFixed(1))}
          </button>
        </Show>
      </div>
      <Show when={trouble()} keyed>
        {(text) => <Trouble text={text} />}
      </Show>
    </div>
  );
}
