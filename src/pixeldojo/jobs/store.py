"""SQL of jobs. Every move from one state to another is one UPDATE here that names the state it leaves.

Zero rows changed means somebody else moved the job first (the lease is lost): the caller drops its result.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pixeldojo.db import Row, Tx, Value


class Job(NamedTuple):
    """A row of `jobs`. `input` and `assets` are JSON; times are milliseconds, credits milli-credits."""

    id: str
    account_id: str
    key_id: str
    model: str
    modality: str
    status: str
    input: str
    webhook_url: str | None
    cost_milli: int
    refunded_milli: int
    progress_ppm: int
    attempt: int
    error_code: str | None
    error_message: str | None
    assets: str | None
    engine_ms: int | None
    created_ms: int
    started_ms: int | None
    completed_ms: int | None
    expires_ms: int
    metadata: str | None = None
    rank: int = 0
    start_by_ms: int | None = None
    deadline_ms: int | None = None
    cancel_ms: int | None = None
    webhook_events: str | None = None
    base_url: str | None = None
    swept_ms: int | None = None

    def expired(self, *, now_ms: int) -> bool:
        """Whether it ended and its time is over. What was swept stays so, even if the clock is set back."""
        return self.completed_ms is not None and (self.swept_ms is not None or self.expires_ms <= now_ms)


_COLUMNS = ", ".join(Job._fields)
_PICK = f"SELECT {_COLUMNS} FROM jobs"
_INSERT = f"INSERT INTO jobs ({_COLUMNS}) VALUES ({', '.join('?' * len(Job._fields))})"
# Waits and leases are seconds long: a time further ahead than this was written before the clock was set back.
_FAR_MS = 3_600_000
# A job never ends before it began, whatever the clock did meanwhile.
_ENDED_MS = "CASE WHEN COALESCE(started_ms, created_ms) > ? THEN COALESCE(started_ms, created_ms) ELSE ? END"


def _job(row: Row | None) -> Job | None:
    return Job._make(row) if row else None


def insert(tx: Tx, job: Job) -> None:
    tx.run(_INSERT, *job)


def insert_input(tx: Tx, job_id: str, *, name: str, data: bytes) -> None:
    tx.run("INSERT INTO job_inputs (job_id, name, data) VALUES (?, ?, ?)", job_id, name, data)


def inputs(tx: Tx, job_id: str) -> dict[str, bytes]:
    rows = tx.all("SELECT name, data FROM job_inputs WHERE job_id = ?", job_id)
    return {name: bytes(data) for name, data in rows}


def drop_inputs(tx: Tx, job_id: str) -> None:
    tx.run("DELETE FROM job_inputs WHERE job_id = ?", job_id)


class Preview(NamedTuple):
    """How a job's result will look; `number` rises with each one of the job."""

    number: int
    content_type: str
    picture: bytes


def put_preview(tx: Tx, job_id: str, content_type: str, picture: bytes) -> None:
    sql = (
        "INSERT INTO job_previews (job_id, number, content_type, picture) VALUES (?, 1, ?, ?) ON CONFLICT (job_id)"
        " DO UPDATE SET number = job_previews.number + 1, content_type = excluded.content_type,"
        " picture = excluded.picture"
    )
    tx.run(sql, job_id, content_type, picture)


def preview(tx: Tx, job_id: str, *, after: int) -> Preview | None:
    sql = "SELECT number, content_type, picture FROM job_previews WHERE job_id = ? AND number > ?"
    row = tx.one(sql, job_id, after)
    return Preview(row[0], row[1], bytes(row[2])) if row else None


def drop_preview(tx: Tx, job_id: str) -> None:
    tx.run("DELETE FROM job_previews WHERE job_id = ?", job_id)


def get(tx: Tx, job_id: str) -> Job | None:
    return _job(tx.one(f"{_PICK} WHERE id = ?", job_id))


