-- Storage commitment (PS3.4 annex J), both ways: what we were asked to commit to, and what we asked others.

CREATE TABLE commitment_report (
    id uuid PRIMARY KEY,
    principal text NOT NULL,
    transaction_uid text NOT NULL,
    committed jsonb NOT NULL,
    failed jsonb NOT NULL,
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'sent', 'dead')),
    attempts integer NOT NULL DEFAULT 0,
    next_at timestamptz NOT NULL,
    asked_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX commitment_report_due ON commitment_report (next_at) WHERE state = 'pending';
COMMENT ON TABLE commitment_report IS 'What we answer a request to commit; kept until the asker has taken the answer.';
COMMENT ON COLUMN commitment_report.principal IS 'AE title of the asker, where the answer goes.';
COMMENT ON COLUMN commitment_report.committed IS 'Pairs of SOPClassUID and SOPInstanceUID that are stored.';
COMMENT ON COLUMN commitment_report.failed IS 'Triples of SOPClassUID, SOPInstanceUID and FailureReason.';

CREATE TABLE commitment_asked (
    transaction_uid text NOT NULL,
    outbox_id uuid NOT NULL REFERENCES outbox,
    instance_id bigint NOT NULL REFERENCES instance,
    state text NOT NULL DEFAULT 'asked' CHECK (state IN ('asked', 'committed', 'failed')),
    failure_reason integer,
    asked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (transaction_uid, instance_id)
);
CREATE INDEX commitment_asked_outbox ON commitment_asked (outbox_id, instance_id, asked_at);
COMMENT ON TABLE commitment_asked IS 'What we asked a target to commit to; its answer may come on an association of its own.';

GRANT SELECT, INSERT, UPDATE ON commitment_report, commitment_asked TO ictus_app;
