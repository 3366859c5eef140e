-- Masks that readers drew: each stands beside the machine's, never in its place.

CREATE TABLE correction (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    study_id bigint NOT NULL REFERENCES study,
    analysis_id uuid NOT NULL REFERENCES analysis,
    account_id bigint NOT NULL REFERENCES account,
    instance_id bigint NOT NULL REFERENCES instance,
    mask_sha256 bytea NOT NULL CHECK (length(mask_sha256) = 32),
    kind text NOT NULL,
    edited boolean NOT NULL,
    regions jsonb NOT NULL,
    at timestamptz NOT NULL
);
CREATE INDEX correction_study ON correction (study_id, id);
COMMENT ON TABLE correction IS 'Append-only: one row a mask that a reader saved; the latest of a reader holds.';
COMMENT ON COLUMN correction.analysis_id IS 'The answer that the reader looked at.';
COMMENT ON COLUMN correction.instance_id IS 'The Segmentation.';
COMMENT ON COLUMN correction.mask_sha256 IS 'Digest of kind, slices and runs: the same mask saved twice is saved once.';
COMMENT ON COLUMN correction.edited IS 'Whether it began with the machine''s mask.';
COMMENT ON COLUMN correction.regions IS 'Connected regions, largest first: domain::finding::Region.';

GRANT SELECT, INSERT ON correction TO ictus_app;