def listening(tx: Tx, job_ids: Sequence[str]) -> list[Job]:
    """Those of the jobs whose webhook hears of more than their end."""
    if not job_ids:
        return []
    sql = f"{_PICK} WHERE webhook_events IS NOT NULL AND id IN ({', '.join('?' * len(job_ids))})"
    return [Job._make(row) for row in tx.all(sql, *job_ids)]


def insert_metadata(tx: Tx, account_id: str, job_id: str, *, name: str, value: str) -> None:
    sql = "INSERT INTO job_metadata (account_id, name, value, job_id) VALUES (?, ?, ?, ?)"
    tx.run(sql, account_id, name, value, job_id)


def page(
    tx: Tx,
    account_id: str,
    *,
    limit: int,
    before: str | None = None,
    since: str | None = None,
    equal: Mapping[str, str],
    metadata: Mapping[str, str],
) -> list[Job]:
    """The account's jobs with `since` <= id < `before`, newest first.

    `equal` filters by the columns status, model and key_id, `metadata` by names and values.
    """
    where, params = ["account_id = ?"], [account_id]
    for column in ("status", "model", "key_id"):
        if column in equal:
            where.append(f"{column} = ?")
            params.append(equal[column])
    for name, value in metadata.items():
        where.append("id IN (SELECT job_id FROM job_metadata WHERE account_id = ? AND name = ? AND value = ?)")
        params += [account_id, name, value]
    if before is not None:
        where.append("id < ?")
        params.append(before)
    if since is not None:
        where.append("id >= ?")
        params.append(since)
    rows = tx.all(f"{_PICK} WHERE {' AND '.join(where)} ORDER BY id DESC LIMIT ?", *params, limit)
    return [Job._make(row) for row in rows]


def take_idempotency(tx: Tx, account_id: str, *, key: str, request_hash: str, job_id: str, now_ms: int) -> bool:
    """False when the account used the key before (and it has not been dropped since)."""
    sql = (
        "INSERT INTO idempotency (account_id, idempotency_key, request_hash, job_id, created_ms)"
        " VALUES (?, ?, ?, ?, ?) ON CONFLICT (account_id, idempotency_key) DO NOTHING"
    )
    return tx.run(sql, account_id, key, request_hash, job_id, now_ms) == 1


def idempotency(tx: Tx, account_id: str, *, key: str) -> tuple[str, str] | None:
    """(request hash, job id) of an earlier use of the key."""
    sql = "SELECT request_hash, job_id FROM idempotency WHERE account_id = ? AND idempotency_key = ?"
    row = tx.one(sql, account_id, key)
    return (row[0], row[1]) if row else None


def drop_idempotency(tx: Tx, *, before_ms: int, account_id: str | None = None, key: str | None = None) -> int:
    """Forget uses older than `before_ms`: of one key, or of all."""
    sql = "DELETE FROM idempotency WHERE created_ms <= ?"
    if account_id is None:
        return tx.run(sql, before_ms)
    return tx.run(sql + " AND account_id = ? AND idempotency_key = ?", before_ms, account_id, key)


_SEEK = "(SELECT MIN(account_id) FROM jobs WHERE status = 'pending' AND model = ? AND account_id > "
_WAITING = (
    f"WITH RECURSIVE seen (account_id) AS (SELECT {_SEEK}'') UNION ALL"
    f" SELECT {_SEEK}seen.account_id) FROM seen WHERE seen.account_id IS NOT NULL)"
    " SELECT account_id FROM seen WHERE account_id IS NOT NULL LIMIT ?"
)


def waiting_accounts(tx: Tx, model: str, *, limit: int) -> list[str]:
    """Accounts with pending jobs of the model: one index seek each, however many jobs they have."""
    return [row[0] for row in tx.all(_WAITING, model, model, limit)]


def running(tx: Tx, model: str) -> dict[str, int]:
    """How many jobs of the model are being worked on, by account."""
    sql = "SELECT account_id, COUNT(*) FROM jobs WHERE status = 'processing' AND model = ? GROUP BY account_id"
    return dict(tx.all(sql, model))


