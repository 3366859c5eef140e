/** Keys of the study view. */

import { headward } from '../dicomweb/geometry.ts';
import type { Session } from './session.ts';
import { PRESETS } from './windows.ts';

/** Slices that Page Up and Page Down pass. */
const LEAP = 5;

/** Does what a key says; answers whether it says anything. `0` is the viewer's own. */
export function viewerKey(session: Session, key: string): boolean {
  const preset = PRESETS.find((p) => p.key === key);
  const last = session.slices().length - 1;
  const up = headward(session.slices()) > 0;
  if (preset) session.setWindow(preset);
  else if (key === 'ArrowUp' || key === 'ArrowRight') session.move(1);
  else if (key === 'ArrowDown' || key === 'ArrowLeft') session.move(-1);
  else if (key === 'PageUp') session.move(LEAP);
  else if (key === 'PageDown') session.move(-LEAP);
  else if (key === 'Home') session.go(up ? last : 0);
  else if (key === 'End') session.go(up ? 0 : last);
  else if (key === 'm' || key === 'M') session.setMask((on) => !on);
  else if (key === 'u' || key === 'U') session.setUncertainty((on) => !on);
  else if (key === 'h' || key === 'H') session.nextMap();
  else if (key === 'c' || key === 'C') session.setContours((on) => !on);
  else if (key === 'r' || key === 'R') session.setAnatomy((on) => !on && session.overlays().hasAnatomy);
  else if (key === 'p' || key === 'P') session.setComparing((on) => !on);
  else if (key === 'v' || key === 'V') session.setPlanes((on) => !on);
  else if (key === 'n' || key === 'N') session.nextFinding();
  else return false;
  return true;
}
