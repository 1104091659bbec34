-- Ids are TEXT and sort by time; times are milliseconds; credits are milli-credits; JSON is TEXT.

CREATE TABLE accounts (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    balance_milli BIGINT NOT NULL DEFAULT 0 CHECK (balance_milli >= 0),
    concurrency BIGINT CHECK (concurrency > 0),
    created_ms BIGINT NOT NULL
);

-- What a key may spend and has spent. Keys that replace one another share one, and so debit one row.
CREATE TABLE budgets (
    id TEXT PRIMARY KEY,
    cap_milli BIGINT CHECK (cap_milli >= 0),
    spent_milli BIGINT NOT NULL DEFAULT 0 CHECK (spent_milli >= 0),
    CHECK (cap_milli IS NULL OR spent_milli <= cap_milli)
);

CREATE TABLE keys (
    id TEXT PRIMARY KEY,
    account_id TEXT NOT NULL REFERENCES accounts (id),
    budget_id TEXT NOT NULL REFERENCES budgets (id),
    name TEXT NOT NULL,
    prefix TEXT NOT NULL,
    hash TEXT NOT NULL UNIQUE,
    models TEXT,
    created_ms BIGINT NOT NULL,
    expires_ms BIGINT,
    revoked_ms BIGINT,
    rate_limit TEXT,
    scopes TEXT,
    replaced_by TEXT REFERENCES keys (id)
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
    webhook_events TEXT, -- a JSON list; NULL: the job's end alone
    base_url TEXT, -- the service's address as the caller of this job knows it; only with a webhook
    cost_milli BIGINT NOT NULL CHECK (cost_milli >= 0),
    refunded_milli BIGINT NOT NULL DEFAULT 0 CHECK (refunded_milli IN (0, cost_milli)),
    progress_ppm BIGINT NOT NULL DEFAULT 0,
    attempt BIGINT NOT NULL DEFAULT 0,
    rank BIGINT NOT NULL DEFAULT 0,
    ready_ms BIGINT NOT NULL DEFAULT 0,
    metadata TEXT,
    start_by_ms BIGINT,
    deadline_ms BIGINT,
    cancel_ms BIGINT,
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
CREATE INDEX jobs_queue ON jobs (model, account_id, rank, id) WHERE status = 'pending';
CREATE INDEX jobs_running ON jobs (model, account_id) WHERE status = 'processing';
CREATE INDEX jobs_limits ON jobs (id) WHERE completed_ms IS NULL AND (start_by_ms IS NOT NULL OR deadline_ms IS NOT NULL);
CREATE INDEX jobs_forget ON jobs (swept_ms) WHERE swept_ms IS NOT NULL;
CREATE INDEX jobs_leases ON jobs (lease_until_ms) WHERE status = 'processing';
CREATE INDEX jobs_ended ON jobs (completed_ms) WHERE completed_ms IS NOT NULL;
CREATE INDEX jobs_expiry ON jobs (expires_ms) WHERE completed_ms IS NOT NULL AND swept_ms IS NULL;

-- Input pictures that came inside the request; gone when the job has ended.
CREATE TABLE job_inputs (
    job_id TEXT NOT NULL REFERENCES jobs (id),
    name TEXT NOT NULL,
    data {bytes} NOT NULL,
    PRIMARY KEY (job_id, name)
);

-- One row for each name of a job's metadata, so that a list can be filtered by it.
CREATE TABLE job_metadata (
    account_id TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    job_id TEXT NOT NULL REFERENCES jobs (id),
    PRIMARY KEY (account_id, name, value, job_id)
);
CREATE INDEX job_metadata_job ON job_metadata (job_id);

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
    job_id TEXT, -- no reference: the ledger outlives the jobs
    key_id TEXT REFERENCES keys (id),
    model TEXT,
    note TEXT NOT NULL DEFAULT '',
    created_ms BIGINT NOT NULL,
    request_key TEXT, -- the Idempotency-Key of a grant
    PRIMARY KEY (account_id, id),
    UNIQUE (job_id, kind),
    CHECK ((kind = 'grant') = (job_id IS NULL)),
    CHECK (CASE kind WHEN 'charge' THEN amount_milli <= 0 WHEN 'refund' THEN amount_milli >= 0 ELSE TRUE END)
);
CREATE UNIQUE INDEX entries_requests ON entries (account_id, request_key) WHERE request_key IS NOT NULL;
CREATE INDEX entries_rare ON entries (account_id, kind, id) WHERE kind <> 'charge';

-- Secrets the service makes for itself, such as the one that signs asset URLs.
CREATE TABLE secrets (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

-- What is sent to a job's webhook: the frozen bytes, and how far they got.
CREATE TABLE deliveries (
    id TEXT PRIMARY KEY, -- the webhook-id
    job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    account_id TEXT NOT NULL REFERENCES accounts (id),
    line TEXT NOT NULL, -- of the same account to the same address: they wait for each other, not for others
    url TEXT NOT NULL,
    type TEXT NOT NULL,
    terminal BIGINT NOT NULL CHECK (terminal IN (0, 1)),
    payload {bytes} NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('due', 'sending', 'waiting', 'delivered', 'gone', 'failed', 'skipped')),
    tries BIGINT NOT NULL DEFAULT 0, -- since the last replay
    attempts BIGINT NOT NULL DEFAULT 0,
    next_ms BIGINT NOT NULL,
    lease TEXT,
    lease_until_ms BIGINT,
    last_ms BIGINT,
    last_status BIGINT,
    created_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL,
    CHECK ((status = 'sending') = (lease IS NOT NULL))
);
CREATE UNIQUE INDEX deliveries_terminal ON deliveries (job_id) WHERE terminal = 1;
CREATE INDEX deliveries_job ON deliveries (job_id, id);
CREATE INDEX deliveries_due ON deliveries (line, id) WHERE status = 'due';
CREATE INDEX deliveries_waiting ON deliveries (next_ms) WHERE status = 'waiting';
CREATE INDEX deliveries_leases ON deliveries (lease_until_ms) WHERE status = 'sending';

CREATE TABLE delivery_attempts (
    delivery_id TEXT NOT NULL REFERENCES deliveries (id) ON DELETE CASCADE,
    number BIGINT NOT NULL,
    at_ms BIGINT NOT NULL,
    duration_ms BIGINT NOT NULL,
    response_status BIGINT,
    error TEXT,
    response TEXT,
    PRIMARY KEY (delivery_id, number)
);

-- The secrets that sign an account's webhooks: one current, and after a rotation the one before it for a day.
CREATE TABLE webhook_secrets (
    account_id TEXT NOT NULL REFERENCES accounts (id),
    secret TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    expires_ms BIGINT,
    PRIMARY KEY (account_id, secret)
);
CREATE UNIQUE INDEX webhook_secrets_current ON webhook_secrets (account_id) WHERE expires_ms IS NULL;
