/** A `multipart/related` body (RFC 2046, RFC 2387) → its parts, byte for byte. */

export interface Part {
  contentType: string;
  body: Uint8Array<ArrayBuffer>;
}

function find(bytes: Uint8Array, pattern: Uint8Array, from: number): number {
  const first = pattern[0];
  if (first === undefined) return -1;
  for (let at = bytes.indexOf(first, from); at >= 0; at = bytes.indexOf(first, at + 1)) {
    let same = 1;
    while (same < pattern.length && bytes[at + same] === pattern[same]) same++;
    if (same === pattern.length) return at;
  }
  return -1;
}

/** The boundary that a Content-Type names, quoted or not. */
export function boundary(contentType: string): string | null {
  const match = /;\s*boundary=(?:"([^"]+)"|([^\s;]+))/i.exec(contentType);
  return match?.[1] ?? match?.[2] ?? null;
}

/** Cuts a body into parts; null when it is not multipart or ends early. */
export function parts(contentType: string, body: Uint8Array<ArrayBuffer>): Part[] | null {
  const name = boundary(contentType);
  if (name === null) return null;
  const encode = (s: string) => new TextEncoder().encode(s);
  const delimiter = encode(`\r\n--${name}`);
  const blank = encode('\r\n\r\n');
  const open = encode(`--${name}`);
  const found: Part[] = [];
  let at = find(body, open, 0);
  if (at < 0) return null;
  at += open.length;
  for (;;) {
    if (body[at] === 0x2d && body[at + 1] === 0x2d) return found;
    const headersEnd = find(body, blank, at);
    if (headersEnd < 0) return null;
    const end = find(body, delimiter, headersEnd + blank.length);
    if (end < 0) return null;
    const headers = new TextDecoder().decode(body.subarray(at, headersEnd));
    const type = /^content-type:\s*(.*?)\s*$/im.exec(headers)?.[1] ?? '';
    found.push({ contentType: type, body: body.subarray(headersEnd + blank.length, end) });
    at = end + delimiter.length;
  }
}
