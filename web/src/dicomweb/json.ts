/** DICOM JSON (PS3.18 annex F) → values; what is absent or of another type is `null`. */

export interface JsonElement {
  vr: string;
  Value?: unknown[];
  BulkDataURI?: string;
}

/** A dataset, keyed by eight hexadecimal digits. */
export type DicomJson = Record<string, JsonElement>;

/** First value as text. */
export function text(dataset: DicomJson, tag: string): string | null {
  const value = dataset[tag]?.Value?.[0];
  return typeof value === 'string' && value !== '' ? value : null;
}

/** First value as a finite number; DS and IS may arrive as text. */
export function number(dataset: DicomJson, tag: string): number | null {
  return numbers(dataset, tag, 1)?.[0] ?? null;
}

/** Exactly the first `count` values as finite numbers, or null. */
export function numbers(dataset: DicomJson, tag: string, count: number): number[] | null {
  const values = dataset[tag]?.Value?.slice(0, count).map((v) =>
    v === null || v === '' ? Number.NaN : Number(v),
  );
  return values?.length === count && values.every(Number.isFinite) ? values : null;
}
