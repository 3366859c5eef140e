-- Signed links: a PACS hands one study to a browser without an account.

CREATE TABLE link_key (
    name text PRIMARY KEY,
    secret bytea NOT NULL CHECK (length(secret) = 32),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    revoked_at timestamptz
);
COMMENT ON TABLE link_key IS 'One row a system that signs links; it is revoked, never deleted, since the trail names it.';
COMMENT ON COLUMN link_key.secret IS 'Shared with the system: a signature cannot be checked without it.';

CREATE TABLE link_visit (
    token_digest bytea PRIMARY KEY CHECK (length(token_digest) = 32),
    key text NOT NULL REFERENCES link_key,
    study_id bigint NOT NULL REFERENCES study,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE link_visit IS 'One row a link that was followed: the token in the browser opens this study and no other.';

GRANT SELECT, INSERT, UPDATE ON link_key TO ictus_app;
GRANT SELECT, INSERT ON link_visit TO ictus_app;
