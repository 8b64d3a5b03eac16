DROP TABLE signal_watch_gaps;
DROP TABLE signal_watch;
DROP TABLE held_signals;
DROP INDEX run_events_raw_message_idx;
