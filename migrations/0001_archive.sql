-- What was received or made: studies, series and instances, each instance pointing to its file in the archive.
-- Runs as ictus_owner; the server works as ictus_app, which may neither delete nor change what an instance is.

CREATE TABLE study (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    study_instance_uid text NOT NULL UNIQUE,
    patient_name text,
    patient_id text,
    issuer_of_patient_id text,
    patient_birth_date text,
    patient_sex text,
    study_id text,
    study_date text,
    study_time text,
    accession_number text,
    referring_physician_name text,
    study_description text,
    arrived_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    queued_at timestamptz
);
COMMENT ON TABLE study IS 'One row a StudyInstanceUID; attributes are those of the first instance that had them.';
COMMENT ON COLUMN study.patient_name IS 'PatientName, alphabetic group, decoded.';
COMMENT ON COLUMN study.study_date IS 'StudyDate as written, YYYYMMDD, so that ranges compare as text.';
COMMENT ON COLUMN study.study_time IS 'StudyTime as written, HHMMSS.FFFFFF.';
COMMENT ON COLUMN study.arrived_at IS 'When its first instance was stored.';
COMMENT ON COLUMN study.received_at IS 'When its latest received instance was stored: waiting counts from here.';
COMMENT ON COLUMN study.updated_at IS 'When anything about it changed: an instance, a result, a verdict.';
COMMENT ON COLUMN study.queued_at IS 'When an analysis was last asked for; null when it has nothing to analyse.';

CREATE TABLE series (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    study_id bigint NOT NULL REFERENCES study,
    series_instance_uid text NOT NULL,
    origin text NOT NULL CHECK (origin IN ('received', 'result', 'derived', 'reader')),
    modality text,
    series_number integer,
    series_description text,
    body_part_examined text,
    patient_id text,
    issuer_of_patient_id text,
    frame_of_reference_uid text,
    performed_procedure_step_start_date text,
    performed_procedure_step_start_time text,
    conflict text,
    arrived_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (study_id, series_instance_uid)
);
CREATE INDEX series_uid ON series (series_instance_uid);
COMMENT ON TABLE series IS 'One row a SeriesInstanceUID and study: the same UID under two studies is a conflict, and both are kept.';
COMMENT ON COLUMN series.origin IS 'received: from outside; result: ours; derived: resampled by us for display; reader: a correction.';
COMMENT ON COLUMN series.patient_id IS 'Identity of its first instance; another one in the same series is a conflict.';
COMMENT ON COLUMN series.frame_of_reference_uid IS 'FrameOfReferenceUID of its first instance that has one; another one is a conflict.';
COMMENT ON COLUMN series.conflict IS 'Why it is quarantined (identity_conflict), in words without patient data: shown, neither analysed nor delivered.';

CREATE TABLE instance (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    series_id bigint NOT NULL REFERENCES series,
    sop_instance_uid text NOT NULL,
    sop_class_uid text NOT NULL,
    transfer_syntax_uid text NOT NULL,
    instance_number integer,
    rows integer,
    columns integer,
    number_of_frames integer,
    bits_allocated integer,
    original_ct boolean NOT NULL,
    digest bytea NOT NULL CHECK (length(digest) = 32),
    archive_key text NOT NULL,
    size_bytes bigint NOT NULL,
    metadata jsonb NOT NULL,
    state text NOT NULL CHECK (state IN ('current', 'pending')),
    stored_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (sop_instance_uid, digest)
);
CREATE UNIQUE INDEX instance_current ON instance (sop_instance_uid) WHERE state = 'current';
CREATE INDEX instance_series ON instance (series_id);
CREATE INDEX instance_archive_key ON instance (archive_key);
COMMENT ON TABLE instance IS 'One row a stored dataset; a SOPInstanceUID has one current row and any number of pending revisions.';
COMMENT ON COLUMN instance.digest IS 'SHA-256 of the dataset without group 0002, as Explicit VR Little Endian.';
COMMENT ON COLUMN instance.archive_key IS 'Name of the Part 10 file in the archive: sha256/ab/cd/….';
COMMENT ON COLUMN instance.original_ct IS 'Whether it is an ORIGINAL CT image that an analysis may start from.';
COMMENT ON COLUMN instance.metadata IS 'DICOM JSON (PS3.18 annex F) without bulk data.';
COMMENT ON COLUMN instance.state IS 'current: served and analysed; pending: same UID and pixels with other attributes, kept until someone decides.';

GRANT SELECT, INSERT, UPDATE ON study, series TO ictus_app;
GRANT SELECT, INSERT ON instance TO ictus_app;