def running_everywhere(tx: Tx, account_id: str) -> int:
    """How many jobs of the account are being worked on, whatever their model."""
    row = tx.one("SELECT COUNT(*) FROM jobs WHERE status = 'processing' AND account_id = ?", account_id)
    return int(row[0]) if row else 0


def concurrency(tx: Tx, account_id: str) -> int | None:
    """The account's own limit of jobs at once."""
    row = tx.one("SELECT concurrency FROM accounts WHERE id = ?", account_id)
    return row[0] if row else None


def claim(tx: Tx, model: str, account_id: str, *, limit: int, lease: str, until_ms: int, now_ms: int) -> list[Job]:
    """pending → processing for an account's first `limit` jobs of a model that are ready."""
    # MATERIALIZED: PostgreSQL may otherwise run the inner SELECT again for each row, and so pass the limit.
    sql = (
        "WITH ready AS MATERIALIZED (SELECT id FROM jobs WHERE status = 'pending' AND model = ? AND account_id = ?"
        f" AND NOT (ready_ms > ? AND ready_ms <= ?) ORDER BY rank, id LIMIT ? {tx.skip_locked})"
        " UPDATE jobs SET status = 'processing', lease = ?, lease_until_ms = ?, attempt = attempt + 1,"
        " progress_ppm = 0,"
        " started_ms = COALESCE(started_ms, CASE WHEN created_ms > ? THEN created_ms ELSE ? END)"
        f" WHERE status = 'pending' AND id IN (SELECT id FROM ready) RETURNING {_COLUMNS}"
    )
    rows = tx.all(sql, model, account_id, now_ms, now_ms + _FAR_MS, limit, lease, until_ms, now_ms, now_ms)
    return [Job._make(row) for row in rows]


def keep(tx: Tx, job_id: str, *, lease: str, until_ms: int, progress_ppm: int) -> tuple[bool, bool]:
    """processing → processing: the heartbeat. (whether the lease still holds, whether the job is to be cancelled)"""
    row = tx.one(
        "UPDATE jobs SET lease_until_ms = ?, progress_ppm = ? WHERE id = ? AND status = 'processing' AND lease = ?"
        " RETURNING cancel_ms",
        until_ms,
        progress_ppm,
        job_id,
        lease,
    )
    return row is not None, row is not None and row[0] is not None


def ask_cancel(tx: Tx, job_id: str, *, now_ms: int) -> bool:
    """processing → processing, to be cancelled. False when it is not being worked on."""
    sql = "UPDATE jobs SET cancel_ms = COALESCE(cancel_ms, ?) WHERE id = ? AND status = 'processing'"
    return tx.run(sql, now_ms, job_id) == 1


def complete(
    tx: Tx, job_id: str, *, lease: str, assets: str, engine_ms: int, now_ms: int, expires_ms: int
) -> Job | None:
    """processing → completed, unless it is to be cancelled."""
    sql = (
        "UPDATE jobs SET status = 'completed', lease = NULL, lease_until_ms = NULL, progress_ppm = 1000000,"
        f" assets = ?, engine_ms = ?, completed_ms = {_ENDED_MS}, expires_ms = ?"
        f" WHERE id = ? AND status = 'processing' AND lease = ? AND cancel_ms IS NULL RETURNING {_COLUMNS}"
    )
    return _job(tx.one(sql, assets, engine_ms, now_ms, now_ms, expires_ms, job_id, lease))


def fail(
    tx: Tx, job_id: str, *, lease: str | None, code: str, message: str, now_ms: int, expires_ms: int
) -> Job | None:
    """processing (with this lease) → failed, or pending → failed where `lease` is None; refunded whole."""
    leaves = "status = 'processing' AND lease = ?" if lease is not None else "status = 'pending'"
    held: list[Value] = [lease] if lease is not None else []
    sql = (
        "UPDATE jobs SET status = 'failed', lease = NULL, lease_until_ms = NULL, refunded_milli = cost_milli,"
        f" error_code = ?, error_message = ?, completed_ms = {_ENDED_MS}, expires_ms = ?"
        f" WHERE id = ? AND {leaves} RETURNING {_COLUMNS}"
    )
    return _job(tx.one(sql, code, message, now_ms, now_ms, expires_ms, job_id, *held))


