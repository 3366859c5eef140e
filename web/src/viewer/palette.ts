/**
 * Colours that people with any kind of colour vision can tell apart, on grey pictures.
 *
 * Findings: Okabe & Ito's set, from "Color Universal Design" (2008), without those that are dark on grey.
 * Uncertainty: viridis (S. van der Walt, N. Smith, matplotlib, CC0), eleven stops, linear in between: lightness grows with the value.
 */

export type Rgb = readonly [number, number, number];

/** Orange, sky blue, reddish purple, bluish green: findings in their order. */
const FINDING_COLOURS: readonly Rgb[] = [
  [255, 149, 38],
  [86, 196, 255],
  [240, 140, 200],
  [40, 200, 150],
];

const VIRIDIS: readonly Rgb[] = [
  [68, 1, 84],
  [72, 36, 117],
  [65, 68, 135],
  [53, 95, 141],
  [42, 120, 142],
  [33, 145, 140],
  [34, 168, 132],
  [68, 191, 112],
  [122, 209, 81],
  [189, 223, 38],
  [253, 231, 37],
];

/** Below this uncertainty nothing is drawn, so that the brain stays visible where the members agree. */
export const DRAWN_FROM = 0.05;
/** From this uncertainty on the colour is as opaque as the slider says. */
const OPAQUE_FROM = 0.3;

/** Anatomical structures: ten that can be told apart on grey. */
const STRUCTURE_COLOURS: readonly Rgb[] = [
  [119, 170, 221],
  [238, 136, 102],
  [238, 221, 136],
  [255, 170, 187],
  [68, 187, 153],
  [187, 204, 51],
  [153, 221, 255],
  [204, 187, 255],
  [221, 170, 51],
  [221, 221, 221],
];

/** Arteries, and regions of ASPECTS, whose M1 and M2 are others than the arteries' and never on the same series. */
const STRUCTURES: readonly (readonly string[])[] = [
  ['m1', 'm2', 'm3', 'm4', 'm5', 'm6', 'caudate', 'lentiform', 'internal_capsule', 'insula'],
  ['m1', 'm2', 'internal_carotid', 'anterior_cerebral', 'posterior_cerebral', 'basilar', 'vertebral'],
];

/** What a reader drew, or draws: Okabe & Ito's yellow, unlike every finding's. */
export const READER_COLOUR: Rgb = [240, 228, 66];

/** The colour of a kind of finding: one a kind, in the order in which the kinds are first met. */
export function findingColour(index: number): Rgb {
  return FINDING_COLOURS[index % FINDING_COLOURS.length] ?? [255, 149, 38];
}

/** The colour of a structure, the same in every study; that of one of another model by its number in the Segmentation. */
export function structureColour(name: string, segment: number): Rgb {
  const known = STRUCTURES.map((names) => names.indexOf(name)).find((at) => at >= 0);
  return STRUCTURE_COLOURS[(known ?? segment - 1) % STRUCTURE_COLOURS.length] ?? [119, 170, 221];
}

/** The colour of an uncertainty from 0 to 1. */
export function uncertaintyColour(value: number): Rgb {
  const at = Math.min(Math.max(value, 0), 1) * (VIRIDIS.length - 1);
  const low = VIRIDIS[Math.floor(at)] ?? [0, 0, 0];
  const high = VIRIDIS[Math.ceil(at)] ?? low;
  const mix = (i: 0 | 1 | 2) => Math.round(low[i] + (high[i] - low[i]) * (at % 1));
  return [mix(0), mix(1), mix(2)];
}

/** How opaque an uncertainty is drawn, 0 to 1. */
export function uncertaintyAlpha(value: number): number {
  return Math.min(Math.max((value - DRAWN_FROM) / (OPAQUE_FROM - DRAWN_FROM), 0), 1);
}

export function css([r, g, b]: Rgb, alpha = 1): string {
  return `rgb(${r} ${g} ${b} / ${alpha})`;
}

/** The colour bar as a CSS gradient. */
export function uncertaintyGradient(direction: string): string {
  const stops = VIRIDIS.map((_, i) => {
    const value = i / (VIRIDIS.length - 1);
    return `${css(uncertaintyColour(value), uncertaintyAlpha(value))} ${value * 100}%`;
  });
  return `linear-gradient(${direction}, ${stops.join(', ')})`;
}
