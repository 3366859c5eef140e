/**
 * Bars, each a link to its cases.
 *
 * The library draws SVG, so that bars are real links for keyboard and screen reader, unlike those of a canvas.
 */

import * as Plot from '@observablehq/plot';
import { createEffect, onCleanup, onMount, createSignal } from 'solid-js';
import { go, isPlain } from '../router.ts';
import { messages } from '../ui/messages.ts';

const said = messages.figures;

/** Okabe and Ito's colours, which all can tell apart; each outcome has the same one everywhere. */
const COLOURS: readonly (readonly [string, string])[] = [
  ['accept', '#009e73'],
  ['reject', '#d55e00'],
  ['missed', '#cc79a7'],
  ['unsure', '#e69f00'],
  ['differ', '#8a949e'],
];

export interface Bar {
  /** The row, or with `upright` the column. */
  name: string;
  outcome: string;
  count: number;
  /** Where its cases are; null for none. */
  href: string | null;
}

const NARROW = 480;

export function Chart(props: { label: string; bars: readonly Bar[]; upright?: boolean }) {
  let host: HTMLDivElement | undefined;
  const [width, setWidth] = createSignal(0);
  onMount(() => {
    if (!host) return;
    const observer = new ResizeObserver(([entry]) => setWidth(Math.round(entry?.contentRect.width ?? 0)));
    observer.observe(host);
    onCleanup(() => observer.disconnect());
  });
  createEffect(() => {
    const bars = [...props.bars];
    if (!host || width() === 0) return;
    const names = [...new Set(bars.map(({ name }) => name))];
    const outcomes = COLOURS.filter(([outcome]) => bars.some((bar) => bar.outcome === outcome));
    const look = {
      fill: (bar: Bar) => said.outcomes[bar.outcome] ?? bar.outcome,
      href: 'href',
      title: (bar: Bar) => said.bar(bar.name, said.outcomes[bar.outcome] ?? bar.outcome, bar.count),
      ariaLabel: (bar: Bar) => said.bar(bar.name, said.outcomes[bar.outcome] ?? bar.outcome, bar.count),
      inset: 0.5,
    } as const;
    const totals = names.map((name) =>
      bars.reduce((sum, bar) => sum + (bar.name === name ? bar.count : 0), 0),
    );
    // There is no half a case.
    const ticks = Math.min(Math.max(...totals, 1), 5);
    const counts = { label: said.count, ticks, tickFormat: 'd', grid: true } as const;
    const chart = Plot.plot({
      width: Math.max(width(), NARROW),
      marginLeft: props.upright ? 40 : 220,
      style: { background: 'none', fontSize: '13px', fontFamily: 'inherit' },
      ariaLabel: props.label,
      color: {
        domain: outcomes.map(([outcome]) => said.outcomes[outcome] ?? outcome),
        range: outcomes.map(([, colour]) => colour),
        legend: true,
      },
      ...(props.upright
        ? {
            height: 220,
            x: { label: null, domain: names },
            y: counts,
            marks: [Plot.barY(bars, { ...look, x: 'name', y: 'count' }), Plot.ruleY([0])],
          }
        : {
            height: 60 + 34 * names.length,
            x: counts,
            y: { label: null, domain: names },
            marks: [Plot.barX(bars, { ...look, y: 'name', x: 'count' }), Plot.ruleX([0])],
          }),
    });
    // A name wants a role, and "img" would hide the links within.
    for (const named of chart.querySelectorAll('svg[aria-label], g[aria-label]'))
      named.setAttribute('role', 'group');
    host.replaceChildren(chart);
  });
  /** A plain click on a bar stays in the page. */
  const follow = (event: MouseEvent) => {
    const link = (event.target as Element).closest('a');
    const address = link?.getAttribute('href') ?? link?.getAttribute('xlink:href');
    if (!address || !isPlain(event)) return;
    event.preventDefault();
    go(address);
  };
  return <div class="chart" ref={host} onClick={follow} />;
}
