-- The archive as a cache: which files were evicted to make room, and when a study was last needed.

ALTER TABLE instance ADD COLUMN evicted_at timestamptz;
COMMENT ON COLUMN instance.evicted_at IS 'When its file was evicted; null while it is there. The row stays, and says what there was.';
CREATE INDEX instance_kept ON instance (series_id) INCLUDE (size_bytes) WHERE evicted_at IS NULL;

ALTER TABLE study ADD COLUMN needed_at timestamptz;
COMMENT ON COLUMN study.needed_at IS 'When somebody last read it, to ten minutes; null when nobody did.';

CREATE INDEX commitment_report_committed ON commitment_report USING gin (committed jsonb_path_ops);

-- What may be evicted of a study: nothing but what is delivered and routine, and what nobody was promised.
CREATE VIEW evictable AS
SELECT
    series.study_id,
    study.study_instance_uid,
    greatest(study.updated_at, study.needed_at) AS needed_at,
    instance.id AS instance_id,
    instance.archive_key,
    instance.size_bytes
FROM study
JOIN study_state ON study_state.study_id = study.id
JOIN series ON series.study_id = study.id
JOIN instance ON instance.series_id = series.id
WHERE instance.evicted_at IS NULL
    AND instance.state = 'current'
    AND series.conflict IS NULL
    -- A reader's masks stay, whichever tool drew them.
    AND series.origin IN ('received', 'result', 'derived')
    AND NOT EXISTS (SELECT FROM correction WHERE correction.instance_id = instance.id)
    AND NOT EXISTS (SELECT FROM returned_mask WHERE returned_mask.instance_id = instance.id)
    -- Analysed, or nobody ever asked for that; not flagged without having been read.
    AND (study.queued_at IS NULL OR study_state.analysis_id IS NOT NULL)
    AND study_state.state NOT IN ('analysing', 'arriving')
    AND (study.queued_at IS NULL OR NOT EXISTS (
        SELECT FROM instance fresh JOIN series beside ON beside.id = fresh.series_id
        WHERE beside.study_id = study.id AND beside.origin = 'received' AND fresh.original_ct AND fresh.state = 'current'
            AND NOT EXISTS (
                SELECT FROM analysis_instance
                WHERE analysis_instance.instance_id = fresh.id
                    AND analysis_instance.analysis_id = study_state.analysis_id)))
    AND (study_state.state NOT IN ('flagged', 'uncertain') OR study_state.read)
    AND (study_state.state <> 'failed' OR study.queued_at IS NULL OR study_state.read)
    -- Whatever was filed of it is delivered, and a result somewhere else than here.
    AND NOT EXISTS (
        SELECT FROM outbox JOIN analysis ON analysis.id = outbox.analysis_id
        WHERE analysis.study_id = study.id AND outbox.state IN ('pending', 'dead'))
    AND (study.queued_at IS NULL OR EXISTS (
        SELECT FROM outbox JOIN analysis ON analysis.id = outbox.analysis_id
        WHERE analysis.study_id = study.id AND outbox.state = 'delivered' AND outbox.subject = 'results'))
    AND (series.origin <> 'result' OR EXISTS (
        SELECT FROM outbox_instance
        WHERE outbox_instance.instance_id = instance.id AND outbox_instance.state = 'delivered'))
    -- We said that we would keep it.
    AND NOT EXISTS (
        SELECT FROM commitment_report
        WHERE committed @> jsonb_build_array(jsonb_build_array(instance.sop_class_uid, instance.sop_instance_uid)));
COMMENT ON VIEW evictable IS 'The files that a quota may evict; the least recently needed study goes first.';

GRANT SELECT ON evictable TO ictus_app;
ALTER TABLE association_line
    DROP CONSTRAINT association_line_became_check,
    ADD CONSTRAINT association_line_became_check CHECK (became IN ('new', 'duplicate', 'restored', 'pending', 'refused'));
GRANT UPDATE (evicted_at) ON instance TO ictus_app;
-- What is sent again may be another file of the same dataset. The one way in for ictus_app, which may not say otherwise where an instance is.
CREATE FUNCTION restore_instance(row_of_instance bigint, key text, bytes bigint, syntax text) RETURNS void
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE public.instance SET evicted_at = NULL, archive_key = key, size_bytes = bytes, transfer_syntax_uid = syntax
    WHERE id = row_of_instance AND evicted_at IS NOT NULL
$$;
REVOKE ALL ON FUNCTION restore_instance FROM PUBLIC;
GRANT EXECUTE ON FUNCTION restore_instance TO ictus_app;
