-- What people are told and look at: alerts, and the worklist.

CREATE TABLE alert (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    study_id bigint NOT NULL REFERENCES study,
    analysis_id uuid NOT NULL UNIQUE REFERENCES analysis,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    reason text NOT NULL CHECK (reason IN ('first', 'reappeared', 'grown')),
    volume_ml double precision NOT NULL
);
CREATE INDEX alert_study ON alert (study_id, id);
COMMENT ON TABLE alert IS 'One row each time someone has to be told: a case alerts once, and again only when it gets worse.';
COMMENT ON COLUMN alert.reason IS 'first: first time present; reappeared: present after absent; grown: a third more than at the last alert.';

-- The current analysis of a study is its latest complete one.
-- A newer run that is under way shows as progress and a newer one that failed as reason; neither hides a flag.
CREATE VIEW worklist AS
SELECT
    study.id AS study_id,
    study.study_instance_uid,
    study.patient_name,
    study.patient_id,
    study.patient_birth_date,
    study.patient_sex,
    study.accession_number,
    study.study_date,
    study.study_time,
    study.study_description,
    study.arrived_at,
    study.updated_at,
    CASE
        WHEN answer.answer = 'present' THEN 'flagged'
        WHEN answer.answer = 'uncertain' THEN 'uncertain'
        WHEN latest.state = 'failed' OR latest.state = 'cancelled' THEN 'failed'
        WHEN answer.answer = 'absent' THEN 'not_flagged'
        WHEN latest.state = 'running' THEN 'analysing'
        WHEN answer.answer = 'not_evaluated' THEN 'failed'
        WHEN study.queued_at IS NULL THEN 'failed'
        ELSE 'arriving'
    END AS state,
    CASE WHEN latest.state = 'running' THEN latest.progress_done END AS progress_done,
    CASE WHEN latest.state = 'running' THEN latest.progress_total END AS progress_total,
    answer.id AS analysis_id,
    answer.answer,
    answer.score,
    answer.uncertainty,
    answer.finding_count AS findings,
    answer.volume_ml,
    CASE
        WHEN latest.state IN ('failed', 'cancelled') THEN concat(latest.failure_code, ': ', latest.failure_text)
        WHEN answer.answer = 'not_evaluated' THEN coalesce(
            concat(answer.report #>> '{refusals,0,code}', ': ', answer.report #>> '{refusals,0,text}'),
            'not_evaluated: nothing in the study could be analysed')
        WHEN latest.id IS NULL AND study.queued_at IS NULL
            THEN 'no_ct: the study holds no original CT image, so there is nothing to analyse'
    END AS reason,
    latest.revision,
    counts.series_count,
    counts.instance_count
FROM study
LEFT JOIN LATERAL (
    SELECT * FROM analysis
    WHERE analysis.study_id = study.id AND analysis.state = 'complete'
    ORDER BY analysis.created_at DESC, analysis.revision DESC LIMIT 1
) answer ON true
LEFT JOIN LATERAL (
    SELECT * FROM analysis
    WHERE analysis.study_id = study.id
    ORDER BY analysis.created_at DESC, analysis.revision DESC LIMIT 1
) latest ON true
CROSS JOIN LATERAL (
    SELECT count(DISTINCT series.id)::integer AS series_count, count(instance.id)::integer AS instance_count
    FROM series JOIN instance ON instance.series_id = series.id AND instance.state = 'current'
    WHERE series.study_id = study.id AND series.origin = 'received'
) counts;
COMMENT ON VIEW worklist IS 'One row a study with the state that a person sees: flagged, uncertain, failed, not_flagged, analysing or arriving.';

GRANT SELECT, INSERT ON alert TO ictus_app;
GRANT SELECT ON worklist TO ictus_app;
