-- What came over DIMSE: an instance is acknowledged one by one, and an association has one row in the trail.
-- So each acknowledged instance leaves a line here in the transaction that stores it, and the trail's row is made of the
-- lines at the end of the association, or by the next server when this one was killed.

CREATE TABLE association (
    id uuid PRIMARY KEY,
    principal text NOT NULL,
    detail json NOT NULL,
    opened_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_number integer NOT NULL DEFAULT 0,
    audited_number integer NOT NULL DEFAULT 0
);
CREATE INDEX association_open ON association (seen_at) WHERE audited_number < last_number;
COMMENT ON TABLE association IS 'One row an association that stored something; cleared a day after it is in the trail.';
COMMENT ON COLUMN association.principal IS 'Calling AE title.';
COMMENT ON COLUMN association.detail IS 'Called AE title and address of the peer.';
COMMENT ON COLUMN association.audited_number IS 'Lines up to this one are in the trail.';

CREATE TABLE association_line (
    association_id uuid NOT NULL REFERENCES association ON DELETE CASCADE,
    number integer NOT NULL,
    study_instance_uid text,
    series_instance_uid text,
    sop_instance_uid text,
    sha256 text,
    became text NOT NULL CHECK (became IN ('new', 'duplicate', 'pending', 'refused')),
    failure_reason integer,
    failure_text text,
    PRIMARY KEY (association_id, number)
);
COMMENT ON TABLE association_line IS 'What became of each instance of an association.';

GRANT SELECT, INSERT, UPDATE ON association TO ictus_app;
GRANT SELECT, INSERT ON association_line TO ictus_app;
