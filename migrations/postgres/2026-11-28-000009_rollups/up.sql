-- Sums for the dashboard. `grain` is a bucket's length in minutes; with `whole` a row is over all
-- runs, wherever they are filed, and without it over those that are filed under the three names
-- ('' is none). Sums are written in the transaction of what they count.
CREATE TABLE rollups (
    whole boolean NOT NULL,
    grain integer NOT NULL,
    figure text COLLATE "C" NOT NULL,
    bucket timestamptz NOT NULL,
    subject text COLLATE "C" NOT NULL,
    environment text COLLATE "C" NOT NULL,
    source_ref text COLLATE "C" NOT NULL,
    scenario_ref text COLLATE "C" NOT NULL,
    count bigint NOT NULL,
    sum bigint NOT NULL,
    PRIMARY KEY (whole, grain, figure, bucket, subject, environment, source_ref, scenario_ref)
) WITH (fillfactor = 70);

-- Whether the sums have the run: false until a run of an older version is counted, NULL for runs
-- that are not counted at all. The default is for the rows that are there, without rewriting them.
ALTER TABLE runs ADD COLUMN rolled_up boolean DEFAULT false;
ALTER TABLE runs ALTER COLUMN rolled_up DROP DEFAULT;
CREATE INDEX runs_not_rolled_up_idx ON runs (id) WHERE rolled_up = false;

-- How completed runs were decided, where their rows do not tell it yet.
UPDATE runs r
SET metadata = r.metadata
    || jsonb_build_object('outcomePositive', p.decision #> '{current,outcomePositive}')
FROM run_projections p
WHERE p.run_id = r.id AND r.status = 'completed'
    AND jsonb_typeof(p.decision #> '{current,outcomePositive}') = 'boolean';
