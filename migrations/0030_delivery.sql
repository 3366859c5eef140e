-- More ways out than DICOM: messages (webhook, HL7 v2, FHIR) and folders, notifications that somebody has to acknowledge,
-- readers' masks and verdicts, and a secondary capture for those that take nothing better.

ALTER TABLE delivery_target
    DROP CONSTRAINT delivery_target_kind_check,
    ADD CONSTRAINT delivery_target_kind_check
        CHECK (kind IN ('stow', 'cstore', 'webhook', 'hl7', 'fhir', 'folder')),
    ADD COLUMN subjects text[] NOT NULL DEFAULT '{results}',
    ADD COLUMN matching jsonb NOT NULL DEFAULT '[]',
    ADD COLUMN urgency integer,
    ADD COLUMN escalate_seconds integer CHECK (escalate_seconds > 0),
    ADD COLUMN escalate_to text,
    ADD CHECK ((escalate_seconds IS NULL) = (escalate_to IS NULL));
COMMENT ON COLUMN delivery_target.subjects IS 'What it hears of: notification, results, correction, verdict.';
COMMENT ON COLUMN delivery_target.matching IS 'Conditions on the images, all of which must hold: [{"tag": "00080080", "patterns": ["North%"]}].';
COMMENT ON COLUMN delivery_target.urgency IS 'Of its deliveries; null: by the answer.';
COMMENT ON COLUMN delivery_target.escalate_to IS 'Who is told when a notification is not acknowledged within escalate_seconds.';

ALTER TABLE analysis_instance
    DROP CONSTRAINT analysis_instance_role_check,
    ADD CONSTRAINT analysis_instance_role_check
        CHECK (role IN ('source', 'seg', 'labelmap', 'pm', 'sr', 'sc', 'kos', 'other'));

ALTER TABLE outbox
    DROP CONSTRAINT outbox_analysis_id_target_key,
    ADD COLUMN subject text NOT NULL DEFAULT 'results'
        CHECK (subject IN ('notification', 'results', 'correction', 'verdict')),
    ADD COLUMN is_message boolean NOT NULL DEFAULT false,
    ADD COLUMN correction_id bigint REFERENCES correction,
    ADD COLUMN verdict_id bigint REFERENCES verdict,
    ADD COLUMN edition integer NOT NULL DEFAULT 0,
    ADD COLUMN note text,
    ADD COLUMN acknowledged_at timestamptz,
    ADD COLUMN acknowledged_by text,
    ADD COLUMN escalate_at timestamptz,
    ADD COLUMN escalated_at timestamptz,
    ADD COLUMN escalated_from uuid REFERENCES outbox,
    ADD CHECK ((subject = 'correction') = (correction_id IS NOT NULL)),
    ADD CHECK ((subject = 'verdict') = (verdict_id IS NOT NULL)),
    ADD CHECK ((acknowledged_at IS NULL) = (acknowledged_by IS NULL));
CREATE UNIQUE INDEX outbox_once
    ON outbox (analysis_id, target, subject, coalesce(correction_id, 0), coalesce(verdict_id, 0), edition);
CREATE INDEX outbox_escalation ON outbox (escalate_at)
    WHERE escalated_at IS NULL AND acknowledged_at IS NULL AND escalate_at IS NOT NULL;
CREATE INDEX outbox_abandoned ON outbox (target, lease_until) WHERE state = 'superseded' AND leased_by IS NOT NULL;
COMMENT ON COLUMN outbox.subject IS 'notification: that somebody has to look; results: of an analysis; correction: a reader''s mask; verdict: a reader''s word.';
COMMENT ON COLUMN outbox.is_message IS 'It is words, made when it is sent, and has no instances.';
COMMENT ON COLUMN outbox.edition IS 'The study''s identity_edition when it was filed: after a correction of identity everything goes out again.';
COMMENT ON COLUMN outbox.note IS 'What is different from what was asked for: a degraded delivery, an escalation.';
COMMENT ON COLUMN outbox.acknowledged_at IS 'When the target or a person took note of a notification.';
COMMENT ON COLUMN outbox.escalated_from IS 'The notification that nobody acknowledged.';

ALTER TABLE outbox_instance
    DROP CONSTRAINT outbox_instance_state_check,
    ADD CONSTRAINT outbox_instance_state_check CHECK (state IN ('pending', 'delivered', 'refused', 'replaced'));
COMMENT ON TABLE outbox_instance IS 'What the target said of each instance; only pending ones are sent; replaced: the secondary capture goes instead.';

-- Counted up with each correction of who the patient is.
ALTER TABLE study ADD COLUMN identity_edition integer NOT NULL DEFAULT 0;
