/** Values → what a reader sees. What is not known is a dash, never 0. */

import type { Progress } from '../api/model.ts';
import { messages } from './messages.ts';

export const DASH = '–';

/** `DOE^JANE^M` → `DOE, Jane M` as the name says it; the alphabetic group only. */
export function personName(name: string | null): string {
  const [alphabetic = ''] = (name ?? '').split('=');
  const [family = '', given = '', middle = ''] = alphabetic.split('^').map((part) => part.trim());
  const rest = [given, middle].filter(Boolean).join(' ');
  return [family, rest].filter(Boolean).join(', ') || messages.worklist.unnamed;
}

/** DICOM DA `20261122` → `2026-11-22`; anything else as it is. */
export function dicomDate(date: string | null): string {
  const match = /^(\d{4})-?(\d{2})-?(\d{2})$/.exec(date ?? '');
  return match ? `${match[1]}-${match[2]}-${match[3]}` : (date ?? '');
}

/** DICOM TM `231500.12` → `23:15`. */
export function dicomTime(time: string | null): string {
  const match = /^(\d{2}):?(\d{2})/.exec(time ?? '');
  return match ? `${match[1]}:${match[2]}` : '';
}

/** How long ago, in whole minutes at most. */
export function since(then: string, now: number): string {
  const minutes = Math.floor((now - Date.parse(then)) / 60_000);
  if (!Number.isFinite(minutes)) return DASH;
  if (minutes < 1) return messages.time.now;
  if (minutes < 60) return messages.time.minutes(minutes);
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return messages.time.hours(hours, minutes % 60);
  return messages.time.days(Math.floor(hours / 24));
}

/** Whole seconds that an analysis still takes at the pace it had; null before that can be said. */
export function remaining(progress: Progress | null, now: number): number | null {
  if (progress === null || progress.done === 0 || progress.done >= progress.total) return null;
  const passed = now - Date.parse(progress.since);
  if (!(passed > 0)) return null;
  return Math.ceil((passed / progress.done) * (progress.total - progress.done) * 1e-3);
}

/** A moment, in the reader's own zone. */
export function moment(at: string): string {
  const date = new Date(at);
  return Number.isNaN(date.getTime()) ? at : date.toLocaleString('sv-SE');
}

/** Its hour and minute. */
export function clock(at: string): string {
  const date = new Date(at);
  return Number.isNaN(date.getTime()) ? at : date.toLocaleTimeString('sv-SE', { timeStyle: 'short' });
}

/** A score or an uncertainty, two digits. */
export function unit(value: number | null): string {
  return value === null ? DASH : value.toFixed(2);
}

/** Millilitres: one digit below 100, none above. */
export function millilitres(value: number | null): string {
  return value === null ? DASH : `${value.toFixed(value < 100 ? 1 : 0)} mL`;
}

/** Millimetres to the patient's left, by their side. */
export function sided(leftMm: number): string {
  const { midlineTo, midlineMiddle, sides } = messages.panel;
  const mm = Math.abs(leftMm).toFixed(1);
  if (Number(mm) === 0) return midlineMiddle(mm);
  return midlineTo(mm, leftMm < 0 ? sides.right : sides.left);
}

export function duration(ms: number | null): string {
  return ms === null ? DASH : messages.time.seconds((ms / 1000).toFixed(ms < 9_950 ? 1 : 0));
}

/** A word of ours for a kind or question of the server's; its own word when there is none. */
export function kind(word: string): string {
  return messages.kinds[word] ?? word.replaceAll('_', ' ');
}

/** An anatomical structure as a reader calls it. */
export function structure(name: string): string {
  return /^m\d$/.test(name) ? name.toUpperCase() : name.replaceAll('_', ' ');
}
