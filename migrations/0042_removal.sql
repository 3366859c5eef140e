-- What an admin has removed: the rows stay without what they said of a patient, so that the trail and a replay can say what became of it.

ALTER TABLE instance
    DROP CONSTRAINT instance_state_check,
    ADD CONSTRAINT instance_state_check
        CHECK (state IN ('current', 'pending', 'rejected', 'dismissed', 'replaced', 'removed')),
    DROP CONSTRAINT instance_sop_instance_uid_digest_key,
    ADD COLUMN removal jsonb,
    ADD CHECK ((state = 'removed') = (removal IS NOT NULL));
-- What was removed may come again.
CREATE UNIQUE INDEX instance_once ON instance (sop_instance_uid, digest) WHERE state <> 'removed';
COMMENT ON COLUMN instance.removal IS 'Who removed it, when and why; its file is gone, and its metadata is empty.';

ALTER TABLE series ADD COLUMN emptied boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN series.emptied IS 'Everything of it was removed: the next instance says whose it is.';

ALTER TABLE analysis
    DROP CONSTRAINT analysis_state_check,
    ADD CONSTRAINT analysis_state_check CHECK (state IN ('running', 'complete', 'failed', 'cancelled', 'removed')),
    ADD COLUMN removal jsonb,
    ADD COLUMN removed_identity bytea,
    ADD CHECK ((state = 'removed') = (removal IS NOT NULL));
CREATE INDEX analysis_removed_identity ON analysis (removed_identity) WHERE removed_identity IS NOT NULL;
COMMENT ON COLUMN analysis.removal IS 'Who removed its images and results, when and why.';
COMMENT ON COLUMN analysis.removed_identity IS 'Its identity until then: the same images, sent again, are analysed again, with the dates of the first time.';

-- The one way in for ictus_app, which may not change what an instance is; part of its caller's transaction.
CREATE FUNCTION remove_instances(rows_of_instances bigint[], why jsonb) RETURNS void
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE public.instance SET state = 'removed', removal = why, rejection = NULL, metadata = '{}'
    WHERE id = ANY (rows_of_instances) AND state <> 'removed'
$$;
REVOKE ALL ON FUNCTION remove_instances FROM PUBLIC;
GRANT EXECUTE ON FUNCTION remove_instances TO ictus_app;
