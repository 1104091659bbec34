"""SQL of webhooks: deliveries, their attempts, and the secrets that sign them.

A delivery is `due` → `sending` (under a lease) → `delivered`, `gone`, `failed`, or `waiting` → `due` again. Each
move is one UPDATE that names the state it leaves; each of these states has a partial index of its own.
"""

from collections.abc import Sequence
from typing import NamedTuple

from pixeldojo.db import Row, Tx


class Delivery(NamedTuple):
    """A row of `deliveries`, without its payload. Times are milliseconds."""

    id: str
    job_id: str
    account_id: str
    line: str
    url: str
    type: str
    terminal: int
    status: str
    tries: int
    attempts: int
    next_ms: int
    last_ms: int | None
    last_status: int | None
    created_ms: int
    expires_ms: int


class Attempt(NamedTuple):
    """A row of `delivery_attempts`. `response_status` is None where there was no answer; then `error` says why."""

    delivery_id: str
    number: int
    at_ms: int
    duration_ms: int
    response_status: int | None
    error: str | None
    response: str | None


_COLUMNS = ", ".join(Delivery._fields)
_ATTEMPT = ", ".join(Attempt._fields)
# Waits are hours long at most: a time further ahead than this was written before the clock was set back.
_FAR_MS = 3 * 24 * 3600 * 1000
_LEASE_FAR_MS = 3_600_000


def _delivery(row: Row | None) -> Delivery | None:
    return Delivery._make(row) if row else None


def insert(tx: Tx, delivery: Delivery, *, payload: bytes) -> None:
    sql = (
        f"INSERT INTO deliveries ({_COLUMNS}, payload) VALUES ({', '.join('?' * len(Delivery._fields))}, ?)"
        " ON CONFLICT DO NOTHING"
    )
    tx.run(sql, *delivery, payload)


def replace_due(tx: Tx, job_id: str, *, event: str, payload: bytes, now_ms: int) -> bool:
    """A newer payload for an event that nobody has begun to send. False when there is none."""
    sql = "UPDATE deliveries SET payload = ?, created_ms = ? WHERE job_id = ? AND type = ? AND status = 'due'"
    return tx.run(sql, payload, now_ms, job_id, event) > 0


def drop_due(tx: Tx, job_id: str, *, event: str) -> None:
    tx.run("DELETE FROM deliveries WHERE job_id = ? AND type = ? AND status = 'due'", job_id, event)


def newest_ms(tx: Tx, job_id: str, *, event: str) -> int | None:
    """When the job's latest delivery of this type was made."""
    row = tx.one("SELECT MAX(created_ms) FROM deliveries WHERE job_id = ? AND type = ?", job_id, event)
    return row[0] if row else None


def terminal(tx: Tx, job_ids: Sequence[str]) -> dict[str, Delivery]:
    """The one terminal delivery of each of these jobs, by job id; jobs without one are left out."""
    if not job_ids:
        return {}
    sql = f"SELECT {_COLUMNS} FROM deliveries WHERE terminal = 1 AND job_id IN ({', '.join('?' * len(job_ids))})"
    return {found.job_id: found for found in map(Delivery._make, tx.all(sql, *job_ids))}


def of_job(tx: Tx, job_id: str, *, limit: int) -> list[Delivery]:
    """The job's deliveries, the newest `limit` of them, in the order they were made."""
    sql = f"SELECT {_COLUMNS} FROM deliveries WHERE job_id = ? ORDER BY id DESC LIMIT ?"
    return [Delivery._make(row) for row in reversed(tx.all(sql, job_id, limit))]


def attempts(tx: Tx, job_id: str, *, limit: int) -> list[Attempt]:
    """The attempts of a job's deliveries, the latest `limit` of them, oldest first."""
    sql = (
        f"SELECT {_ATTEMPT} FROM delivery_attempts WHERE delivery_id IN (SELECT id FROM deliveries WHERE job_id = ?)"
        " ORDER BY at_ms DESC, number DESC LIMIT ?"
    )
    return [Attempt._make(row) for row in reversed(tx.all(sql, job_id, limit))]


