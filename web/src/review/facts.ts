/** The particulars of an audit row as pairs of name and text. */

/** Lists longer than this are counted, not written out. */
const MOST = 6;

export function facts(detail: unknown): [string, string][] {
  if (typeof detail !== 'object' || detail === null) return [];
  return Object.entries(detail)
    .filter(([, value]) => value !== null && value !== '' && !(Array.isArray(value) && value.length === 0))
    .map(([name, value]) => [name.replaceAll('_', ' '), text(value)]);
}

function text(value: unknown): string {
  if (Array.isArray(value)) {
    if (value.length > MOST) return String(value.length);
    return value.map(text).join('; ');
  }
  if (typeof value === 'object' && value !== null) {
    return Object.entries(value)
      .filter(([, part]) => part !== null)
      .map(([name, part]) => `${name.replaceAll('_', ' ')} ${text(part)}`)
      .join(', ');
  }
  return String(value);
}
