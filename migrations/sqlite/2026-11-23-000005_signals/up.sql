-- A report of progress may name nothing but the message that it is about.
CREATE INDEX run_events_raw_message_idx ON run_events_raw (message_id) WHERE source = 'session';

-- Signals whose run is not known yet. What a signal does not name is ''.
CREATE TABLE held_signals (
    id integer PRIMARY KEY AUTOINCREMENT NOT NULL,
    session_id text NOT NULL,
    target_message_id text NOT NULL,
    sender text NOT NULL,
    message_id text NOT NULL,
    payload blob NOT NULL,
    heard_at text NOT NULL
);
CREATE UNIQUE INDEX held_signals_unique
    ON held_signals (sender, message_id, session_id, target_message_id);
CREATE INDEX held_signals_heard_idx ON held_signals (heard_at);

-- One row: what was sent before `last_heard_at` is recorded, or a gap says that it is not.
CREATE TABLE signal_watch (
    id integer PRIMARY KEY NOT NULL CHECK (id = 1),
    last_heard_at text
);
INSERT INTO signal_watch (id, last_heard_at) VALUES (1, NULL);

-- When signals could be sent that nobody recorded; `to_at` is NULL while that lasts.
CREATE TABLE signal_watch_gaps (
    from_at text PRIMARY KEY NOT NULL,
    to_at text,
    reason text NOT NULL
);
