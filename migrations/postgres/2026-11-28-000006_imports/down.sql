DELETE FROM runs WHERE imported_at IS NOT NULL;
ALTER TABLE run_events_canonical ALTER COLUMN position SET NOT NULL;
ALTER TABLE runs DROP COLUMN imported_at;
