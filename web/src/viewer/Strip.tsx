/**
 * The strip beside the stack: one line a slice, head on top, with how much finding and how much doubt it holds.
 *
 * Both bars are areas in cm² on one scale, so that they can be compared.
 */

import { createEffect, createMemo, createSignal, onCleanup, onMount } from 'solid-js';
import { headward } from '../dicomweb/geometry.ts';
import { messages } from '../ui/messages.ts';
import { findingCm2 } from './overlays.ts';
import { css, uncertaintyColour } from './palette.ts';
import type { Session } from './session.ts';

/** The scale never ends below this area, so that specks do not look like masses. */
const SMALLEST_SCALE_CM2 = 5;
/** Colour of doubt: that of an uncertainty of 0.75. */
const DOUBT = css(uncertaintyColour(0.75));

export function Strip(props: { session: Session }) {
  let canvas: HTMLCanvasElement | undefined;
  const [size, setSize] = createSignal({ width: 0, height: 0 });

  const areas = createMemo(() => {
    const overlays = props.session.overlays();
    return props.session.slices().map((slice) => ({
      finding: findingCm2(overlays, slice),
      doubt: overlays.doubtCm2.get(slice.key) ?? null,
    }));
  });
  const scale = createMemo(() =>
    areas().reduce((most, { finding, doubt }) => Math.max(most, finding, doubt ?? 0), SMALLEST_SCALE_CM2),
  );
  const now = () => props.session.shown() ?? props.session.asked();
  const upward = () => headward(props.session.slices()) > 0;

  onMount(() => {
    const observer = new ResizeObserver(() => {
      setSize({ width: canvas?.clientWidth ?? 0, height: canvas?.clientHeight ?? 0 });
    });
    if (canvas) observer.observe(canvas);
    onCleanup(() => observer.disconnect());
  });
  createEffect(() => {
    const context = canvas?.getContext('2d');
    const { width, height } = size();
    if (!canvas || !context || width === 0) return;
    canvas.width = width * devicePixelRatio;
    canvas.height = height * devicePixelRatio;
    context.scale(devicePixelRatio, devicePixelRatio);
    const list = areas();
    const step = height / Math.max(list.length, 1);
    const bar = Math.max(step - 1, 1);
    const half = (width - 8) / 2;
    list.forEach(({ finding, doubt }, index) => {
      const line = upward() ? list.length - 1 - index : index;
      const y = line * step;
      if (index === now()) {
        context.fillStyle = 'rgb(255 255 255 / 0.28)';
        context.fillRect(0, y, width, Math.max(step, 3));
      }
      context.fillStyle = 'rgb(255 255 255 / 0.09)';
      context.fillRect(3, y, half, bar);
      context.fillRect(5 + half, y, half, bar);
      const draw = (x: number, value: number, colour: string) => {
        if (value <= 0) return;
        context.fillStyle = colour;
        context.fillRect(x, y, Math.max((value / scale()) * half, 2), bar);
      };
      draw(3, finding, css(props.session.colour(props.session.here()[0])));
      draw(5 + half, doubt ?? 0, DOUBT);
      if (index === now()) {
        context.strokeStyle = '#fff';
        context.lineWidth = 1.5;
        context.strokeRect(0.75, y + 0.25, width - 1.5, Math.max(step - 0.5, 3));
      }
    });
  });

  const point = (event: PointerEvent) => {
    if (event.buttons !== 1 || !canvas) return;
    const { top, height } = canvas.getBoundingClientRect();
    const count = props.session.slices().length;
    const line = Math.min(Math.max(Math.floor(((event.clientY - top) / height) * count), 0), count - 1);
    props.session.go(upward() ? count - 1 - line : line);
  };
  const said = () => {
    const here = areas()[now()];
    return messages.viewer.stripValue(
      now() + 1,
      props.session.slices().length,
      (here?.finding ?? 0).toFixed(1),
      here?.doubt?.toFixed(1) ?? null,
    );
  };

  return (
    <div class="strip">
      <div
        class="strip-body"
        role="slider"
        tabIndex={0}
        aria-orientation="vertical"
        aria-label={messages.viewer.strip}
        aria-valuemin={1}
        aria-valuemax={props.session.slices().length}
        aria-valuenow={now() + 1}
        aria-valuetext={said()}
        title={said()}
        onPointerDown={(event) => {
          event.currentTarget.setPointerCapture(event.pointerId);
          point(event);
        }}
        onPointerMove={point}
      >
        <canvas ref={canvas} />
      </div>
      <p aria-hidden="true">
        <span style={{ color: css(props.session.colour(props.session.here()[0])) }}>
          {messages.viewer.stripFinding}
        </span>
        <span style={{ color: DOUBT }}>{messages.viewer.stripDoubt}</span>
      </p>
    </div>
  );
}
