-- Nobody asks for it.
DROP INDEX run_events_raw_received_idx;

-- One index tells that a run has a message once, and which runs have it.
DROP INDEX run_events_raw_message_idx;
DROP INDEX run_events_raw_message_unique;
CREATE UNIQUE INDEX run_events_raw_message_unique ON run_events_raw (message_id, run_id)
    WHERE source = 'session';
