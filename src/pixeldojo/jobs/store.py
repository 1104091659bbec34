"""SQL of jobs. Every move from one state to another is one UPDATE here that names the state it leaves.

Zero rows changed means somebody else moved the job first (the lease is lost): the caller drops its result.
"""

from collections.abc import Mapping
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


_COLUMNS = ", ".join(Job._fields)
_PICK = f"SELECT {_COLUMNS} FROM jobs"
_INSERT = f"INSERT INTO jobs ({_COLUMNS}) VALUES ({', '.join('?' * len(Job._fields))})"


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


def get(tx: Tx, job_id: str) -> Job | None:
    return _job(tx.one(f"{_PICK} WHERE id = ?", job_id))


def page(tx: Tx, account_id: str, *, before: str | None, limit: int, equal: Mapping[str, str]) -> list[Job]:
    """The account's jobs older than id `before`, newest first. `equal` filters by status and model."""
    where, params = ["account_id = ?"], [account_id]
    for column in ("status", "model"):
        if column in equal:
            where.append(f"{column} = ?")
            params.append(equal[column])
    if before is not None:
        where.append("id < ?")
        params.append(before)
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


def claim(tx: Tx, model: str, *, limit: int, lease: str, until_ms: int, now_ms: int) -> list[Job]:
    """pending → processing for the `limit` oldest jobs of a model that are ready."""
    sql = (
        "UPDATE jobs SET status = 'processing', lease = ?, lease_until_ms = ?, attempt = attempt + 1,"
        " progress_ppm = 0, started_ms = COALESCE(started_ms, ?)"
        " WHERE status = 'pending' AND id IN (SELECT id FROM jobs WHERE status = 'pending' AND model = ?"
        f" AND ready_ms <= ? ORDER BY ready_ms, id LIMIT ? {tx.skip_locked}) RETURNING {_COLUMNS}"
    )
    return [Job._make(row) for row in tx.all(sql, lease, until_ms, now_ms, model, now_ms, limit)]


def keep(tx: Tx, job_id: str, *, lease: str, until_ms: int, progress_ppm: int) -> bool:
    """processing → processing: the heartbeat. False when the lease is lost."""
    sql = "UPDATE jobs SET lease_until_ms = ?, progress_ppm = ? WHERE id = ? AND status = 'processing' AND lease = ?"
    return tx.run(sql, until_ms, progress_ppm, job_id, lease) == 1


def complete(
    tx: Tx, job_id: str, *, lease: str, assets: str, engine_ms: int, now_ms: int, expires_ms: int
) -> Job | None:
    """processing → completed."""
    sql = (
        "UPDATE jobs SET status = 'completed', lease = NULL, lease_until_ms = NULL, progress_ppm = 1000000,"
        " assets = ?, engine_ms = ?, completed_ms = ?, expires_ms = ?"
        f" WHERE id = ? AND status = 'processing' AND lease = ? RETURNING {_COLUMNS}"
    )
    return _job(tx.one(sql, assets, engine_ms, now_ms, expires_ms, job_id, lease))


def fail(
    tx: Tx, job_id: str, *, lease: str | None, code: str, message: str, now_ms: int, expires_ms: int
) -> Job | None:
    """processing (with this lease) → failed, or pending → failed where `lease` is None; refunded whole."""
    leaves = "status = 'processing' AND lease = ?" if lease is not None else "status = 'pending'"
    held: list[Value] = [lease] if lease is not None else []
    sql = (
        "UPDATE jobs SET status = 'failed', lease = NULL, lease_until_ms = NULL, refunded_milli = cost_milli,"
        " error_code = ?, error_message = ?, completed_ms = ?, expires_ms = ?"
        f" WHERE id = ? AND {leaves} RETURNING {_COLUMNS}"
    )
    return _job(tx.one(sql, code, message, now_ms, expires_ms, job_id, *held))


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
        "SELECT id, lease, attempt FROM jobs WHERE status = 'processing' AND lease_until_ms < ?"
        " ORDER BY lease_until_ms LIMIT ?"
    )
    return [(row[0], row[1], row[2]) for row in tx.all(sql, now_ms, limit)]


def overdue(tx: Tx, *, now_ms: int, limit: int) -> list[Job]:
    """Finished jobs past their expiry whose files were not yet swept, oldest first."""
    sql = f"{_PICK} WHERE completed_ms IS NOT NULL AND swept_ms IS NULL AND expires_ms <= ? ORDER BY expires_ms LIMIT ?"
    return [Job._make(row) for row in tx.all(sql, now_ms, limit)]


def never_begun(tx: Tx, *, now_ms: int, limit: int) -> list[str]:
    """Ids of pending jobs past their expiry."""
    sql = "SELECT id FROM jobs WHERE status = 'pending' AND expires_ms <= ? LIMIT ?"
    return [row[0] for row in tx.all(sql, now_ms, limit)]


def mark_swept(tx: Tx, job_id: str, *, now_ms: int) -> None:
    tx.run("UPDATE jobs SET swept_ms = ? WHERE id = ? AND completed_ms IS NOT NULL", now_ms, job_id)


def queue(tx: Tx) -> dict[str, int]:
    """How many jobs are pending, by model."""
    return dict(tx.all("SELECT model, COUNT(*) FROM jobs WHERE status = 'pending' GROUP BY model"))
