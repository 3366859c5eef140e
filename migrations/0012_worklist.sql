-- The worklist in the order in which people should read, and found by what they remember.

-- Letters without their marks, small: what a search compares.
CREATE FUNCTION folded(words text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN lower(regexp_replace(normalize(words, NFKD), '[\u0300-\u036f]', '', 'g'));

DROP VIEW worklist;

CREATE VIEW study_state AS
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
    verdict.state,
    latest.progress_done,
    latest.progress_total,
    latest.progress_since,
    answer.id AS analysis_id,
    answer.answer,
    answer.score,
    answer.uncertainty,
    answer.finding_count AS findings,
    answer.volume_ml,
    verdict.reason,
    latest.revision,
    reading.verdict AS read_as,
    reading.reader,
    reading.at AS read_at,
    reading.analysis_id IS DISTINCT FROM answer.id AS outdated,
    coalesce(reading.analysis_id = answer.id, false) AS read,
    CASE
        WHEN reading.analysis_id = answer.id THEN 'read'
        WHEN verdict.state IN ('flagged', 'uncertain') THEN verdict.state
        ELSE 'other'
    END AS lane
FROM study
LEFT JOIN reading ON reading.study_id = study.id
LEFT JOIN LATERAL (
    SELECT * FROM analysis
    WHERE analysis.study_id = study.id AND analysis.state = 'complete'
    ORDER BY analysis.created_at DESC, analysis.revision DESC LIMIT 1
) answer ON true
LEFT JOIN LATERAL (
    SELECT
        analysis.state, analysis.revision, analysis.failure_code, analysis.failure_text,
        CASE WHEN analysis.state = 'running' THEN analysis.progress_done END AS progress_done,
        CASE WHEN analysis.state = 'running' THEN analysis.progress_total END AS progress_total,
        CASE WHEN analysis.state = 'running' THEN analysis.started_at END AS progress_since
    FROM analysis
    WHERE analysis.study_id = study.id
    ORDER BY analysis.created_at DESC, analysis.revision DESC LIMIT 1
) latest ON true
CROSS JOIN LATERAL (
    SELECT
        CASE
            WHEN answer.answer = 'present' THEN 'flagged'
            WHEN answer.answer = 'uncertain' THEN 'uncertain'
            WHEN latest.state IN ('failed', 'cancelled') THEN 'failed'
            WHEN answer.answer = 'absent' THEN 'not_flagged'
            WHEN latest.state = 'running' THEN 'analysing'
            WHEN answer.answer = 'not_evaluated' THEN 'failed'
            WHEN study.queued_at IS NULL THEN 'failed'
            ELSE 'arriving'
        END AS state,
        CASE
            WHEN latest.state IN ('failed', 'cancelled') THEN concat(latest.failure_code, ': ', latest.failure_text)
            WHEN answer.answer = 'not_evaluated' THEN coalesce(
                concat(answer.report #>> '{refusals,0,code}', ': ', answer.report #>> '{refusals,0,text}'),
                'not_evaluated: nothing in the study could be analysed')
            WHEN latest.state IS NULL AND study.queued_at IS NULL
                THEN 'no_ct: the study holds no original CT image, so there is nothing to analyse'
        END AS reason
) verdict;
COMMENT ON VIEW study_state IS 'One row a study: what the machine said, what a reader said, and where it stands in the worklist.';
COMMENT ON COLUMN study_state.state IS 'flagged, uncertain, failed, not_flagged, analysing or arriving.';
COMMENT ON COLUMN study_state.read IS 'Whether a reader judged the answer as it is now.';
COMMENT ON COLUMN study_state.lane IS 'flagged, uncertain, other, read: nobody''s study goes behind another because the machine saw nothing in it.';

-- Whether a filter lets a study through: one of the states (none: any), read or not (null: either), and every word.
CREATE FUNCTION matches(study study_state, states text[], wanted_read boolean, words text[]) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
RETURN (cardinality(states) = 0 OR study.state = ANY (states))
    AND (wanted_read IS NULL OR study.read = wanted_read)
    AND NOT EXISTS (
        SELECT FROM unnest(words) AS word
        WHERE position(folded(word) IN folded(concat_ws(' ', translate(study.patient_name, '^=', '  '),
            study.patient_id, study.accession_number, study.study_description, study.study_date, study.reason))) = 0
    );

CREATE VIEW worklist AS
SELECT study_state.*, counts.*
FROM study_state
CROSS JOIN LATERAL (
    SELECT count(DISTINCT series.id)::integer AS series_count, count(instance.id)::integer AS instance_count
    FROM series JOIN instance ON instance.series_id = series.id AND instance.state = 'current'
    WHERE series.study_id = study_state.study_id AND series.origin = 'received'
) counts;
COMMENT ON VIEW worklist IS 'study_state with the series and instances that were received; its counts cost, so it is joined to a page.';

CREATE TABLE saved_view (
    account_id bigint NOT NULL REFERENCES account,
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 60),
    query text NOT NULL CHECK (length(query) <= 500),
    PRIMARY KEY (account_id, name)
);
COMMENT ON TABLE saved_view IS 'A filter of the worklist that a person gave a name.';
COMMENT ON COLUMN saved_view.query IS 'The query part of the page''s address.';

GRANT SELECT ON study_state, worklist TO ictus_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON saved_view TO ictus_app;
