-- Storage commitment over HTTP (PS3.18 chapter 13): what was asked under which UID, and what was answered.

CREATE TABLE commitment_request (
    transaction_uid text PRIMARY KEY,
    principal text NOT NULL,
    instances jsonb NOT NULL,
    failures jsonb,
    asked_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE commitment_request IS 'A Transaction UID is used once; its answer can be asked for again.';
COMMENT ON COLUMN commitment_request.instances IS 'Pairs of SOPClassUID and SOPInstanceUID, in the order in which they were asked.';
COMMENT ON COLUMN commitment_request.failures IS 'A FailureReason for each, null where it is committed to; null while nobody has looked at all of them.';

GRANT SELECT, INSERT, UPDATE ON commitment_request TO ictus_app;
