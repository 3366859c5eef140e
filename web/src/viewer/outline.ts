/** A mask → the line around it, along the edges of its pixels. */

/** A straight piece of outline in pixel edges: x from 0 to columns, y from 0 to rows. */
export type Segment = [x0: number, y0: number, x1: number, y1: number];

/** The edges between set and unset pixels, joined into the longest straight pieces. */
export function outline(mask: Uint8Array, rows: number, columns: number): Segment[] {
  const set = (r: number, c: number) =>
    r >= 0 && c >= 0 && r < rows && c < columns && mask[r * columns + c] !== 0;
  const segments: Segment[] = [];
  const join = (
    lines: number,
    length: number,
    edge: (line: number, at: number) => boolean,
    put: (line: number, from: number, to: number) => void,
  ) => {
    for (let line = 0; line <= lines; line++) {
      let from = -1;
      for (let at = 0; at <= length; at++) {
        const here = at < length && edge(line, at);
        if (here && from < 0) from = at;
        if (!here && from >= 0) {
          put(line, from, at);
          from = -1;
        }
      }
    }
  };
  join(
    rows,
    columns,
    (y, x) => set(y - 1, x) !== set(y, x),
    (y, from, to) => segments.push([from, y, to, y]),
  );
  join(
    columns,
    rows,
    (x, y) => set(y, x - 1) !== set(y, x),
    (x, from, to) => segments.push([x, from, x, to]),
  );
  return segments;
}
