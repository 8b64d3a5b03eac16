-- What opens one run's streams in place of an API key. Neither the ticket nor the key is here:
-- both are hashes. `expires_at` moves on while a stream is open.
CREATE TABLE stream_tickets (
    hash blob PRIMARY KEY NOT NULL,
    run_id text NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    key_hash blob NOT NULL,
    made_at text NOT NULL,
    expires_at text NOT NULL
);
CREATE INDEX stream_tickets_run_idx ON stream_tickets (run_id);
CREATE INDEX stream_tickets_expires_idx ON stream_tickets (expires_at);
