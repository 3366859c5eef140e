/**
 * A multi-frame result object (SEG or Parametric Map) → for each frame, the one source image it belongs to and where it says it lies.
 *
 * Only the SOP Instance UID that a frame references places it, and only if its plane is the plane of that image.
 * Whatever does not agree throws `PlacementError`: an overlay is refused rather than misplaced.
 *
 * Source: PS3.3 C.7.6.16 (functional groups), A.51, A.75; PS3.5 8.1.1 (frames follow one another without padding, also in 1-bit pixels).
 */

import dicomParser, { type DataSet } from 'dicom-parser';
import { messages } from '../ui/messages.ts';
import { EXPLICIT_LITTLE_ENDIAN, RLE_LOSSLESS } from './client.ts';
import { imageKey, near, type Plane, type Slice } from './geometry.ts';

/** Why an overlay is not drawn, in a sentence. */
export class PlacementError extends Error {
  override name = 'PlacementError';
}

/** One frame and its place. */
export interface Frame {
  /** From 0, in the order of the pixel data. */
  index: number;
  /** The functional groups of this frame; shared ones are in `shared`. */
  groups: DataSet;
  /** The image that it lies on, as slices are known. */
  sourceKey: string;
  plane: Plane;
}

/** A parsed multi-frame object. */
export interface MultiFrame {
  dataset: DataSet;
  sopClassUid: string;
  /** Explicit VR Little Endian or RLE Lossless. */
  transferSyntaxUid: string;
  shared: DataSet | null;
  frames: Frame[];
  rows: number;
  columns: number;
}

/** First item of a sequence. */
export function item(dataset: DataSet | null | undefined, tag: string): DataSet | null {
  return dataset?.elements[tag]?.items?.[0]?.dataSet ?? null;
}

/** A functional group macro of a frame, its own or the shared one. */
export function group(object: MultiFrame, frame: Frame, tag: string): DataSet | null {
  return item(frame.groups, tag) ?? item(object.shared, tag);
}

function decimals(dataset: DataSet | null, tag: string, count: number): number[] {
  const values = dataset?.string(tag)?.split('\\').map(Number) ?? [];
  return values.length === count && values.every(Number.isFinite) ? values : [];
}

const TAG = {
  sopClassUid: 'x00080016',
  transferSyntaxUid: 'x00020010',
  frameOfReferenceUid: 'x00200052',
  numberOfFrames: 'x00280008',
  rows: 'x00280010',
  columns: 'x00280011',
  shared: 'x52009229',
  perFrame: 'x52009230',
  derivationImage: 'x00089124',
  sourceImage: 'x00082112',
  referencedSopInstanceUid: 'x00081155',
  referencedFrameNumber: 'x00081160',
  planePosition: 'x00209113',
  imagePositionPatient: 'x00200032',
  planeOrientation: 'x00209116',
  imageOrientationPatient: 'x00200037',
  pixelMeasures: 'x00289110',
  pixelSpacing: 'x00280030',
} as const;

/** Reads the frames of a Part 10 file and the source image of each. */
export function readMultiFrame(part10: Uint8Array): MultiFrame {
  let dataset: DataSet;
  try {
    dataset = dicomParser.parseDicom(part10);
  } catch {
    throw new PlacementError(messages.placement.notDicom);
  }
  const transferSyntaxUid = dataset.string(TAG.transferSyntaxUid) ?? '';
  if (transferSyntaxUid !== EXPLICIT_LITTLE_ENDIAN && transferSyntaxUid !== RLE_LOSSLESS) {
    throw new PlacementError(messages.placement.transferSyntax);
  }
  const count = dataset.intString(TAG.numberOfFrames) ?? 0;
  const rows = dataset.uint16(TAG.rows) ?? 0;
  const columns = dataset.uint16(TAG.columns) ?? 0;
  const shared = item(dataset, TAG.shared);
  const items = dataset.elements[TAG.perFrame]?.items ?? [];
  if (count < 1 || items.length !== count) {
    throw new PlacementError(messages.placement.frameCount(count, items.length));
  }
  const frameOfReferenceUid = dataset.string(TAG.frameOfReferenceUid) ?? null;
  const frames = items.map(({ dataSet: groups }, index): Frame => {
    if (groups === undefined) throw new PlacementError(messages.placement.frameCount(count, index));
    const own = (tag: string) => item(groups, tag) ?? item(shared, tag);
    return {
      index,
      groups,
      sourceKey: sourceKey(own(TAG.derivationImage), index),
      plane: {
        rows,
        columns,
        imageOrientationPatient: decimals(own(TAG.planeOrientation), TAG.imageOrientationPatient, 6),
        imagePositionPatient: decimals(own(TAG.planePosition), TAG.imagePositionPatient, 3),
        pixelSpacingMm: decimals(own(TAG.pixelMeasures), TAG.pixelSpacing, 2),
        frameOfReferenceUid,
      },
    };
  });
  return {
    dataset,
    sopClassUid: dataset.string(TAG.sopClassUid) ?? '',
    transferSyntaxUid,
    shared,
    frames,
    rows,
    columns,
  };
}

function sourceKey(derivation: DataSet | null, index: number): string {
  const sources = derivation?.elements[TAG.sourceImage]?.items ?? [];
  const source = sources[0]?.dataSet;
  const uid = source?.string(TAG.referencedSopInstanceUid);
  const frames = source?.string(TAG.referencedFrameNumber)?.split('\\') ?? [];
  if (uid === undefined || sources.length !== 1 || frames.length > 1) {
    throw new PlacementError(messages.placement.sources(index + 1, Math.max(sources.length, frames.length)));
  }
  return imageKey(uid, frames[0] === undefined ? null : Number(frames[0]));
}

/** Throws unless the frame lies exactly on the image that it references. */
export function mustLieOn(frame: Frame, slice: Slice): void {
  const say = (what: string) => new PlacementError(messages.placement.differs(frame.index + 1, what));
  const { plane } = frame;
  if (plane.rows !== slice.rows || plane.columns !== slice.columns) throw say(messages.placement.size);
  if (plane.frameOfReferenceUid !== slice.frameOfReferenceUid) throw say(messages.placement.frameOfReference);
  if (!near(plane.imageOrientationPatient, slice.imageOrientationPatient))
    throw say(messages.placement.orientation);
  if (!near(plane.imagePositionPatient, slice.imagePositionPatient)) throw say(messages.placement.position);
  if (!near(plane.pixelSpacingMm, slice.pixelSpacingMm)) throw say(messages.placement.spacing);
}

/** What became of the frames of an object on the series that is shown. */
export interface Placed<T> {
  /** By the key of the source image. */
  bySource: Map<string, T>;
  /** Frames whose source image is not among the slices shown. */
  elsewhere: number;
}
