-- Where a run's root span is in its trace (`runs.trace_id`), and whether it was told of: that is
-- done once, when the run is over, by whichever instance takes the row first.
CREATE TABLE run_traces (
    run_id uuid PRIMARY KEY REFERENCES runs (id) ON DELETE CASCADE,
    span_id text NOT NULL,
    parent_span_id text,
    sampled boolean NOT NULL,
    trace_state text,
    told_at timestamptz
);
CREATE INDEX run_traces_untold_idx ON run_traces (run_id) WHERE told_at IS NULL;
