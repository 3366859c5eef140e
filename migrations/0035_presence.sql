-- Who looks at which study now, so that two readers on one are told of each other; nothing of it is kept.

CREATE TABLE presence (
    study_id bigint NOT NULL REFERENCES study,
    account_id bigint NOT NULL REFERENCES account,
    since timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    drawing boolean NOT NULL DEFAULT false,
    PRIMARY KEY (study_id, account_id)
);
CREATE INDEX presence_seen ON presence (seen_at);
COMMENT ON TABLE presence IS 'One row a person and study that is open in a page; a page that fell silent counts as closed.';
COMMENT ON COLUMN presence.drawing IS 'Whether the person has a mask in the hand.';

CREATE VIEW present AS
SELECT presence.study_id, presence.account_id, account.display_name AS name, presence.since, presence.drawing
FROM presence JOIN account ON account.id = presence.account_id
WHERE presence.seen_at > clock_timestamp() - interval '45 seconds';
COMMENT ON VIEW present IS 'Who is there: a page tells every 15 seconds, and may be late twice.';

CREATE OR REPLACE VIEW worklist AS
SELECT study_state.*, counts.*, ARRAY(
    SELECT name FROM present WHERE present.study_id = study_state.study_id ORDER BY since, name
) AS present
FROM study_state
CROSS JOIN LATERAL (
    SELECT count(DISTINCT series.id)::integer AS series_count, count(instance.id)::integer AS instance_count
    FROM series JOIN instance ON instance.series_id = series.id AND instance.state = 'current'
    WHERE series.study_id = study_state.study_id AND series.origin = 'received'
) counts;

GRANT SELECT, INSERT, UPDATE, DELETE ON presence TO ictus_app;
GRANT SELECT ON present TO ictus_app;
