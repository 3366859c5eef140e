/** The windows of head CT, by key. */

export interface Window {
  /** HU. */
  width: number;
  /** HU. */
  level: number;
}

export interface Preset extends Window {
  key: string;
  name: 'brain' | 'stroke' | 'subdural' | 'bone' | 'vessels';
}

/** Of the vessels' preset, for series on which arteries were looked at. */
export const VESSELS: Window = { width: 600, level: 200 };

export const PRESETS: readonly Preset[] = [
  { key: '1', name: 'brain', width: 80, level: 40 },
  { key: '2', name: 'stroke', width: 40, level: 40 },
  { key: '3', name: 'subdural', width: 200, level: 70 },
  { key: '4', name: 'bone', width: 2000, level: 500 },
  { key: '5', name: 'vessels', ...VESSELS },
];

export const FIRST_WINDOW: Window = { width: 80, level: 40 };
