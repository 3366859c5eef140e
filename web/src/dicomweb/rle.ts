/**
 * An RLE Lossless frame of 16-bit pixels → its pixels.
 *
 * Source: PS3.5 annex G: a header of the number of segments and their offsets, then one PackBits segment a byte plane, the high bytes first.
 */

const HEADER_BYTES = 64;

/** Decodes one frame; null when it is no RLE frame of `size` 16-bit pixels. */
export function decodeRle16(frame: Uint8Array, size: number): Uint16Array<ArrayBuffer> | null {
  if (frame.length < HEADER_BYTES) return null;
  const header = new DataView(frame.buffer, frame.byteOffset, HEADER_BYTES);
  if (header.getUint32(0, true) !== 2) return null;
  const [highAt, lowAt] = [header.getUint32(4, true), header.getUint32(8, true)];
  if (highAt < HEADER_BYTES || lowAt < highAt) return null;
  const high = unpack(frame.subarray(highAt, lowAt), size);
  const low = unpack(frame.subarray(lowAt), size);
  if (high === null || low === null) return null;
  const pixels = new Uint16Array(size);
  for (let i = 0; i < size; i++) pixels[i] = ((high[i] ?? 0) << 8) | (low[i] ?? 0);
  return pixels;
}

function unpack(packed: Uint8Array, size: number): Uint8Array | null {
  const out = new Uint8Array(size);
  let [from, to] = [0, 0];
  while (to < size) {
    const control = packed[from++];
    if (control === undefined) return null;
    if (control === 128) continue;
    const count = control < 128 ? control + 1 : 257 - control;
    const needed = control < 128 ? count : 1;
    if (to + count > size || from + needed > packed.length) return null;
    if (control < 128) out.set(packed.subarray(from, from + count), to);
    else out.fill(packed[from] ?? 0, to, to + count);
    from += needed;
    to += count;
  }
  return out;
}
