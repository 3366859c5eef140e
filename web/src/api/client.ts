/**
 * Requests to the server that served this page, and to no other host.
 *
 * Every failure becomes an `ApiError` whose message is a sentence for the reader.
 */

import { messages } from '../ui/messages.ts';
import { authorization, wantKey } from './key.ts';
import type { SavedView, StudyDetail, Version, Worklist } from './model.ts';

/** A request that did not succeed, in a sentence. */
export class ApiError extends Error {
  /** HTTP status; 0 when the server was not reached. */
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.name = 'ApiError';
    this.status = status;
  }
}

/** The sentence that an RFC 9457 problem document says; null when the body is none. */
export function problemSentence(body: string): string | null {
  let problem: unknown;
  try {
    problem = JSON.parse(body);
  } catch {
    return null;
  }
  if (typeof problem !== 'object' || problem === null) return null;
  const { title, detail, request_id: id } = problem as Record<string, unknown>;
  const said = [title, detail].filter((part): part is string => typeof part === 'string' && part !== '');
  if (said.length === 0) return null;
  const sentence = said.map((part) => (/[.!?]$/.test(part) ? part : `${part}.`)).join(' ');
  return typeof id === 'string' ? `${sentence} ${messages.errors.request(id)}` : sentence;
}

/** Fetches from our server with the key; throws `ApiError` for every answer that is not 2xx. */
export async function request(
  path: string,
  accept: string,
  init: RequestInit = {},
  purpose: 'data' | 'sign-in' = 'data',
): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(path, {
      ...init,
      headers: { Accept: accept, ...authorization(), ...init.headers },
      credentials: 'same-origin',
    });
  } catch (cause) {
    if (init.signal?.aborted) throw cause;
    throw new ApiError(0, messages.errors.unreachable);
  }
  if (response.ok) return response;
  // A wrong password is told where it was typed.
  if (response.status === 401 && purpose === 'data') {
    wantKey();
    throw new ApiError(401, messages.errors.key);
  }
  const sentence = problemSentence(await response.text().catch(() => ''));
  throw new ApiError(response.status, sentence ?? messages.errors.status(response.status));
}

export async function json<T>(path: string, init?: RequestInit): Promise<T> {
  const response = await request(path, 'application/json', init);
  try {
    return (await response.json()) as T;
  } catch {
    throw new ApiError(response.status, messages.errors.notJson);
  }
}

/** `limit` studies after the first `offset` that a query lets through, in the server's order. */
export function getWorklist(query: string, offset: number, limit: number): Promise<Worklist> {
  return json(`/api/worklist?${query}${query === '' ? '' : '&'}offset=${offset}&limit=${limit}`);
}

export function getViews(): Promise<SavedView[]> {
  return json('/api/views');
}

export async function saveView(view: SavedView): Promise<void> {
  const headers = { 'Content-Type': 'application/json' };
  await request('/api/views', 'application/json', { method: 'PUT', headers, body: JSON.stringify(view) });
}

export async function forgetView(name: string): Promise<void> {
  await request(`/api/views/${encodeURIComponent(name)}`, 'application/json', { method: 'DELETE' });
}

export function getStudy(uid: string): Promise<StudyDetail> {
  return json(`/api/studies/${encodeURIComponent(uid)}`);
}

export function getVersion(): Promise<Version> {
  return json('/api/version');
}

/** What to tell the reader about something that was thrown. */
export function sentence(error: unknown): string {
  return error instanceof Error && error.message !== '' ? error.message : messages.errors.unknown;
}
