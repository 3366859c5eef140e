-- People whom an OpenID provider vouches for.

ALTER TABLE account
    ALTER COLUMN password_hash DROP NOT NULL,
    ADD COLUMN issuer text,
    ADD COLUMN subject text,
    ADD UNIQUE (issuer, subject),
    ADD CHECK ((issuer IS NULL) = (subject IS NULL)),
    ADD CHECK ((password_hash IS NULL) = (issuer IS NOT NULL));
COMMENT ON COLUMN account.password_hash IS 'Argon2id as a PHC string; null for whom a provider vouches.';
COMMENT ON COLUMN account.issuer IS 'The provider that vouches for this person; null for a local account.';
COMMENT ON COLUMN account.subject IS 'Who it is to the provider; never merged with a local account.';

CREATE TABLE oidc_attempt (
    state_digest bytea PRIMARY KEY CHECK (length(state_digest) = 32),
    nonce text NOT NULL,
    verifier text NOT NULL,
    return_to text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE oidc_attempt IS 'One row a sign-in that went to the provider and has not come back: used once, and ten minutes long.';
COMMENT ON COLUMN oidc_attempt.verifier IS 'PKCE (RFC 7636).';

GRANT SELECT, INSERT, DELETE ON oidc_attempt TO ictus_app;
