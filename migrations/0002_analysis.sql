-- What was found, and with what: one row an analysis, unique by its identity, and one a finding.

CREATE TABLE analysis (
    id uuid PRIMARY KEY,
    study_id bigint NOT NULL REFERENCES study,
    identity bytea NOT NULL UNIQUE CHECK (length(identity) = 32),
    model_digest bytea NOT NULL,
    calibration_digest bytea NOT NULL,
    instance_count integer NOT NULL,
    revision integer NOT NULL,
    state text NOT NULL CHECK (state IN ('running', 'complete', 'failed', 'cancelled')),
    created_at timestamptz NOT NULL DEFAULT date_trunc('milliseconds', clock_timestamp()),
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    superseded_at timestamptz,
    supersedes uuid REFERENCES analysis,
    attempts integer NOT NULL DEFAULT 1,
    internal_failures integer NOT NULL DEFAULT 0,
    waited_ms bigint NOT NULL,
    duration_ms bigint,
    stages_ms jsonb,
    progress_done integer NOT NULL DEFAULT 0,
    progress_total integer NOT NULL DEFAULT 0,
    cancel_requested boolean NOT NULL DEFAULT false,
    failure_code text,
    failure_text text,
    answer text CHECK (answer IN ('present', 'absent', 'uncertain', 'not_evaluated')),
    score double precision,
    uncertainty double precision,
    volume_ml double precision,
    finding_count integer,
    report jsonb,
    UNIQUE (study_id, revision),
    CHECK (state <> 'complete' OR (finished_at IS NOT NULL AND answer IS NOT NULL AND report IS NOT NULL)),
    CHECK (state <> 'failed' OR failure_code IS NOT NULL)
);
CREATE INDEX analysis_study ON analysis (study_id, created_at);
COMMENT ON TABLE analysis IS 'One run of the stages over one set of instances with one set of models; a complete row is never run again.';
COMMENT ON COLUMN analysis.identity IS 'SHA-256 over study, sorted instance digests, model digest and calibration digest.';
COMMENT ON COLUMN analysis.revision IS '1 for the first analysis of the study, counted up with each other instance set or model.';
COMMENT ON COLUMN analysis.created_at IS 'Every date in the results; kept when a run is repeated.';
COMMENT ON COLUMN analysis.superseded_at IS 'When a later revision was committed.';
COMMENT ON COLUMN analysis.waited_ms IS 'From the last stored instance to the first start of this analysis.';
COMMENT ON COLUMN analysis.duration_ms IS 'From the start of the run that was committed to its commit.';
COMMENT ON COLUMN analysis.failure_code IS 'Reason code of the design (missing_slice, hu_unknown, …), or internal, transient, worker_died.';
COMMENT ON COLUMN analysis.failure_text IS 'A sentence without patient data.';
COMMENT ON COLUMN analysis.volume_ml IS 'Sum over the findings.';
COMMENT ON COLUMN analysis.report IS 'findings.json.';

CREATE TABLE finding (
    analysis_id uuid NOT NULL REFERENCES analysis,
    name text NOT NULL,
    kind text NOT NULL,
    model text NOT NULL,
    series_instance_uid text NOT NULL,
    segment integer NOT NULL,
    volume_ml double precision NOT NULL,
    side text NOT NULL,
    score double precision NOT NULL,
    probability double precision,
    uncertainty double precision NOT NULL,
    document jsonb NOT NULL,
    PRIMARY KEY (analysis_id, name)
);
COMMENT ON TABLE finding IS 'The findings of a report as rows, for search; document is the whole of one.';

CREATE TABLE analysis_instance (
    analysis_id uuid NOT NULL REFERENCES analysis,
    instance_id bigint NOT NULL REFERENCES instance,
    role text NOT NULL CHECK (role IN ('source', 'seg', 'pm', 'sr', 'other')),
    PRIMARY KEY (analysis_id, instance_id)
);
CREATE INDEX analysis_instance_instance ON analysis_instance (instance_id);
COMMENT ON TABLE analysis_instance IS 'What an analysis looked at (source) and what it made.';

-- The queue's tables belong to ictus_owner alone (they have row level security and no policy); this is the one way in.
CREATE FUNCTION enqueue_analysis(
    row_of_study bigint,
    delay_seconds double precision,
    most_attempts integer,
    first_priority integer,
    revision_priority integer
) RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    uid text;
BEGIN
    UPDATE public.study SET queued_at = clock_timestamp() WHERE id = row_of_study
    RETURNING study_instance_uid INTO STRICT uid;
    PERFORM graphile_worker.add_job(
        'analyse',
        payload := json_build_object('study_instance_uid', uid),
        queue_name := 'study:' || uid,
        run_at := clock_timestamp() + make_interval(secs => delay_seconds),
        max_attempts := most_attempts,
        job_key := 'study:' || uid,
        priority := CASE
            WHEN EXISTS (SELECT FROM public.analysis WHERE study_id = row_of_study AND state = 'complete')
            THEN revision_priority ELSE first_priority
        END,
        job_key_mode := 'replace');
END
$$;
COMMENT ON FUNCTION enqueue_analysis IS 'Asks for an analysis of a study, replacing the one that waits; part of the caller''s transaction.';
REVOKE ALL ON FUNCTION enqueue_analysis FROM PUBLIC;
GRANT EXECUTE ON FUNCTION enqueue_analysis TO ictus_app;

GRANT SELECT, INSERT, UPDATE ON analysis TO ictus_app;
GRANT SELECT, INSERT ON finding, analysis_instance TO ictus_app;
