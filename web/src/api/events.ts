/**
 * `/api/events`: server-sent events about studies.
 *
 * Read with `fetch`, because `EventSource` cannot carry the API key.
 * A lost connection is opened again with growing patience, and the listener is told, since it may have missed something.
 */

import { ApiError, request } from './client.ts';
import type { StudyEvent } from './model.ts';

/** One event of the stream. */
export interface ServerEvent {
  event: string;
  data: string;
}

/**
 * Cuts a stream of text into events.
 *
 * Source: WHATWG HTML, "Interpreting an event stream"; `id` and `retry` are not used here.
 */
export class EventParser {
  #rest = '';
  #event = '';
  #data: string[] = [];

  /** Takes the next piece of text, however it was cut, and returns the events that it completes. */
  push(text: string): ServerEvent[] {
    const events: ServerEvent[] = [];
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop() ?? '';
    for (const line of lines) {
      if (line === '') {
        if (this.#data.length > 0)
          events.push({ event: this.#event || 'message', data: this.#data.join('\n') });
        this.#event = '';
        this.#data = [];
        continue;
      }
      const colon = line.indexOf(':');
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
      if (field === 'event') this.#event = value;
      if (field === 'data') this.#data.push(value);
    }
    return events;
  }
}

export interface EventListener {
  /** A study changed. */
  study(event: StudyEvent): void;
  /** The stream opened (again): what was loaded before may be old. */
  opened(): void;
  /** The stream is lost; it is being opened again. */
  lost(): void;
}

const FIRST_WAIT_MS = 1_000;
const LONGEST_WAIT_MS = 15_000;

/** Listens until the returned function is called. */
export function listen(listener: EventListener): () => void {
  const abort = new AbortController();
  void run(listener, abort.signal);
  return () => abort.abort();
}

async function run(listener: EventListener, signal: AbortSignal): Promise<void> {
  let wait = FIRST_WAIT_MS;
  while (!signal.aborted) {
    try {
      const response = await request('/api/events', 'text/event-stream', { signal });
      if (response.body === null) return;
      listener.opened();
      wait = FIRST_WAIT_MS;
      const parser = new EventParser();
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        for (const { event, data } of parser.push(value)) {
          if (event === 'study') tell(listener, data);
          if (event === 'missed') listener.opened();
        }
      }
    } catch (error) {
      // Without a key there is no use in asking again: entering one starts a new listener.
      if (error instanceof ApiError && error.status === 401) return;
    }
    if (signal.aborted) return;
    listener.lost();
    await new Promise((resolve) => setTimeout(resolve, wait));
    wait = Math.min(wait * 2, LONGEST_WAIT_MS);
  }
}

function tell(listener: EventListener, data: string): void {
  try {
    listener.study(JSON.parse(data) as StudyEvent);
  } catch {
    // An event that cannot be read is as good as a lost one: load again.
    listener.opened();
  }
}
