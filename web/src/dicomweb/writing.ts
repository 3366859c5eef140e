/**
 * Datasets → Part 10 bytes, for tests only: the page itself writes no DICOM.
 *
 * Explicit VR Little Endian, sequences with explicit lengths (PS3.5 section 7).
 */

export type Value = string | number[] | Uint8Array | Uint8Array[] | Dataset[];
/** Tag in eight hexadecimal digits → VR and value. An array of bytes is written as fragments behind an empty offset table. */
export type Dataset = Record<string, [vr: string, value: Value]>;

const LONG = new Set(['OB', 'OW', 'OF', 'SQ', 'UN', 'UT']);

function join(...parts: Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

function little(bytes: number, set: (view: DataView) => void): Uint8Array {
  const out = new Uint8Array(bytes);
  set(new DataView(out.buffer));
  return out;
}

const u16 = (n: number) => little(2, (v) => v.setUint16(0, n, true));
const u32 = (n: number) => little(4, (v) => v.setUint32(0, n, true));
const f64 = (n: number) => little(8, (v) => v.setFloat64(0, n, true));
const tag = (hex: string) =>
  join(u16(Number.parseInt(hex.slice(0, 4), 16)), u16(Number.parseInt(hex.slice(4), 16)));
const even = (bytes: Uint8Array, pad: number) =>
  bytes.length % 2 === 0 ? bytes : join(bytes, Uint8Array.of(pad));
const item = (bytes: Uint8Array) => join(tag('FFFEE000'), u32(bytes.length), bytes);

function encode(vr: string, value: Value): Uint8Array {
  if (typeof value === 'string') return even(new TextEncoder().encode(value), vr === 'UI' ? 0 : 32);
  if (value instanceof Uint8Array) return even(value, 0);
  return join(
    ...value.map((one) => {
      if (typeof one !== 'number') return one instanceof Uint8Array ? one : item(dataset(one));
      return vr === 'FD' ? f64(one) : vr === 'UL' ? u32(one) : u16(one);
    }),
  );
}

function element(hex: string, [vr, value]: [string, Value]): Uint8Array {
  const head = join(tag(hex), new TextEncoder().encode(vr));
  if (Array.isArray(value) && value[0] instanceof Uint8Array) {
    const fragments = (value as Uint8Array[]).map((fragment) => item(even(fragment, 0)));
    const end = join(tag('FFFEE0DD'), u32(0));
    return join(head, u16(0), u32(0xffffffff), item(new Uint8Array()), ...fragments, end);
  }
  const body = encode(vr, value);
  return LONG.has(vr) ? join(head, u16(0), u32(body.length), body) : join(head, u16(body.length), body);
}

function dataset(elements: Dataset): Uint8Array {
  return join(
    ...Object.entries(elements)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([hex, content]) => element(hex, content)),
  );
}

/** A Part 10 file. */
export function part10(transferSyntaxUid: string, elements: Dataset): Uint8Array {
  const meta = dataset({ '00020010': ['UI', transferSyntaxUid] });
  const length = element('00020000', ['UL', [meta.length]]);
  return join(new Uint8Array(128), new TextEncoder().encode('DICM'), length, meta, dataset(elements));
}
