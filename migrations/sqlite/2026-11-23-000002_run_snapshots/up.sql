-- What a run's state was after every so many events, so that any moment of a long log is near one.
-- `state` is JSON, read and written as a whole.
CREATE TABLE run_snapshots (
    run_id text NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    version bigint NOT NULL,
    schema_version integer NOT NULL,
    state text NOT NULL,
    PRIMARY KEY (run_id, version)
);
