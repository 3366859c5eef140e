-- What is fetched by rule: priors and missing series of the studies that arrive.

CREATE TABLE fetch_rule (
    name text PRIMARY KEY,
    since timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE fetch_rule IS 'Rules by name, and since when they hold: studies that arrived before are left alone.';

CREATE TABLE fetch_study (
    id uuid PRIMARY KEY,
    rule text NOT NULL REFERENCES fetch_rule,
    study_id bigint NOT NULL REFERENCES study,
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'done', 'dead')),
    attempts integer NOT NULL DEFAULT 0,
    next_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_error text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (rule, study_id)
);
CREATE INDEX fetch_study_due ON fetch_study (rule, next_at) WHERE state = 'pending';
COMMENT ON TABLE fetch_study IS 'One row a rule and study that it is for.';
COMMENT ON COLUMN fetch_study.last_error IS 'A sentence without patient data.';

CREATE TABLE fetched (
    rule text NOT NULL REFERENCES fetch_rule,
    study_instance_uid text NOT NULL,
    series_instance_uid text NOT NULL,
    analysed boolean NOT NULL,
    asked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (rule, study_instance_uid, series_instance_uid)
);
CREATE INDEX fetched_study ON fetched (study_instance_uid);
CREATE INDEX fetched_asked ON fetched (rule, asked_at);
COMMENT ON TABLE fetched IS 'What was asked for, before it was: a whole study has an empty series.';
COMMENT ON COLUMN fetched.analysed IS 'Whether it is analysed when it comes; a prior is not, unless its rule says so.';

CREATE INDEX study_arrived ON study (arrived_at);

GRANT SELECT, INSERT ON fetch_rule TO ictus_app;
GRANT SELECT, INSERT, UPDATE ON fetch_study, fetched TO ictus_app;
