-- A log's rows are written by statements that hold their run's row, and deleted with it
-- (queries/deletion.rs): a check of each row again cost more than writing it did.
ALTER TABLE run_events_raw DROP CONSTRAINT run_events_raw_run_id_fkey;
ALTER TABLE run_events_canonical DROP CONSTRAINT run_events_canonical_run_id_fkey;

-- Nobody asks for it.
DROP INDEX run_events_raw_received_idx;

-- One index tells that a run has a message once, and which runs have it.
DROP INDEX run_events_raw_message_idx;
DROP INDEX run_events_raw_message_unique;
CREATE UNIQUE INDEX run_events_raw_message_unique ON run_events_raw (message_id, run_id)
    WHERE source = 'session';
