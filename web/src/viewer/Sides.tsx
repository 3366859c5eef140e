/** The patient's directions at the four edges of an image. */

import { letters, type Slice } from '../dicomweb/geometry.ts';

export function Sides(props: { slice: Slice | undefined }) {
  const side = (direction: 1 | -1, axis: 0 | 3) =>
    letters((props.slice?.imageOrientationPatient.slice(axis, axis + 3) ?? []).map((v) => v * direction));
  return (
    <>
      <span class="side left">{side(-1, 0)}</span>
      <span class="side right">{side(1, 0)}</span>
      <span class="side top">{side(-1, 3)}</span>
      <span class="side bottom">{side(1, 3)}</span>
    </>
  );
}
