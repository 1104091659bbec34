"""What of the ledger leaves the service: rows in, plain data for JSON out. Credits are numbers, days are dates."""

from collections.abc import Collection, Sequence
from typing import Any

from pixeldojo import clock, money
from pixeldojo.ledger.service import GROUPS, Entry, Usage

_DAY_MS = 86_400_000
_FIELDS = {"day": "day", "model": "model", "key": "keyId"}


def entry(seen: Entry) -> dict[str, Any]:
    """One entry. `credits` is the account's balance after it."""
    return {
        "id": seen.id,
        "kind": seen.kind,
        "amount": money.to_credits(seen.amount_milli),
        "credits": money.to_credits(seen.balance_milli),
        "jobId": seen.job_id,
        "keyId": seen.key_id,
        "model": seen.model,
        "note": seen.note,
        "createdAt": clock.rfc3339(seen.created_ms),
    }


def _sums(jobs: int, charged_milli: int, refunded_milli: int) -> dict[str, Any]:
    return {
        "jobs": jobs,
        "charged": money.to_credits(charged_milli),
        "refunded": money.to_credits(refunded_milli),
        "net": money.to_credits(charged_milli - refunded_milli),
    }


def usage(rows: Sequence[Usage], *, from_ms: int, to_ms: int, group_by: Collection[str]) -> dict[str, Any]:
    """Rows with the fields of their groups, and the sums over all of them."""
    names = [name for name in GROUPS if name in group_by]
    shown = []
    for row in rows:
        day = clock.rfc3339(row.day * _DAY_MS)[:10] if row.day is not None else None
        groups = {"day": day, "model": row.model, "key": row.key_id}
        sums = _sums(row.jobs, row.charged_milli, row.refunded_milli)
        shown.append({_FIELDS[name]: groups[name] for name in names} | sums)
    charged, refunded = sum(row.charged_milli for row in rows), sum(row.refunded_milli for row in rows)
    total = _sums(sum(row.jobs for row in rows), charged, refunded)
    return {
        "from": clock.rfc3339(from_ms),
        "to": clock.rfc3339(to_ms),
        "groupBy": names,
        "rows": shown,
        "total": total,
    }
