ALTER TABLE runtime_sessions DROP COLUMN ending;
ALTER TABLE runtime_sessions DROP COLUMN counted_to;
ALTER TABLE runtime_sessions DROP COLUMN overlaps_shown;
ALTER TABLE runtime_sessions DROP COLUMN reattaches;
