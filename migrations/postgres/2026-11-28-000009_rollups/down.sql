DROP INDEX runs_not_rolled_up_idx;
ALTER TABLE runs DROP COLUMN rolled_up;
DROP TABLE rollups;
