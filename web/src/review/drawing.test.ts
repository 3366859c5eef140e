import { describe, expect, it } from 'vitest';
import { type Slice, stack } from '../dicomweb/geometry.ts';
import { image } from '../dicomweb/results.ts';
import { Drawing } from './drawing.ts';

/** Three tilted slices of 3 × 3 pixels of 0.5 mm; the first of 12 × 20 pixels, twice as high as wide. */
function slices(): Slice[] {
  const { slices } = stack([image('1.1', 0), image('1.2', 4), image('1.3', 11)]);
  return slices.map((slice, i) =>
    i === 0 ? { ...slice, rows: 12, columns: 20, pixelSpacingMm: [1, 0.5] } : slice,
  );
}

const set = (drawing: Drawing, uid: string) => drawing.pixels(uid)?.reduce((sum, v) => sum + v, 0) ?? 0;

describe('a drawing', () => {
  it('paints a disc in millimetres, whatever the shape of the pixels', () => {
    const drawing = new Drawing(slices());
    drawing.draw('1.1', [10, 6], [10, 6], 3, 1);
    drawing.lift();
    const pixels = drawing.pixels('1.1') ?? new Uint8Array();
    const lit = [...pixels.keys()].filter((i) => pixels[i] === 1).map((i) => [i % 20, Math.floor(i / 20)]);
    const columns = lit.map(([c]) => c ?? 0);
    const rows = lit.map(([, r]) => r ?? 0);
    // 6 mm are 12 columns and 6 rows.
    expect([Math.min(...columns), Math.max(...columns)]).toEqual([4, 15]);
    expect([Math.min(...rows), Math.max(...rows)]).toEqual([3, 8]);
    // The disc's area is π · 9 mm², a pixel's ½ mm².
    expect(Math.abs(lit.length - Math.PI * 18)).toBeLessThan(6);
  });

  it('leaves no gap in a fast stroke', () => {
    const drawing = new Drawing(slices());
    drawing.draw('1.1', [0.5, 6], [19.5, 6], 0.6, 1);
    const row = drawing.pixels('1.1')?.slice(6 * 20, 7 * 20) ?? [];
    expect([...row].every((v) => v === 1)).toBe(true);
  });

  it('undoes and redoes stroke by stroke, and only what a stroke changed', () => {
    const drawing = new Drawing(slices());
    drawing.add('1.2', Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0, 0));
    expect(drawing.canUndo).toBe(false);
    drawing.draw('1.2', [1.5, 1.5], [1.5, 1.5], 5, 1);
    expect(drawing.lift()).toBe(true);
    drawing.draw('1.2', [0.5, 0.5], [0.5, 0.5], 0.1, 0);
    drawing.lift();
    expect(set(drawing, '1.2')).toBe(8);
    drawing.undo();
    expect(set(drawing, '1.2')).toBe(9);
    drawing.undo();
    // What was there before the stroke stays.
    expect([...(drawing.pixels('1.2') ?? [])]).toEqual([1, 0, 0, 0, 0, 0, 0, 0, 0]);
    drawing.redo();
    expect(set(drawing, '1.2')).toBe(9);
    drawing.draw('1.2', [2.5, 2.5], [2.5, 2.5], 0.1, 0);
    drawing.lift();
    expect(drawing.canRedo).toBe(false);
  });

  it('makes no step of undo of a stroke that changed nothing', () => {
    const drawing = new Drawing(slices());
    drawing.draw('1.2', [1.5, 1.5], [1.5, 1.5], 5, 0);
    expect(drawing.lift()).toBe(false);
    expect(drawing.canUndo).toBe(false);
  });

  it('changes only pixels that it may', () => {
    const drawing = new Drawing(slices());
    drawing.draw('1.3', [1.5, 1.5], [1.5, 1.5], 5, 1, (pixel) => pixel % 3 === 1);
    expect([...(drawing.pixels('1.3') ?? [])]).toEqual([0, 1, 0, 0, 1, 0, 0, 1, 0]);
  });

  it('does not paint beyond the image, or on images that it does not know', () => {
    const drawing = new Drawing(slices());
    drawing.draw('1.2', [-40, -40], [-40, -40], 1, 1);
    drawing.draw('9.9', [1, 1], [1, 1], 1, 1);
    expect(drawing.runs()).toEqual([]);
  });

  it('writes runs that give the same pixels back', () => {
    const drawing = new Drawing(slices());
    drawing.draw('1.1', [3, 3], [15, 9], 2, 1);
    drawing.draw('1.3', [2.5, 2.5], [2.5, 2.5], 0.1, 1);
    drawing.lift();
    const runs = drawing.runs();
    expect(runs.map((slice) => slice.sop_instance_uid)).toEqual(['1.1', '1.3']);
    expect(runs[1]?.runs).toEqual([8, 1]);
    const again = new Drawing(slices());
    again.addRuns(runs);
    expect(again.pixels('1.1')).toEqual(drawing.pixels('1.1'));
    expect(again.runs()).toEqual(runs);
  });
});
