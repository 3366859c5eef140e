-- Masks that come back from another tool: they become corrections by a reader who has no account here, or are refused.

ALTER TABLE correction
    ALTER COLUMN account_id DROP NOT NULL,
    ADD COLUMN made_by text,
    ADD CHECK ((account_id IS NULL) = (made_by IS NOT NULL));
COMMENT ON COLUMN correction.made_by IS 'Who drew it in another tool: ContentCreatorName, or who sent it.';

CREATE TABLE returned_mask (
    instance_id bigint PRIMARY KEY REFERENCES instance,
    sent_by text NOT NULL,
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'recorded', 'refused')),
    correction_id bigint REFERENCES correction,
    reason text,
    tries integer NOT NULL DEFAULT 0,
    next_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,
    CHECK ((state = 'pending') = (ended_at IS NULL)),
    CHECK ((state = 'refused') = (reason IS NOT NULL)),
    CHECK ((state = 'recorded') = (correction_id IS NOT NULL))
);
CREATE INDEX returned_mask_due ON returned_mask (next_at) WHERE state = 'pending';
COMMENT ON TABLE returned_mask IS 'Segmentations of others on images that we hold, and what became of each.';
COMMENT ON COLUMN returned_mask.reason IS 'A sentence without patient data.';

GRANT SELECT, INSERT, UPDATE ON returned_mask TO ictus_app;
