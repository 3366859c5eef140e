import { describe, expect, it } from 'vitest';
import { boundary, parts } from './multipart.ts';

const body = (text: string) => Uint8Array.from(text, (c) => c.charCodeAt(0));
const text = (bytes: Uint8Array | undefined) => String.fromCharCode(...(bytes ?? []));

describe('a multipart body', () => {
  it('gives its parts byte for byte, line breaks and dashes included', () => {
    const whole = body(
      '--b\r\nContent-Type: application/dicom\r\n\r\na\r\n--\r\n-b\r\n--b\r\n\r\n\u0000\u00ff\r\n--b--\r\n',
    );
    const found = parts('multipart/related; boundary=b', whole);
    expect(found?.map((p) => p.contentType)).toEqual(['application/dicom', '']);
    expect(text(found?.[0]?.body)).toBe('a\r\n--\r\n-b');
    expect(text(found?.[1]?.body)).toBe('\u0000\u00ff');
  });

  it('is refused when it ends early', () => {
    expect(parts('multipart/related; boundary=b', body('--b\r\n\r\nhalf a part'))).toBeNull();
    expect(parts('multipart/related; boundary=b', body('something else'))).toBeNull();
    expect(parts('application/dicom', body('--b\r\n\r\nx\r\n--b--'))).toBeNull();
  });

  it.each([
    ['multipart/related; type="application/dicom"; boundary="a b"', 'a b'],
    ['multipart/related;boundary=xyz;type=x', 'xyz'],
    ['multipart/related', null],
  ])('names its boundary: %s', (type, expected) => {
    expect(boundary(type)).toBe(expected);
  });
});