def due_lines(tx: Tx, *, after: str, limit: int) -> list[str]:
    """Lines after `after` in which something is due: one index seek each, however much is due in it."""
    sql = (
        "WITH RECURSIVE seen (line) AS ("
        "SELECT (SELECT MIN(line) FROM deliveries WHERE status = 'due' AND line > ?) UNION ALL "
        "SELECT (SELECT MIN(line) FROM deliveries WHERE status = 'due' AND line > seen.line) FROM seen"
        " WHERE seen.line IS NOT NULL) SELECT line FROM seen WHERE line IS NOT NULL LIMIT ?"
    )
    return [row[0] for row in tx.all(sql, after, limit)]


def claim(tx: Tx, line: str, *, limit: int, lease: str, until_ms: int) -> list[tuple[Delivery, bytes]]:
    """due → sending for the first `limit` of a line, with their payloads."""
    sql = (
        "WITH ready AS MATERIALIZED (SELECT id FROM deliveries WHERE status = 'due' AND line = ?"
        f" ORDER BY id LIMIT ? {tx.skip_locked})"
        " UPDATE deliveries SET status = 'sending', lease = ?, lease_until_ms = ?"
        f" WHERE status = 'due' AND id IN (SELECT id FROM ready) RETURNING {_COLUMNS}, payload"
    )
    rows = tx.all(sql, line, limit, lease, until_ms)
    return [(Delivery._make(row[:-1]), bytes(row[-1])) for row in rows]


def conclude(
    tx: Tx, delivery_id: str, *, lease: str, status: str, tries: int, next_ms: int, at_ms: int, answered: int | None
) -> int | None:
    """sending (under this lease) → `status`; the attempt's number, None when the lease is lost.

    A payload is not kept for longer than its job's files, unless it is still to be sent.
    """
    row = tx.one(
        "UPDATE deliveries SET status = ?, lease = NULL, lease_until_ms = NULL, tries = ?, next_ms = ?,"
        " attempts = attempts + 1, last_ms = ?, last_status = ?"
        " WHERE id = ? AND status = 'sending' AND lease = ? RETURNING attempts, expires_ms",
        status, tries, next_ms, at_ms, answered, delivery_id, lease,
    )  # fmt: skip
    if row is not None and status != "waiting" and row[1] <= at_ms:
        tx.run("UPDATE deliveries SET payload = ? WHERE id = ?", b"", delivery_id)
    return int(row[0]) if row else None


def note_attempt(tx: Tx, delivery_id: str, *, at_ms: int, answered: int | None) -> int | None:
    """Count an attempt of a delivery that somebody else has taken over; its number, None when the row is gone."""
    row = tx.one(
        "UPDATE deliveries SET attempts = attempts + 1, last_ms = ?, last_status = ? WHERE id = ? RETURNING attempts",
        at_ms, answered, delivery_id,
    )  # fmt: skip
    return int(row[0]) if row else None


def insert_attempt(tx: Tx, attempt: Attempt) -> None:
    tx.run(f"INSERT INTO delivery_attempts ({_ATTEMPT}) VALUES (?, ?, ?, ?, ?, ?, ?)", *attempt)


def release(tx: Tx, delivery_id: str, *, lease: str) -> bool:
    """sending → due: handed back, no attempt counted."""
    sql = (
        "UPDATE deliveries SET status = 'due', lease = NULL, lease_until_ms = NULL"
        " WHERE id = ? AND status = 'sending' AND lease = ?"
    )
    return tx.run(sql, delivery_id, lease) == 1


def postpone(tx: Tx, delivery_id: str, *, lease: str, next_ms: int) -> None:
    """sending → waiting: not to be sent yet, no attempt counted."""
    tx.run(
        "UPDATE deliveries SET status = 'waiting', lease = NULL, lease_until_ms = NULL, next_ms = ?"
        " WHERE id = ? AND status = 'sending' AND lease = ?",
        next_ms, delivery_id, lease,
    )  # fmt: skip


