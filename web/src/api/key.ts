/**
 * The API key of this browser tab.
 *
 * It lives in sessionStorage: gone with the tab, never in a URL, never sent to another host.
 */

import { createSignal } from 'solid-js';

const STORAGE = 'ictus-key';

/** Whether the server wants a key that we do not have (or refused the one that we had). */
const [keyWanted, setKeyWanted] = createSignal(false);
/** Grows whenever a key is entered, so that whoever loads data loads them again. */
const [keyVersion, setKeyVersion] = createSignal(0);

export { keyVersion, keyWanted };

/** The header that carries the key; empty without one. */
export function authorization(): Record<string, string> {
  const key = sessionStorage.getItem(STORAGE);
  return key === null ? {} : { Authorization: `Bearer ${key}` };
}

/** Keeps a key for this tab, if there is one, and has everything loaded again. */
export function enterKey(key: string): void {
  if (key.trim() !== '') sessionStorage.setItem(STORAGE, key.trim());
  setKeyWanted(false);
  setKeyVersion((n) => n + 1);
}

/** The server answered 401: forget the key and ask for one. */
export function wantKey(): void {
  sessionStorage.removeItem(STORAGE);
  setKeyWanted(true);
}
