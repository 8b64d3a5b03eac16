-- What the runtime attests of a run that completed. The row is written as the run completes; `state`
-- is `pending` until the runtime has answered, once. `due_at` says when to ask it (again).
CREATE TABLE run_receipts (
    run_id uuid PRIMARY KEY REFERENCES runs (id) ON DELETE CASCADE,
    state text NOT NULL,
    document text,
    detail text,
    attempts integer NOT NULL,
    due_at timestamptz NOT NULL,
    answered_at timestamptz,
    indexed boolean NOT NULL,
    supersedes_session_id text
);
CREATE INDEX run_receipts_due_idx ON run_receipts (due_at) WHERE state = 'pending';
-- Which decisions replace that of a session. `indexed` says whether the run's own was looked at.
CREATE INDEX run_receipts_supersedes_idx ON run_receipts (supersedes_session_id)
    WHERE supersedes_session_id IS NOT NULL;

-- The keys that receipts are verified with, as they were first seen; and the last other one that was
-- published under the same name, which is not used.
CREATE TABLE receipt_keys (
    issuer text NOT NULL,
    kid text NOT NULL,
    public_key text NOT NULL,
    pinned_at timestamptz NOT NULL,
    refused_key text,
    refused_at timestamptz,
    PRIMARY KEY (issuer, kid)
);
