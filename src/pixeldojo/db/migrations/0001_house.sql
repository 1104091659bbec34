-- Ids are TEXT and sort by time; times are milliseconds; credits are milli-credits; JSON is TEXT.

CREATE TABLE accounts (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    balance_milli BIGINT NOT NULL DEFAULT 0 CHECK (balance_milli >= 0),
    created_ms BIGINT NOT NULL
);

CREATE TABLE keys (
    id TEXT PRIMARY KEY,
    account_id TEXT NOT NULL REFERENCES accounts (id),
    name TEXT NOT NULL,
    prefix TEXT NOT NULL,
    hash TEXT NOT NULL UNIQUE,
    models TEXT,
    cap_milli BIGINT CHECK (cap_milli >= 0),
    spent_milli BIGINT NOT NULL DEFAULT 0 CHECK (spent_milli >= 0),
    created_ms BIGINT NOT NULL,
    expires_ms BIGINT,
    revoked_ms BIGINT,
    CHECK (cap_milli IS NULL OR spent_milli <= cap_milli)
);
CREATE INDEX keys_account ON keys (account_id, id);

CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    account_id TEXT NOT NULL REFERENCES accounts (id),
    key_id TEXT NOT NULL REFERENCES keys (id),
    model TEXT NOT NULL,
    modality TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('pending', 'processing', 'completed', 'failed')),
    input TEXT NOT NULL,
    webhook_url TEXT,
    cost_milli BIGINT NOT NULL CHECK (cost_milli >= 0),
    refunded_milli BIGINT NOT NULL DEFAULT 0 CHECK (refunded_milli IN (0, cost_milli)),
    progress_ppm BIGINT NOT NULL DEFAULT 0,
    attempt BIGINT NOT NULL DEFAULT 0,
    ready_ms BIGINT NOT NULL DEFAULT 0,
    lease TEXT,
    lease_until_ms BIGINT,
    error_code TEXT,
    error_message TEXT,
    assets TEXT,
    engine_ms BIGINT,
    created_ms BIGINT NOT NULL,
    started_ms BIGINT,
    completed_ms BIGINT,
    expires_ms BIGINT NOT NULL,
    swept_ms BIGINT,
    CHECK ((status = 'processing') = (lease IS NOT NULL)),
    CHECK ((status = 'completed') = (assets IS NOT NULL)),
    CHECK ((status = 'failed') = (error_code IS NOT NULL)),
    CHECK ((status IN ('completed', 'failed')) = (completed_ms IS NOT NULL))
);
CREATE INDEX jobs_account ON jobs (account_id, id);
CREATE INDEX jobs_account_status ON jobs (account_id, status, id);
CREATE INDEX jobs_account_model ON jobs (account_id, model, id);
CREATE INDEX jobs_queue ON jobs (model, ready_ms, id) WHERE status = 'pending';
CREATE INDEX jobs_leases ON jobs (lease_until_ms) WHERE status = 'processing';
CREATE INDEX jobs_expiry ON jobs (expires_ms) WHERE completed_ms IS NOT NULL AND swept_ms IS NULL;

-- Input pictures that came inside the request; gone when the job has ended.
CREATE TABLE job_inputs (
    job_id TEXT NOT NULL REFERENCES jobs (id),
    name TEXT NOT NULL,
    data {bytes} NOT NULL,
    PRIMARY KEY (job_id, name)
);

CREATE TABLE idempotency (
    account_id TEXT NOT NULL REFERENCES accounts (id),
    idempotency_key TEXT NOT NULL,
    request_hash TEXT NOT NULL,
    job_id TEXT NOT NULL, -- no reference: this row is taken before the job's, to settle who is first
    created_ms BIGINT NOT NULL,
    PRIMARY KEY (account_id, idempotency_key)
);
CREATE INDEX idempotency_age ON idempotency (created_ms);

-- The ledger. Rows are only ever added (the engine's own file forbids the rest).
CREATE TABLE entries (
    id TEXT NOT NULL,
    account_id TEXT NOT NULL REFERENCES accounts (id),
    kind TEXT NOT NULL CHECK (kind IN ('grant', 'charge', 'refund')),
    amount_milli BIGINT NOT NULL,
    balance_milli BIGINT NOT NULL CHECK (balance_milli >= 0),
    job_id TEXT REFERENCES jobs (id),
    key_id TEXT REFERENCES keys (id),
    note TEXT NOT NULL DEFAULT '',
    created_ms BIGINT NOT NULL,
    PRIMARY KEY (account_id, id),
    UNIQUE (job_id, kind),
    CHECK ((kind = 'grant') = (job_id IS NULL)),
    CHECK (CASE kind WHEN 'charge' THEN amount_milli <= 0 WHEN 'refund' THEN amount_milli >= 0 ELSE TRUE END)
);

-- Secrets the service makes for itself, such as the one that signs asset URLs.
CREATE TABLE secrets (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
