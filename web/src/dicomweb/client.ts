/** WADO-RS (PS3.18 chapter 10) of our own server. */

import { ApiError, request } from '../api/client.ts';
import type { ObjectReference } from '../api/model.ts';
import { messages } from '../ui/messages.ts';
import type { DicomJson } from './json.ts';
import { parts } from './multipart.ts';

const ROOT = '/dicom-web';
export const EXPLICIT_LITTLE_ENDIAN = '1.2.840.10008.1.2.1';
export const RLE_LOSSLESS = '1.2.840.10008.1.2.5';

function seriesPath(study: string, series: string): string {
  return `${ROOT}/studies/${encodeURIComponent(study)}/series/${encodeURIComponent(series)}`;
}

/** The metadata of every instance of a series. */
export async function seriesMetadata(study: string, series: string): Promise<DicomJson[]> {
  const response = await request(`${seriesPath(study, series)}/metadata`, 'application/dicom+json');
  const body: unknown = await response.json().catch(() => null);
  if (!Array.isArray(body)) throw new ApiError(response.status, messages.errors.notJson);
  return body as DicomJson[];
}

/** Where the pixels of an image are, which is a frame of its instance or the only one. */
export function framePath(study: string, series: string, key: string): string {
  const [instance = '', frame = '1'] = key.split('/frames/');
  return `${seriesPath(study, series)}/instances/${encodeURIComponent(instance)}/frames/${encodeURIComponent(frame)}`;
}

/**
 * A whole instance as a Part 10 file, in RLE Lossless if it is stored so, else in Explicit VR Little Endian.
 *
 * A map of a thin stack is some megabytes in RLE and 150 MB without.
 */
export async function retrieve(study: string, object: ObjectReference): Promise<Uint8Array<ArrayBuffer>> {
  const path = `${seriesPath(study, object.series_instance_uid)}/instances/${encodeURIComponent(object.sop_instance_uid)}`;
  const accept = [EXPLICIT_LITTLE_ENDIAN, RLE_LOSSLESS]
    .map((syntax) => `multipart/related; type="application/dicom"; transfer-syntax=${syntax}`)
    .join(', ');
  const response = await request(path, accept);
  const body = new Uint8Array(await response.arrayBuffer());
  const [part] = parts(response.headers.get('Content-Type') ?? '', body) ?? [];
  if (part === undefined) throw new ApiError(response.status, messages.errors.notMultipart);
  return part.body;
}