def release(tx: Tx, job_id: str, *, lease: str, ready_ms: int, attempt_change: int) -> bool:
    """processing → pending: another try later, or (`attempt_change` −1) a try that is handed back unused."""
    sql = (
        "UPDATE jobs SET status = 'pending', lease = NULL, lease_until_ms = NULL, progress_ppm = 0,"
        " ready_ms = ?, attempt = attempt + ? WHERE id = ? AND status = 'processing' AND lease = ?"
    )
    return tx.run(sql, ready_ms, attempt_change, job_id, lease) == 1


def stale(tx: Tx, *, now_ms: int, limit: int) -> list[tuple[str, str, int]]:
    """(id, lease, attempt) of processing jobs whose lease has run out."""
    sql = (
        "SELECT id, lease, attempt FROM jobs WHERE status = 'processing' AND (lease_until_ms < ? OR lease_until_ms > ?)"
        " ORDER BY lease_until_ms LIMIT ?"
    )
    return [(row[0], row[1], row[2]) for row in tx.all(sql, now_ms, now_ms + _FAR_MS, limit)]


def overdue(tx: Tx, *, now_ms: int, limit: int) -> list[Job]:
    """Finished jobs past their expiry whose files were not yet swept, oldest first."""
    sql = f"{_PICK} WHERE completed_ms IS NOT NULL AND swept_ms IS NULL AND expires_ms <= ? ORDER BY expires_ms LIMIT ?"
    return [Job._make(row) for row in tx.all(sql, now_ms, limit)]


def never_begun(tx: Tx, *, now_ms: int, limit: int) -> list[str]:
    """Ids of pending jobs past their expiry."""
    sql = "SELECT id FROM jobs WHERE status = 'pending' AND expires_ms <= ? LIMIT ?"
    return [row[0] for row in tx.all(sql, now_ms, limit)]


def mark_swept(tx: Tx, job_id: str, *, keep_input: bool, now_ms: int) -> None:
    forget = "" if keep_input else ", input = '{}'"
    tx.run(f"UPDATE jobs SET swept_ms = ?{forget} WHERE id = ? AND completed_ms IS NOT NULL", now_ms, job_id)


def late(tx: Tx, *, now_ms: int, limit: int) -> list[tuple[str, bool]]:
    """Unfinished jobs past a limit that came with them: (id, whether it is the deadline, else the wait to start)."""
    sql = (
        "SELECT id, COALESCE(deadline_ms <= ?, FALSE) FROM jobs WHERE completed_ms IS NULL"
        " AND (start_by_ms IS NOT NULL OR deadline_ms IS NOT NULL)"
        " AND (deadline_ms <= ? AND cancel_ms IS NULL OR start_by_ms <= ? AND started_ms IS NULL) LIMIT ?"
    )
    return [(row[0], bool(row[1])) for row in tx.all(sql, now_ms, now_ms, now_ms, limit)]


def expire_now(tx: Tx, job_id: str, *, now_ms: int) -> bool:
    """Move a finished job's expiry to now. False when it has not ended."""
    sql = "UPDATE jobs SET expires_ms = ? WHERE id = ? AND completed_ms IS NOT NULL AND expires_ms > ?"
    return tx.run(sql, now_ms, job_id, now_ms) == 1


def forgettable(tx: Tx, *, before_ms: int, limit: int) -> list[str]:
    """Ids of jobs whose files were swept before `before_ms`."""
    sql = "SELECT id FROM jobs WHERE swept_ms IS NOT NULL AND swept_ms < ? ORDER BY swept_ms LIMIT ?"
    return [row[0] for row in tx.all(sql, before_ms, limit)]


