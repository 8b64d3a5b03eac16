-- What tells whether a session's record is whole: how often its stream was opened again, how often
-- the envelope recorded last came first then, up to where the count of ordinals was shown, and, when
-- the session is over, what the runtime said of it (JSON).
ALTER TABLE runtime_sessions ADD COLUMN reattaches bigint NOT NULL DEFAULT 0;
ALTER TABLE runtime_sessions ADD COLUMN overlaps_shown bigint NOT NULL DEFAULT 0;
ALTER TABLE runtime_sessions ADD COLUMN counted_to bigint NOT NULL DEFAULT 0;
ALTER TABLE runtime_sessions ADD COLUMN ending text;
