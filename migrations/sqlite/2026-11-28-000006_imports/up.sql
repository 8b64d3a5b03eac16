-- When a run was loaded from a bundle: it is only read here, and nobody follows it.
ALTER TABLE runs ADD COLUMN imported_at text;

-- The events of such a run have no place in the feed. SQLite can only make the table anew.
CREATE TABLE run_events_canonical_new (
    run_id text NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    seq bigint NOT NULL,
    position bigint,
    ts text NOT NULL,
    received_at text NOT NULL,
    type text NOT NULL,
    subject_kind text,
    subject_id text,
    hash blob NOT NULL,
    body text NOT NULL,
    PRIMARY KEY (run_id, seq)
);
INSERT INTO run_events_canonical_new SELECT * FROM run_events_canonical;
DROP TABLE run_events_canonical;
ALTER TABLE run_events_canonical_new RENAME TO run_events_canonical;
CREATE UNIQUE INDEX run_events_canonical_position_unique ON run_events_canonical (position);
CREATE INDEX run_events_canonical_ts_idx ON run_events_canonical (run_id, ts);