def delete(tx: Tx, job_id: str) -> None:
    tx.run("DELETE FROM job_metadata WHERE job_id = ?", job_id)
    tx.run("DELETE FROM jobs WHERE id = ? AND swept_ms IS NOT NULL", job_id)


def count_ahead(tx: Tx, job: Job, *, most: int) -> int:
    """Pending jobs of the same account and model that come before `job`; counts to `most` at the furthest."""
    sql = (
        "SELECT COUNT(*) FROM (SELECT 1 FROM jobs WHERE status = 'pending' AND model = ? AND account_id = ?"
        " AND (rank < ? OR rank = ? AND id < ?) LIMIT ?) AS ahead"
    )
    row = tx.one(sql, job.model, job.account_id, job.rank, job.rank, job.id, most)
    return int(row[0]) if row else 0


def count_pending(tx: Tx, model: str, account_id: str, *, most: int) -> int:
    """Pending jobs of an account and a model; counts to `most` at the furthest."""
    sql = (
        "SELECT COUNT(*) FROM (SELECT 1 FROM jobs WHERE status = 'pending' AND model = ? AND account_id = ?"
        " LIMIT ?) AS waiting"
    )
    row = tx.one(sql, model, account_id, most)
    return int(row[0]) if row else 0


def count_ready(tx: Tx, model: str, account_id: str, *, most: int, now_ms: int) -> int:
    """Those of them that need not wait for their next try; see `claim`."""
    sql = (
        "SELECT COUNT(*) FROM (SELECT 1 FROM jobs WHERE status = 'pending' AND model = ? AND account_id = ?"
        " AND NOT (ready_ms > ? AND ready_ms <= ?) LIMIT ?) AS ready"
    )
    row = tx.one(sql, model, account_id, now_ms, now_ms + _FAR_MS, most)
    return int(row[0]) if row else 0


def recent_seconds(tx: Tx, *, limit: int) -> list[tuple[str, float]]:
    """(model, seconds from start to end) of the jobs that completed last."""
    sql = (
        "SELECT model, completed_ms - started_ms FROM jobs WHERE completed_ms IS NOT NULL AND swept_ms IS NULL"
        " AND status = 'completed' ORDER BY expires_ms DESC LIMIT ?"
    )
    return [(model, ms / 1000) for model, ms in tx.all(sql, limit)]


def queued(tx: Tx) -> list[tuple[str, int, str]]:
    """(model, how many jobs are pending, the oldest one's id), from an index alone."""
    return [
        (row[0], int(row[1]), row[2])
        for row in tx.all("SELECT model, COUNT(*), MIN(id) FROM jobs WHERE status = 'pending' GROUP BY model")
    ]


def at_work(tx: Tx) -> list[tuple[str, int]]:
    """(model, how many jobs are processing)."""
    sql = "SELECT model, COUNT(*) FROM jobs WHERE status = 'processing' GROUP BY model"
    return [(row[0], int(row[1])) for row in tx.all(sql)]


def ended(tx: Tx, *, after_ms: int, until_ms: int, bounds_ms: Sequence[int]) -> list[Row]:
    """What ended in (after, until], by model, status and code: how many; of those that were begun, the sums of their
    milliseconds from submission and in the engine, and how many took at most each of the bounds, for both."""
    spans = ("completed_ms - created_ms", "engine_ms")
    at_most = [f"SUM(CASE WHEN {span} <= {int(bound)} THEN 1 ELSE 0 END)" for span in spans for bound in bounds_ms]
    sql = (
        "SELECT model, status, COALESCE(error_code, ''), COUNT(*), COUNT(engine_ms),"
        f" SUM(completed_ms - created_ms), COALESCE(SUM(engine_ms), 0), {', '.join(at_most)}"
        " FROM jobs WHERE completed_ms > ? AND completed_ms <= ? GROUP BY model, status, COALESCE(error_code, '')"
    )
    return tx.all(sql, after_ms, until_ms)
