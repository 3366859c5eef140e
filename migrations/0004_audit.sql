-- Who did what, append-only: each row's hash covers the row before, so a change anywhere breaks the chain.

CREATE TABLE audit (
    seq bigint PRIMARY KEY CHECK (seq > 0),
    at timestamptz NOT NULL,
    principal text NOT NULL,
    act text NOT NULL,
    studies text[] NOT NULL,
    detail json NOT NULL,
    prev_hash bytea NOT NULL CHECK (length(prev_hash) = 32),
    hash bytea NOT NULL UNIQUE CHECK (length(hash) = 32)
);
CREATE INDEX audit_studies ON audit USING gin (studies);
COMMENT ON TABLE audit IS 'The trail: one row an act, written by db::audit::append in the transaction of the act.';
COMMENT ON COLUMN audit.seq IS 'Gapless, from 1.';
COMMENT ON COLUMN audit.principal IS 'Key name, application entity title or component that acted.';
COMMENT ON COLUMN audit.act IS 'store, refuse, quarantine, complete, analyse, fail, cancel, read, remove, …';
COMMENT ON COLUMN audit.studies IS 'StudyInstanceUIDs that the act is about.';
COMMENT ON COLUMN audit.detail IS 'json, not jsonb: the text is hashed as it was written.';
COMMENT ON COLUMN audit.hash IS 'SHA-256 over prev_hash and the canonical bytes of the row (see db::audit).';

CREATE TABLE audit_head (
    sole boolean PRIMARY KEY DEFAULT true CHECK (sole),
    seq bigint NOT NULL,
    hash bytea NOT NULL CHECK (length(hash) = 32)
);
COMMENT ON TABLE audit_head IS 'The last row of the trail; its lock puts writers in a row, and it tells when rows at the end are missing.';
INSERT INTO audit_head (seq, hash) VALUES (0, decode(repeat('00', 32), 'hex'));

GRANT SELECT, INSERT ON audit TO ictus_app;
GRANT SELECT, UPDATE ON audit_head TO ictus_app;
