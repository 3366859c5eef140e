-- Unified Procedure Steps (PS3.4 annex CC, PS3.18 chapter 11): what others schedule, here and for themselves, and who hears of it.

CREATE TABLE workitem (
    uid text PRIMARY KEY,
    state text NOT NULL DEFAULT 'SCHEDULED' CHECK (state IN ('SCHEDULED', 'IN PROGRESS', 'COMPLETED', 'CANCELED')),
    attributes jsonb NOT NULL,
    studies text[] NOT NULL,
    ours boolean NOT NULL,
    transaction_uid text,
    study_instance_uid text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    claimed_at timestamptz,
    asked_at timestamptz,
    CHECK (state NOT IN ('IN PROGRESS', 'COMPLETED') OR transaction_uid IS NOT NULL)
);
CREATE INDEX workitem_open ON workitem (created_at) WHERE ours AND state IN ('SCHEDULED', 'IN PROGRESS');
CREATE INDEX workitem_created ON workitem (created_at, uid);
COMMENT ON TABLE workitem IS 'One row a UPS instance; none is deleted.';
COMMENT ON COLUMN workitem.attributes IS 'DICOM JSON, without the Transaction UID, which only its performer knows.';
COMMENT ON COLUMN workitem.studies IS 'StudyInstanceUIDs that it names: reading it is reading them.';
COMMENT ON COLUMN workitem.ours IS 'It is scheduled for this system, which performs it; all others are only kept.';
COMMENT ON COLUMN workitem.study_instance_uid IS 'The study whose analysis it waits for.';
COMMENT ON COLUMN workitem.asked_at IS 'When that analysis was last asked for.';

CREATE TABLE workitem_subscription (
    workitem_uid text NOT NULL REFERENCES workitem,
    ae_title text NOT NULL,
    deletion_lock boolean NOT NULL,
    PRIMARY KEY (workitem_uid, ae_title)
);
CREATE INDEX workitem_subscription_title ON workitem_subscription (ae_title);
COMMENT ON TABLE workitem_subscription IS 'Who hears of the events of a workitem.';

CREATE TABLE worklist_subscription (
    ae_title text NOT NULL,
    filtered boolean NOT NULL,
    keys jsonb NOT NULL,
    deletion_lock boolean NOT NULL,
    PRIMARY KEY (ae_title, filtered)
);
COMMENT ON TABLE worklist_subscription IS 'Who is subscribed to each new workitem, or to those that match the keys.';

CREATE TABLE workitem_event (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    receivers text[] NOT NULL,
    report jsonb NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE workitem_event IS 'Event reports in the order of their commits; sent over the WebSocket of each receiver, and forgotten after some hours.';

CREATE TABLE workitem_channel (
    ae_title text PRIMARY KEY,
    sent_to bigint NOT NULL
);
COMMENT ON TABLE workitem_channel IS 'How far the events of each receiver are sent: a channel that opens again goes on there.';

-- A workitem waits until a job has looked at its study: one that finds everything analysed leaves no other trace.
ALTER TABLE analysis ADD COLUMN confirmed_at timestamptz;
COMMENT ON COLUMN analysis.confirmed_at IS 'When a job last found that this is the analysis of what is stored, and had nothing to do.';

GRANT SELECT, INSERT, UPDATE ON workitem, workitem_channel TO ictus_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON workitem_subscription, worklist_subscription TO ictus_app;
GRANT SELECT, INSERT, DELETE ON workitem_event TO ictus_app;
