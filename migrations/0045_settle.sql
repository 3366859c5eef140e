-- Who may answer a request to commit, what brings an evicted study back, and what a removal leaves of workitems.

ALTER TABLE commitment_asked ADD COLUMN ae_title text;
COMMENT ON COLUMN commitment_asked.ae_title IS 'Whom we asked; nobody else answers. Null in what was asked before it was noted.';

ALTER TABLE fetch_study ADD COLUMN failed_at timestamptz;
COMMENT ON COLUMN fetch_study.failed_at IS 'When the analysis failed for evicted files, of the study that was last filed again for that.';

CREATE TABLE removed_input (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    study_instance_uid text NOT NULL,
    uids text[],
    reason text NOT NULL
);
COMMENT ON TABLE removed_input IS 'What was removed, until the workitems that name it and that nobody has begun are cancelled.';
COMMENT ON COLUMN removed_input.uids IS 'UIDs of the series and instances of it that are gone; null when the whole study is.';

GRANT SELECT, INSERT, UPDATE, DELETE ON removed_input TO ictus_app;
