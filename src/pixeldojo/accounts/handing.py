"""What a key may do with the account's keys: it hands on no more than it has, and a new secret is no more than a key.

A caller and its wish come in; a key leaves, or the error that says what was too much. An admin key is bound by
nothing here. Everything happens in the caller's transaction.
"""

from dataclasses import dataclass

from pixeldojo import clock, errors, limits
from pixeldojo.accounts import service, store
from pixeldojo.accounts.service import Caller, Key
from pixeldojo.db import Tx

MOST_KEYS = 100  # of one account, at work at once: each has a rate limit of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a new key shall be. None: as the key that makes it, where that is limited, and else without a limit."""

    name: str
    models: list[str] | None = None
    cap_milli: int | None = None
    expires_ms: int | None = None
    rate_limit: str | None = None
    scopes: list[str] | None = None


def issue_key(tx: Tx, *, caller: Caller, terms: Terms, service_rate: str) -> tuple[Key, str]:
    """A new key of the caller's account, and its secret text. Raises `ValidationError` for more than the caller has.

    A caller with a cap makes keys that spend from its own budget. `service_rate` is the rate limit of keys that have
    none of their own.
    """
    _check_room(tx, caller.account_id)
    if "admin" in caller.scopes:
        return create_key(tx, account_id=caller.account_id, terms=terms)
    own = service.find_key(tx, account_id=caller.account_id, key=caller.key_id)
    usual = [scope for scope in service.DEFAULT_SCOPES if scope in caller.scopes]
    scopes = usual if terms.scopes is None else terms.scopes
    models = terms.models if terms.models is not None or caller.models is None else list(caller.models)
    faults = _too_much(caller, own, terms, scopes=scopes, models=models, service_rate=service_rate)
    if faults:
        raise errors.ValidationError(f"{faults[0].path}: {faults[0].message}", details=faults)
    return service.create_key(
        tx,
        account_id=caller.account_id,
        name=terms.name,
        models=models,
        cap_milli=terms.cap_milli,
        expires_ms=terms.expires_ms or own.expires_ms,
        rate_limit=terms.rate_limit or own.rate_limit,
        scopes=scopes,
        budget_id=own.budget_id if own.cap_milli is not None else None,
    )


def create_key(tx: Tx, *, account_id: str, terms: Terms) -> tuple[Key, str]:
    """A new key on these terms, whoever asks for it."""
    return service.create_key(
        tx,
        account_id=account_id,
        name=terms.name,
        models=terms.models,
        cap_milli=terms.cap_milli,
        expires_ms=terms.expires_ms,
        rate_limit=terms.rate_limit,
        scopes=terms.scopes,
    )


def _too_much(
    caller: Caller, own: Key, terms: Terms, *, scopes: list[str], models: list[str] | None, service_rate: str
) -> list[errors.Detail]:
    faults = []
    if not scopes:
        faults.append(errors.Detail("scopes", f"is required: this API key has none of the usual ones, {_has(caller)}"))
    if beyond := sorted(set(scopes) & set(service.SCOPES) - caller.scopes):
        faults.append(errors.Detail("scopes", f"this API key can't give {', '.join(beyond)}; {_has(caller)}"))
    if caller.models is not None and (more := sorted(set(models or ()) - set(caller.models))):
        may = ", ".join(caller.models) or "none"
        faults.append(errors.Detail("models", f"this API key can't give {', '.join(more)}; it may run {may}"))
    if own.cap_milli is not None and terms.cap_milli is not None:
        faults.append(errors.Detail("capCredits", "this API key has a cap: the keys it makes spend from the same one"))
    if own.expires_ms is not None and (terms.expires_ms or 0) > own.expires_ms:
        faults.append(errors.Detail("expiresAt", f"must not be later than this key's, {clock.rfc3339(own.expires_ms)}"))
    rate = own.rate_limit or service_rate
    if terms.rate_limit is not None and _is_looser(terms.rate_limit, rate):
        faults.append(errors.Detail("rateLimit", f"must not allow more than this key's, {rate}"))
    return faults


def _has(caller: Caller) -> str:
    return f"it has {', '.join(sorted(caller.scopes))}"


def _is_looser(text: str, than: str) -> bool:
    """Whether one rate allows more than another, at once or over time."""
    try:
        rate, bound = limits.parse(text), limits.parse(than)
    except ValueError as error:
        raise errors.ValidationError.at("rateLimit", str(error)) from None
    if rate is None or bound is None:
        return bound is not None
    return rate.amount > bound.amount or rate.amount * bound.window_s > bound.amount * rate.window_s


def rotate_key(tx: Tx, *, caller: Caller, key_id: str, grace_s: int) -> tuple[Key, Key, str]:
    """Rotate one of the account's keys (see `service.rotate_key`): the caller's own, or one that may do no more.

    Whoever rotates a key learns its new secret, so this must not be a way to a better key than one has.
    """
    key = service.find_key(tx, account_id=caller.account_id, key=key_id)
    if key.id != caller.key_id and "admin" not in caller.scopes:
        own = service.find_key(tx, account_id=caller.account_id, key=caller.key_id)
        if reason := _is_more(caller, own, key):
            raise errors.ValidationError.at("keyId", f"this API key can't rotate {key.id}, which {reason}")
    if grace_s:
        _check_room(tx, caller.account_id)
    return service.rotate_key(tx, account_id=caller.account_id, key=key.id, grace_s=grace_s)


def _is_more(caller: Caller, own: Key, key: Key) -> str | None:
    if beyond := sorted(service.scopes_of(key) - caller.scopes):
        return f"has the scope {', '.join(beyond)}"
    models = service.models_of(key)
    if caller.models is not None and (models is None or set(models) - set(caller.models)):
        return "may run other models"
    if own.cap_milli is not None and key.budget_id != own.budget_id:
        return "spends from another budget"
    if own.expires_ms is not None and (key.expires_ms is None or key.expires_ms > own.expires_ms):
        return "works for longer"
    return None


def revoke_key(tx: Tx, *, caller: Caller, key_id: str) -> Key:
    """Revoke one of the account's keys. Every key may revoke itself; others need `account:write`, and for an admin
    key `admin`."""
    if key_id != caller.key_id:
        service.require(caller, "account:write")
    key = service.find_key(tx, account_id=caller.account_id, key=key_id)
    if key.id != caller.key_id and "admin" in service.scopes_of(key):
        service.require(caller, "admin")
    return service.revoke_key(tx, account_id=caller.account_id, key=key.id)


def _check_room(tx: Tx, account_id: str) -> None:
    if store.count_live_keys(tx, account_id, now_ms=clock.now_ms()) >= MOST_KEYS:
        raise errors.ValidationError.at("", f"the account has {MOST_KEYS} keys that work; revoke one first")
