/** Masks that readers drew. */

import { json } from './client.ts';
import type { Correction, NewCorrection } from './model.ts';

const path = (study: string) => `/api/studies/${encodeURIComponent(study)}/corrections`;

export function getCorrections(study: string): Promise<Correction[]> {
  return json(path(study));
}

export function saveCorrection(study: string, correction: NewCorrection): Promise<Correction> {
  return json(path(study), {
    method: 'POST',
    body: JSON.stringify(correction),
    headers: { 'Content-Type': 'application/json' },
  });
}

/** All that a mask holds, mL. */
export function volumeMl(correction: Correction): number {
  return correction.regions.reduce((sum, region) => sum + region.volume_ml, 0);
}
