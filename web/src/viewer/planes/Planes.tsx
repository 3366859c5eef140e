/** Axial, coronal and sagittal planes through one point, laid through the original slices. */

import {
  batch,
  createEffect,
  createMemo,
  createSignal,
  For,
  on,
  onCleanup,
  onMount,
  Show,
  untrack,
} from 'solid-js';
import { sentence } from '../../api/client.ts';
import { letters, type Slice, type Vec3 } from '../../dicomweb/geometry.ts';
import { messages } from '../../ui/messages.ts';
import { Trouble } from '../../ui/Trouble.tsx';
import { css } from '../palette.ts';
import type { Session } from '../session.ts';
import type { StackView } from '../stack.ts';
import { picture } from './picture.ts';
import { ACROSS, ALONG, AXES, type Axis, Block, type Plane } from './reslice.ts';

const words = messages.planes;
/** Heights of slabs, mm, of which the brightest is shown; 0 for the plane itself. */
const SLABS = [0, 10, 20, 30] as const;
/** Wheel distance that makes a step. */
const WHEEL_STEP = 50;
/** How many slices are waited for at once. */
const AT_ONCE = 6;

export default function Planes(props: { session: Session; slices: readonly Slice[]; view: StackView }) {
  const { session, slices } = untrack(() => props);
  const refusal = Block.refuses(slices);
  return (
    <Show when={refusal === null} fallback={<p class="planes wait">{words.few}</p>}>
      <Loaded session={session} view={props.view} block={new Block(slices)} />
    </Show>
  );
}

function Loaded(props: { session: Session; view: StackView; block: Block }) {
  const { session, view, block } = untrack(() => props);
  const [done, setDone] = createSignal(0);
  const [trouble, setTrouble] = createSignal<string | null>(null);
  const hu: (ArrayLike<number> | null)[] = block.slices.map(() => null);
  let closed = false;
  onCleanup(() => {
    closed = true;
  });
  onMount(async () => {
    const order = block.slices.map((_, i) => i);
    const next = async (): Promise<void> => {
      for (let i = order.shift(); i !== undefined && !closed; i = order.shift()) {
        hu[i] = await view.hu(i);
        setDone((n) => n + 1);
      }
    };
    try {
      await Promise.all(Array.from({ length: AT_ONCE }, next));
    } catch (error) {
      setTrouble(words.incomplete(sentence(error)));
    }
  });
  const ready = () => done() === block.slices.length;
  return (
    <section class="planes" aria-label={words.label} data-planes={ready() ? 'ready' : 'loading'}>
      <Show
        when={ready()}
        fallback={
          <Show
            when={trouble()}
            fallback={<p class="wait">{words.loading(done(), block.slices.length)}</p>}
            keyed
          >
            {(text) => <Trouble text={text} />}
          </Show>
        }
      >
        <Three session={session} block={block} hu={(i) => hu[i] ?? null} />
      </Show>
    </section>
  );
}

function Three(props: { session: Session; block: Block; hu: (slice: number) => ArrayLike<number> | null }) {
  const { session, block, hu } = untrack(() => props);
  const start = session.chosenFinding()?.center_mm ?? block.onto(block.middle, session.asked());
  const [point, setPoint] = createSignal<Vec3>(start);
  const [slab, setSlab] = createSignal<number>(0);
  const [zoom, setZoom] = createSignal(1);
  const [centre, setCentre] = createSignal<Vec3>(block.middle);

  const move = (to: Vec3) => {
    const { low, high } = block.box;
    setPoint(to.map((v, a) => Math.min(Math.max(v, low[a] ?? v), high[a] ?? v)) as Vec3);
  };
  const step = (axis: Axis, steps: number) => {
    const to: Vec3 = [...point()];
    to[ACROSS[axis]] += steps * block.box.pixelMm;
    move(to);
  };
  createEffect(
    on(session.chosenFinding, (finding) => finding?.center_mm && move(finding.center_mm), { defer: true }),
  );
  // The stack below goes where the planes are, and the other way round.
  createEffect(on(point, (at) => void session.go(block.nearest(at)), { defer: true }));
  createEffect(
    on(
      session.asked,
      (index) => {
        const finding = session.chosenFinding();
        const at = finding?.center_mm.join() === point().join() ? finding : null;
        // A jump goes to the finding's centre here, and to where it is largest on the slices.
        if (at && session.sliceOf(at) === index) return;
        if (block.nearest(point()) !== index) move(block.onto(point(), index));
      },
      { defer: true },
    ),
  );

  /** Segment numbers and doubt of each slice, unpacked once. */
  const segments = createMemo(() => {
    const { masks } = session.overlays();
    return remembered((i) => {
      const of = masks.get(block.slices[i]?.key ?? '');
      if (of === undefined) return null;
      const { rows, columns } = block.slices[i] ?? { rows: 0, columns: 0 };
      const numbers = new Uint16Array(rows * columns);
      for (const mask of of) {
        mask.unpack().forEach((bit, p) => {
          if (bit) numbers[p] = Math.max(mask.segment, 1);
        });
      }
      return numbers;
    });
  });
  const doubt = createMemo(() => {
    const frames = session.layer()?.frames;
    return remembered((i) => frames?.get(block.slices[i]?.key ?? '')?.values() ?? null);
  });
  const here = createMemo(() => {
    const plane = { ...block.plane('axial', point()), rows: 1, columns: 1 };
    const [x, y, z] = point();
    const [value = Number.NaN] = block.values({ ...plane, origin: [x, y, z] }, hu, true);
    return value;
  });

  return (
    <>
      <For each={AXES}>
        {(axis) => (
          <PlaneView
            axis={axis}
            session={session}
            block={block}
            hu={hu}
            segments={segments()}
            doubt={doubt()}
            point={point()}
            slab={slab()}
            zoom={zoom()}
            centre={centre()}
            onPoint={move}
            onStep={(steps) => step(axis, steps)}
            onZoom={(factor) => setZoom((now) => Math.min(Math.max(now * factor, 0.5), 12))}
            onPan={setCentre}
          />
        )}
      </For>
      <div
        class="about"
        data-point={point()
          .map((v) => v.toFixed(2))
          .join(' ')}
      >
        <p class="num">
          {words.place(...place(point()))}
          <br />
          {Number.isNaN(here()) ? words.nothing : messages.viewer.hu(Math.round(here()))}
        </p>
        <fieldset class="buttons">
          <legend>{words.slab}</legend>
          <For each={SLABS}>
            {(mm) => (
              <button type="button" aria-pressed={slab() === mm} onClick={() => setSlab(mm)}>
                {mm === 0 ? words.thin : words.mm(mm)}
              </button>
            )}
          </For>
        </fieldset>
        <button
          type="button"
          onClick={() =>
            batch(() => {
              setZoom(1);
              setCentre(block.middle);
            })
          }
        >
          {messages.viewer.fit}
        </button>
        <p>{words.note(block.slices.length)}</p>
        <Show when={block.gaps > 0}>
          <p class="notice">{words.gaps(block.gaps)}</p>
        </Show>
      </div>
    </>
  );
}

