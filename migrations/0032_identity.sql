-- Who a patient is may turn out otherwise, and an image may turn out to be none: the index says so, the stored bytes stay.

ALTER TABLE study
    ADD COLUMN coercion jsonb,
    ADD COLUMN relabelling jsonb NOT NULL DEFAULT '{}';
COMMENT ON COLUMN study.relabelling IS 'The same as DICOM JSON: laid over the metadata of every instance of the study, late ones too.';
COMMENT ON COLUMN study.coercion IS 'dicom::coerce::Coercion: what is handed out instead of what is stored; null: as stored.';
COMMENT ON COLUMN study.identity_edition IS 'Counted up with each correction; deliveries are filed again under it.';

ALTER TABLE instance
    DROP CONSTRAINT instance_state_check,
    ADD CONSTRAINT instance_state_check CHECK (state IN ('current', 'pending', 'rejected', 'dismissed', 'replaced')),
    ADD COLUMN rejection jsonb,
    ADD CHECK ((state = 'rejected') = (rejection IS NOT NULL));
COMMENT ON COLUMN instance.state IS 'current: served and analysed; pending: same UID and pixels with other attributes, kept until someone decides; dismissed: kept, and decided against; replaced: a pending revision took its place; rejected: by a rejection note, hidden.';
COMMENT ON COLUMN instance.rejection IS 'Code and note that rejected it.';

-- ictus_app may not change what an instance is; these are the ways in, each part of its caller's transaction.

-- Metadata of the index under a correction; the archive's bytes stay.
CREATE FUNCTION relabel_instances(row_of_study bigint, attributes jsonb) RETURNS void
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE public.instance SET metadata = instance.metadata || attributes
    FROM public.series WHERE series.id = instance.series_id AND series.study_id = row_of_study
$$;

CREATE FUNCTION reject_instance(row_of_instance bigint, why jsonb) RETURNS void
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE public.instance SET state = 'rejected', rejection = why
    WHERE id = row_of_instance AND state = 'current'
$$;

-- The pending revision becomes the current one, and the current one is kept as replaced.
CREATE FUNCTION accept_revision(row_of_instance bigint) RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE public.instance SET state = 'replaced'
    WHERE state = 'current'
      AND sop_instance_uid = (SELECT sop_instance_uid FROM public.instance WHERE id = row_of_instance AND state = 'pending');
    UPDATE public.instance SET state = 'current' WHERE id = row_of_instance AND state = 'pending';
END
$$;

CREATE FUNCTION dismiss_revision(row_of_instance bigint) RETURNS void
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE public.instance SET state = 'dismissed' WHERE id = row_of_instance AND state = 'pending'
$$;

REVOKE ALL ON FUNCTION relabel_instances, reject_instance, accept_revision, dismiss_revision FROM PUBLIC;
GRANT EXECUTE ON FUNCTION relabel_instances, reject_instance, accept_revision, dismiss_revision TO ictus_app;

-- A study of which everything that was received is rejected is in no list.
ALTER TABLE study ADD COLUMN hidden boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN study.hidden IS 'Everything that was received of it is rejected.';

CREATE OR REPLACE FUNCTION matches(study study_state, states text[], wanted_read boolean, words text[]) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
RETURN (cardinality(states) = 0 OR study.state = ANY (states))
    AND (wanted_read IS NULL OR study.read = wanted_read)
    AND NOT EXISTS (SELECT FROM public.study AS itself WHERE itself.id = study.study_id AND itself.hidden)
    AND NOT EXISTS (
        SELECT FROM unnest(words) AS word
        WHERE position(folded(word) IN folded(concat_ws(' ', translate(study.patient_name, '^=', '  '),
            study.patient_id, study.accession_number, study.study_description, study.study_date, study.reason))) = 0
    );
