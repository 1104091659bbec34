"""What of accounts and keys leaves the service: rows in, plain data for JSON out. Never a key's text or hash."""

from typing import Any

from pixeldojo import clock, money
from pixeldojo.accounts.service import SCOPES, Account, Key, models_of, scopes_of


def account(seen: Account) -> dict[str, Any]:
    """One account. `concurrency` is its own bound; None for the service's."""
    return {
        "id": seen.id,
        "name": seen.name,
        "credits": money.to_credits(seen.balance_milli),
        "concurrency": seen.concurrency,
        "createdAt": clock.rfc3339(seen.created_ms),
    }


def _status(key: Key) -> str:
    if key.revoked_ms is not None:
        return "revoked"
    return "expired" if key.expires_ms is not None and key.expires_ms <= clock.now_ms() else "active"


def _time(time_ms: int | None) -> str | None:
    return None if time_ms is None else clock.rfc3339(time_ms)


def key(seen: Key) -> dict[str, Any]:
    """One key. Keys with the same `budgetId` share `capCredits` and `spentCredits`."""
    models, scopes = models_of(seen), scopes_of(seen)
    return {
        "id": seen.id,
        "prefix": seen.prefix,
        "name": seen.name,
        "status": _status(seen),
        "scopes": [scope for scope in SCOPES if scope in scopes],
        "models": None if models is None else list(models),
        "budgetId": seen.budget_id,
        "capCredits": None if seen.cap_milli is None else money.to_credits(seen.cap_milli),
        "spentCredits": money.to_credits(seen.spent_milli),
        "rateLimit": seen.rate_limit,
        "createdAt": clock.rfc3339(seen.created_ms),
        "expiresAt": _time(seen.expires_ms),
        "revokedAt": _time(seen.revoked_ms),
        "replacedBy": seen.replaced_by,
    }