function PlaneView(props: {
  axis: Axis;
  session: Session;
  block: Block;
  hu: (slice: number) => ArrayLike<number> | null;
  segments: (slice: number) => ArrayLike<number> | null;
  doubt: (slice: number) => ArrayLike<number> | null;
  point: Vec3;
  slab: number;
  zoom: number;
  centre: Vec3;
  onPoint: (to: Vec3) => void;
  onStep: (steps: number) => void;
  onZoom: (factor: number) => void;
  onPan: (to: Vec3) => void;
}) {
  const axis = untrack(() => props.axis);
  const session = untrack(() => props.session);
  const [size, setSize] = createSignal<readonly [number, number]>([1, 1]);
  let canvas: HTMLCanvasElement | undefined;
  onMount(() => {
    if (!canvas) return;
    const host = canvas;
    const observer = new ResizeObserver(() => {
      const sharp = globalThis.devicePixelRatio || 1;
      host.width = Math.max(Math.round(host.clientWidth * sharp), 1);
      host.height = Math.max(Math.round(host.clientHeight * sharp), 1);
      setSize([host.width, host.height]);
    });
    observer.observe(host);
    host.addEventListener('wheel', wheel, { passive: false });
    onCleanup(() => observer.disconnect());
  });

  // Only the coordinate across a plane decides what is on it.
  const across = createMemo(() => props.point[ACROSS[axis]]);
  const plane = createMemo((): Plane => {
    const through: Vec3 = [0, 0, 0];
    through[ACROSS[axis]] = across();
    return props.block.plane(axis, through);
  });
  const hu = createMemo(() => props.block.values(plane(), props.hu, true, props.slab));
  const segments = createMemo(() =>
    session.mask() ? props.block.values(plane(), props.segments, false, props.slab) : null,
  );
  const doubt = createMemo(() =>
    session.uncertainty() ? props.block.values(plane(), props.doubt, true, props.slab) : null,
  );
  const image = createMemo(() => {
    const { rows, columns } = plane();
    const drawn = new OffscreenCanvas(columns, rows);
    const layers = { rows, columns, hu: hu(), segments: segments(), doubt: doubt() };
    const pixels = picture(layers, session.window(), session.opacity(), session.segmentColour);
    drawn.getContext('2d')?.putImageData(pixels, 0, 0);
    return drawn;
  });
  /** Canvas pixels a millimetre, and the canvas place of the first image corner. */
  const frame = createMemo(() => {
    const [width, height] = size();
    const { rows, columns, pixelMm, origin } = plane();
    const [x, y, direction] = ALONG[axis];
    const scale = props.zoom * Math.min(width / (columns * pixelMm), height / (rows * pixelMm));
    const left = width / 2 - (props.centre[x] - origin[x] + pixelMm / 2) * scale;
    const top = height / 2 - (direction * (props.centre[y] - origin[y]) + pixelMm / 2) * scale;
    return { scale, left, top, x, y, direction };
  });

  createEffect(() => {
    const context = canvas?.getContext('2d');
    const [width, height] = size();
    if (!context) return;
    const { scale, left, top, x, y, direction } = frame();
    const { rows, columns, pixelMm, origin } = plane();
    context.clearRect(0, 0, width, height);
    context.imageSmoothingEnabled = true;
    context.drawImage(image(), left, top, columns * pixelMm * scale, rows * pixelMm * scale);
    const column = left + (props.point[x] - origin[x] + pixelMm / 2) * scale;
    const row = top + (direction * (props.point[y] - origin[y]) + pixelMm / 2) * scale;
    const open = 12;
    context.strokeStyle = css([120, 200, 255], 0.75);
    context.lineWidth = 1;
    context.beginPath();
    for (const [from, to] of [
      [0, column - open],
      [column + open, width],
    ] as const) {
      context.moveTo(from, row);
      context.lineTo(to, row);
    }
    for (const [from, to] of [
      [0, row - open],
      [row + open, height],
    ] as const) {
      context.moveTo(column, from);
      context.lineTo(column, to);
    }
    context.stroke();
  });

  /** Where on the plane an event is, LPS mm. */
  const at = (event: PointerEvent): Vec3 => {
    const sharp = size()[0] / Math.max(canvas?.clientWidth ?? 1, 1);
    const { scale, left, top, x, y, direction } = frame();
    const { origin, pixelMm } = plane();
    const to: Vec3 = [...props.point];
    to[x] = origin[x] - pixelMm / 2 + (event.offsetX * sharp - left) / scale;
    to[y] = origin[y] + direction * ((event.offsetY * sharp - top) / scale - pixelMm / 2);
    return to;
  };
  const press = (down: PointerEvent) => {
    if (!canvas || down.button > 1) return;
    const host = canvas;
    const over = new AbortController();
    const { signal } = over;
    const pans = down.shiftKey || down.button === 1;
    const grabbed = at(down);
    const centre = props.centre;
    const to = (event: PointerEvent) => {
      if (!pans) return props.onPoint(at(event));
      const now = at(event);
      // The place under the pointer has moved with the picture: what is left is the pointer's own way.
      const shift = props.centre.map((v, a) => v - (centre[a] ?? 0));
      props.onPan(centre.map((v, a) => v + (grabbed[a] ?? 0) - ((now[a] ?? 0) - (shift[a] ?? 0))) as Vec3);
    };
    host.setPointerCapture(down.pointerId);
    if (!pans) props.onPoint(grabbed);
    host.addEventListener('pointermove', to, { signal });
    host.addEventListener('pointerup', () => over.abort(), { signal });
    host.addEventListener('pointercancel', () => over.abort(), { signal });
  };
  let rolled = 0;
  const wheel = (event: WheelEvent) => {
    event.preventDefault();
    if (event.ctrlKey) return props.onZoom(event.deltaY < 0 ? 1.1 : 1 / 1.1);
    rolled += event.deltaY * (event.deltaMode === WheelEvent.DOM_DELTA_PIXEL ? 1 : WHEEL_STEP);
    const steps = Math.trunc(rolled / WHEEL_STEP);
    if (steps === 0) return;
    rolled = 0;
    props.onStep(-Math.sign(steps));
  };
  const key = (event: KeyboardEvent) => {
    const steps: Record<string, number> = {
      ArrowUp: 1,
      ArrowRight: 1,
      ArrowDown: -1,
      ArrowLeft: -1,
      PageUp: 5,
      PageDown: -5,
    };
    const by = steps[event.key];
    if (by === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    props.onStep(by);
  };
  const side = (of: 0 | 1 | 2, direction: 1 | -1) =>
    letters([0, 1, 2].map((a) => (a === of ? direction : 0)));
  const [x, y, down] = ALONG[axis];

  return (
    <div class="plane" data-axis={axis}>
      <canvas
        ref={canvas}
        tabIndex={0}
        role="application"
        aria-label={words.axes[axis]}
        onPointerDown={press}
        on:keydown={key}
      />
      <p class="tl" aria-hidden="true">
        {words.names[axis]}
      </p>
      <span class="side left" aria-hidden="true">
        {side(x, -1)}
      </span>
      <span class="side right" aria-hidden="true">
        {side(x, 1)}
      </span>
      <span class="side top" aria-hidden="true">
        {side(y, down === 1 ? -1 : 1)}
      </span>
      <span class="side bottom" aria-hidden="true">
        {side(y, down)}
      </span>
    </div>
  );
}

/** Keeps what was made once. */
function remembered<T>(make: (slice: number) => T): (slice: number) => T {
  const made = new Map<number, T>();
  return (slice) => {
    const known = made.get(slice);
    if (known !== undefined || made.has(slice)) return known as T;
    const value = make(slice);
    made.set(slice, value);
    return value;
  };
}

/** LPS mm → amounts with the letters of their directions. */
function place([x, y, z]: Vec3): [string, string, string] {
  const of = (value: number, plus: string, minus: string) =>
    `${value < 0 ? minus : plus} ${Math.abs(value).toFixed(0)}`;
  return [of(x, 'L', 'R'), of(y, 'P', 'A'), of(z, 'H', 'F')];
}
