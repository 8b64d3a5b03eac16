-- When a run was loaded from a bundle: it is only read here, and nobody follows it.
ALTER TABLE runs ADD COLUMN imported_at timestamptz;

-- The events of such a run have no place in the feed.
ALTER TABLE run_events_canonical ALTER COLUMN position DROP NOT NULL;
