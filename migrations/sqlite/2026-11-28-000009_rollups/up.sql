-- Sums for the dashboard. `grain` is a bucket's length in minutes; with `whole` a row is over all
-- runs, wherever they are filed, and without it over those that are filed under the three names
-- ('' is none). Sums are written in the transaction of what they count.
CREATE TABLE rollups (
    whole boolean NOT NULL,
    grain integer NOT NULL,
    figure text NOT NULL,
    bucket text NOT NULL,
    subject text NOT NULL,
    environment text NOT NULL,
    source_ref text NOT NULL,
    scenario_ref text NOT NULL,
    count integer NOT NULL,
    sum integer NOT NULL,
    PRIMARY KEY (whole, grain, figure, bucket, subject, environment, source_ref, scenario_ref)
) WITHOUT ROWID;

-- Whether the sums have the run: false until a run of an older version is counted, NULL for runs
-- that are not counted at all.
ALTER TABLE runs ADD COLUMN rolled_up boolean;
UPDATE runs SET rolled_up = 0;
CREATE INDEX runs_not_rolled_up_idx ON runs (id) WHERE rolled_up = 0;

-- How completed runs were decided, where their rows do not tell it yet.
UPDATE runs
SET metadata = jsonb_set(runs.metadata, '$.outcomePositive',
    json(json_type(p.decision, '$.current.outcomePositive')))
FROM run_projections p
WHERE p.run_id = runs.id AND runs.status = 'completed'
    AND json_type(p.decision, '$.current.outcomePositive') IN ('true', 'false');
