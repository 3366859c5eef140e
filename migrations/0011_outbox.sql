-- What goes out: one row an analysis and target, written by the transaction that commits the analysis.
-- The rules of the targets are here, so that every worker files for all of them; addresses and secrets are not.

CREATE TABLE delivery_target (
    name text PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('stow', 'cstore')),
    roles text[] NOT NULL,
    answers text[] NOT NULL,
    attempts integer NOT NULL CHECK (attempts > 0),
    active boolean NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE delivery_target IS 'The targets of the file that the last server with --deliver was started with.';
COMMENT ON COLUMN delivery_target.roles IS 'Which results it gets: seg, pm, sr, other.';
COMMENT ON COLUMN delivery_target.answers IS 'The answers of analyses that it gets.';
COMMENT ON COLUMN delivery_target.attempts IS 'How often a delivery is tried before it is given up.';
COMMENT ON COLUMN delivery_target.active IS 'Whether the file still names it; if not, nothing new is filed and what waits stays.';

CREATE TABLE outbox (
    id uuid PRIMARY KEY,
    analysis_id uuid NOT NULL REFERENCES analysis,
    target text NOT NULL REFERENCES delivery_target,
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'delivered', 'dead', 'superseded')),
    urgency integer NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    next_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    leased_by uuid,
    lease_until timestamptz,
    last_error text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,
    UNIQUE (analysis_id, target),
    CHECK ((state = 'pending') = (ended_at IS NULL))
);
CREATE INDEX outbox_due ON outbox (target, urgency, next_at) WHERE state = 'pending';
CREATE INDEX outbox_created ON outbox (created_at);
COMMENT ON TABLE outbox IS 'Deliveries: at least once, and each instance as rarely as that allows.';
COMMENT ON COLUMN outbox.state IS 'pending: is tried at next_at; dead: given up until a person asks again; superseded: a later revision goes instead.';
COMMENT ON COLUMN outbox.urgency IS 'Lower goes first: 0 present, 1 uncertain, 2 the rest.';
COMMENT ON COLUMN outbox.attempts IS 'Counted when an attempt begins, so that one that kills its server counts too.';
COMMENT ON COLUMN outbox.leased_by IS 'The server that is sending it; nobody else may before lease_until.';
COMMENT ON COLUMN outbox.last_error IS 'A sentence without patient data.';

CREATE TABLE outbox_instance (
    outbox_id uuid NOT NULL REFERENCES outbox,
    instance_id bigint NOT NULL REFERENCES instance,
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'delivered', 'refused')),
    last_error text,
    PRIMARY KEY (outbox_id, instance_id)
);
COMMENT ON TABLE outbox_instance IS 'What the target said of each instance; only pending ones are sent.';

GRANT SELECT, INSERT, UPDATE ON delivery_target, outbox TO ictus_app;
GRANT SELECT, INSERT, UPDATE ON outbox_instance TO ictus_app;
