DROP INDEX run_events_raw_message_unique;
CREATE UNIQUE INDEX run_events_raw_message_unique ON run_events_raw (run_id, message_id)
    WHERE source = 'session';
CREATE INDEX run_events_raw_message_idx ON run_events_raw (message_id) WHERE source = 'session';
CREATE INDEX run_events_raw_received_idx ON run_events_raw (run_id, received_at);
ALTER TABLE run_events_canonical ADD CONSTRAINT run_events_canonical_run_id_fkey
    FOREIGN KEY (run_id) REFERENCES runs (id) ON DELETE CASCADE;
ALTER TABLE run_events_raw ADD CONSTRAINT run_events_raw_run_id_fkey
    FOREIGN KEY (run_id) REFERENCES runs (id) ON DELETE CASCADE;