def promote(tx: Tx, *, now_ms: int, limit: int) -> int:
    """waiting → due for those whose time has come; how many."""
    sql = (
        "WITH ready AS MATERIALIZED (SELECT id FROM deliveries WHERE status = 'waiting'"
        f" AND (next_ms <= ? OR next_ms > ?) ORDER BY next_ms LIMIT ? {tx.skip_locked})"
        " UPDATE deliveries SET status = 'due' WHERE status = 'waiting' AND id IN (SELECT id FROM ready)"
    )
    return tx.run(sql, now_ms, now_ms + _FAR_MS, limit)


def rescue(tx: Tx, *, now_ms: int, limit: int) -> int:
    """sending → due where the courier has gone silent; events that are sent once only → failed. How many."""
    sql = (
        "WITH stale AS MATERIALIZED (SELECT id FROM deliveries WHERE status = 'sending'"
        f" AND (lease_until_ms < ? OR lease_until_ms > ?) ORDER BY lease_until_ms LIMIT ? {tx.skip_locked})"
        " UPDATE deliveries SET status = CASE terminal WHEN 1 THEN 'due' ELSE 'failed' END,"
        " lease = NULL, lease_until_ms = NULL WHERE status = 'sending' AND id IN (SELECT id FROM stale)"
    )
    return tx.run(sql, now_ms, now_ms + _LEASE_FAR_MS, limit)


def replay(tx: Tx, job_id: str, *, now_ms: int) -> Delivery | None:
    """Whatever state it is in → due, with all its tries before it. An attempt under way loses its lease."""
    sql = (
        "UPDATE deliveries SET status = 'due', lease = NULL, lease_until_ms = NULL, tries = 0, next_ms = ?"
        f" WHERE job_id = ? AND terminal = 1 RETURNING {_COLUMNS}"
    )
    return _delivery(tx.one(sql, now_ms, job_id))


def scrub(tx: Tx, job_id: str) -> None:
    """Drop the payloads of the job's deliveries that have ended."""
    sql = "UPDATE deliveries SET payload = ? WHERE job_id = ? AND status NOT IN ('due', 'sending', 'waiting')"
    tx.run(sql, b"", job_id)


def secrets(tx: Tx, account_id: str, *, now_ms: int) -> list[tuple[str, int, int | None]]:
    """(secret, created, expires) of the account's valid secrets, the current one first."""
    sql = (
        "SELECT secret, created_ms, expires_ms FROM webhook_secrets WHERE account_id = ?"
        " AND (expires_ms IS NULL OR expires_ms > ?) ORDER BY expires_ms IS NOT NULL, created_ms DESC"
    )
    return [(row[0], row[1], row[2]) for row in tx.all(sql, account_id, now_ms)]


def insert_secret(tx: Tx, account_id: str, *, secret: str, now_ms: int) -> None:
    """Make `secret` the current one, unless there is one."""
    sql = "INSERT INTO webhook_secrets (account_id, secret, created_ms) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
    tx.run(sql, account_id, secret, now_ms)


def retire_secret(tx: Tx, account_id: str, *, until_ms: int) -> bool:
    """The current secret ends at `until_ms`, earlier ones end now. False when somebody has just done so."""
    row = tx.one(
        "UPDATE webhook_secrets SET expires_ms = ? WHERE account_id = ? AND expires_ms IS NULL RETURNING secret",
        until_ms,
        account_id,
    )
    if row is not None:
        sql = "DELETE FROM webhook_secrets WHERE account_id = ? AND expires_ms IS NOT NULL AND secret <> ?"
        tx.run(sql, account_id, row[0])
    return row is not None


def outcomes(tx: Tx) -> dict[str, int]:
    """How many deliveries are in each state."""
    return dict(tx.all("SELECT status, COUNT(*) FROM deliveries GROUP BY status"))
