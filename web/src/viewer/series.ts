/** Which series of a study is shown first. */

import type { StudyDetail } from '../api/model.ts';

/** The one of the first finding, else one that was analysed, else the largest CT; null when there is no CT. */
export function firstSeries(study: StudyDetail): string | null {
  const images = study.series.filter((s) => s.modality === 'CT' && s.origin === 'received');
  const found = images.find((s) => s.series_instance_uid === study.analysis?.report.findings[0]?.series);
  const largest = images.reduce<(typeof images)[number] | null>(
    (most, s) => (s.instance_count > (most?.instance_count ?? 0) ? s : most),
    null,
  );
  return (found ?? images.find((s) => s.chosen) ?? largest)?.series_instance_uid ?? null;
}
