/**
 * Image metadata → slices in order along their normal.
 *
 * InstanceNumber never decides the order.
 * Images that cannot be placed, or that lie in another orientation than the most, are left out and counted.
 * Nothing is resampled: each slice keeps its own position, so tilt and uneven steps stay what they are.
 *
 * Source: PS3.3 C.7.6.2.
 */

import { type FrameMetadata, frames } from './enhanced.ts';
import { type DicomJson, number, numbers, text } from './json.ts';

export type Vec3 = [number, number, number];

/** Where one frame lies in the patient: LPS millimetres. */
export interface Plane {
  rows: number;
  columns: number;
  /** Image Orientation (Patient): direction of a row, then of a column. */
  imageOrientationPatient: number[];
  /** Image Position (Patient): centre of the first pixel. */
  imagePositionPatient: number[];
  /** Pixel Spacing: between rows, then between columns. */
  pixelSpacingMm: number[];
  frameOfReferenceUid: string | null;
}

/** One original image, or a frame of one. */
export interface Slice extends Plane {
  /** What the page knows it by. */
  key: string;
  sliceThicknessMm: number | null;
  /** Distance along the normal from the patient origin. */
  alongMm: number;
  metadata: DicomJson;
}

export interface Stack {
  slices: Slice[];
  /** Images that are not in the stack. */
  leftOut: number;
}

/** Largest difference of a direction cosine, a position or a spacing (mm) that counts as none. */
export const TOLERANCE = 1e-3;

export function near(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((v, i) => Math.abs(v - (b[i] ?? Number.NaN)) <= TOLERANCE);
}

export function dot(a: readonly number[], b: readonly number[]): number {
  return a.reduce((sum, v, i) => sum + v * (b[i] ?? 0), 0);
}

/** The unit normal of a plane: row direction × column direction. */
export function normal(orientation: readonly number[]): Vec3 {
  const [ax = 0, ay = 0, az = 0, bx = 0, by = 0, bz = 0] = orientation;
  const n: Vec3 = [ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx];
  const length = Math.hypot(...n);
  return [n[0] / length, n[1] / length, n[2] / length];
}

/** The SOP Instance UID, with the frame behind it where there are several. */
export function imageKey(sopInstanceUid: string, frame: number | null): string {
  return frame === null ? sopInstanceUid : `${sopInstanceUid}/frames/${frame}`;
}

/** What a key was made of. */
export function ofKey(key: string): { sop_instance_uid: string; frame?: number } {
  const [uid = '', frame] = key.split('/frames/');
  return frame === undefined ? { sop_instance_uid: uid } : { sop_instance_uid: uid, frame: Number(frame) };
}

function slice({ frame, metadata }: FrameMetadata): Slice | null {
  const sopInstanceUid = text(metadata, '00080018');
  const rows = number(metadata, '00280010');
  const columns = number(metadata, '00280011');
  const imageOrientationPatient = numbers(metadata, '00200037', 6);
  const imagePositionPatient = numbers(metadata, '00200032', 3);
  const pixelSpacingMm = numbers(metadata, '00280030', 2);
  const count = number(metadata, '00280008') ?? 1;
  if (
    !(sopInstanceUid && rows && columns && imageOrientationPatient && imagePositionPatient && pixelSpacingMm)
  ) {
    return null;
  }
  const along = dot(imagePositionPatient, normal(imageOrientationPatient));
  if (count !== 1 || !Number.isFinite(along)) return null;
  return {
    key: imageKey(sopInstanceUid, frame),
    rows,
    columns,
    imageOrientationPatient,
    imagePositionPatient,
    pixelSpacingMm,
    frameOfReferenceUid: text(metadata, '00200052'),
    sliceThicknessMm: number(metadata, '00180050'),
    alongMm: along,
    metadata,
  };
}

/** Orders the images of a series along their normal. */
export function stack(series: readonly DicomJson[]): Stack {
  const groups: Slice[][] = [];
  const images = series.flatMap(frames);
  for (const image of images) {
    const next = slice(image);
    if (next === null) continue;
    const group = groups.find(([first]) => first !== undefined && sameShape(first, next));
    if (group) group.push(next);
    else groups.push([next]);
  }
  const slices = groups.reduce((most, group) => (group.length > most.length ? group : most), []);
  slices.sort((a, b) => a.alongMm - b.alongMm);
  return { slices, leftOut: images.length - slices.length };
}

function sameShape(a: Slice, b: Slice): boolean {
  return (
    a.rows === b.rows && a.columns === b.columns && near(a.imageOrientationPatient, b.imageOrientationPatient)
  );
}

/** Which way the order runs: +1 when the last slice is nearest the head, −1 when it is nearest the feet. */
export function headward(slices: readonly Slice[]): 1 | -1 {
  const first = slices[0];
  return first !== undefined && normal(first.imageOrientationPatient)[2] < 0 ? -1 : 1;
}

/** The patient directions that a vector points to, strongest first: `L`, `PH`, …; nothing below 0.1. */
export function letters(direction: readonly number[]): string {
  const names = ['LR', 'PA', 'HF'];
  return direction
    .map((v, i) => ({ size: Math.abs(v), letter: names[i]?.[v > 0 ? 0 : 1] ?? '' }))
    .filter(({ size }) => size > 0.1)
    .sort((a, b) => b.size - a.size)
    .map(({ letter }) => letter)
    .join('');
}
