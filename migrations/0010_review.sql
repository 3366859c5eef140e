-- People, their sessions, and what they said of the machine's answers.

CREATE TABLE account (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    display_name text NOT NULL,
    role text NOT NULL CHECK (role IN ('radiologist', 'auditor', 'admin')),
    password_hash text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    disabled_at timestamptz
);
COMMENT ON TABLE account IS 'One row a person; it is disabled, never deleted, since verdicts name it.';
COMMENT ON COLUMN account.password_hash IS 'Argon2id as a PHC string.';

CREATE TABLE session (
    token_digest bytea PRIMARY KEY CHECK (length(token_digest) = 32),
    account_id bigint NOT NULL REFERENCES account,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz
);
CREATE INDEX session_account ON session (account_id);
COMMENT ON TABLE session IS 'One row a sign-in; the token itself is only in the browser.';

CREATE TABLE failed_sign_in (
    name text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX failed_sign_in_name ON failed_sign_in (name, at);
COMMENT ON TABLE failed_sign_in IS 'Wrong passwords by the name that was given, so that guessing is slowed down.';

CREATE TABLE verdict (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    study_id bigint NOT NULL REFERENCES study,
    analysis_id uuid NOT NULL REFERENCES analysis,
    finding text,
    account_id bigint NOT NULL REFERENCES account,
    verdict text NOT NULL CHECK (verdict IN ('accept', 'reject', 'unsure', 'missed')),
    reason text,
    note text,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    FOREIGN KEY (analysis_id, finding) REFERENCES finding (analysis_id, name),
    CHECK (verdict <> 'missed' OR finding IS NULL)
);
CREATE INDEX verdict_study ON verdict (study_id, id);
COMMENT ON TABLE verdict IS 'Append-only: what a reader said of an answer or of one finding; the latest of a reader holds.';
COMMENT ON COLUMN verdict.finding IS 'Null: of the answer for the whole study, which is then read.';
COMMENT ON COLUMN verdict.reason IS 'Reason code, see review::verdict.';
COMMENT ON COLUMN verdict.note IS 'Free text; the trail has its digest only.';

CREATE VIEW reading AS
SELECT DISTINCT ON (verdict.study_id)
    verdict.study_id, verdict.analysis_id, verdict.verdict, account.display_name AS reader, verdict.at
FROM verdict JOIN account ON account.id = verdict.account_id
WHERE verdict.finding IS NULL
ORDER BY verdict.study_id, verdict.id DESC;
COMMENT ON VIEW reading IS 'The latest verdict on each study as a whole.';

GRANT SELECT, INSERT, UPDATE ON account, session TO ictus_app;
GRANT SELECT, INSERT ON failed_sign_in, verdict TO ictus_app;
GRANT SELECT ON reading TO ictus_app;
