"""The rules of accounts and keys. A key is random, shown once, and stored as a hash with a visible prefix."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from pixeldojo import clock, errors, ids, limits
from pixeldojo.accounts import store
from pixeldojo.accounts.store import Account as Account
from pixeldojo.accounts.store import Key as Key
from pixeldojo.db import Tx

DEFAULT_ACCOUNT = "default"
_NAME_CHARS = 100
# What a key may do. `account:write` manages keys and secrets; `admin` manages every account, and includes the rest.
SCOPES = ("jobs:read", "jobs:write", "account:read", "account:write", "admin")
DEFAULT_SCOPES = ("jobs:read", "jobs:write", "account:read")
GRACE_S = 24 * 3600
MOST_GRACE_S = 7 * 24 * 3600
MOST_LIFE_S = 100 * 366 * 24 * 3600

_DEFAULT_SCOPES = frozenset(DEFAULT_SCOPES)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling: an account, through one of its keys. `models` limits the key to these ids."""

    account_id: str
    key_id: str
    models: tuple[str, ...] | None
    scopes: frozenset[str] = frozenset(DEFAULT_SCOPES)

    def may_run(self, api_id: str) -> bool:
        """Whether the key's allow-list, if it has one, names this model."""
        return self.models is None or api_id in self.models


def _name(text: str, *, path: str) -> str:
    if not text.strip() or len(text) > _NAME_CHARS or not text.isprintable():
        raise errors.ValidationError.at(path, f"must be 1 to {_NAME_CHARS} printable characters")
    return text.strip()


def create_account(tx: Tx, *, name: str, concurrency: int | None = None) -> Account:
    """A new account with no credits. Raises `ValidationError` when the name is taken."""
    account = Account(ids.new("acct"), _name(name, path="name"), 0, clock.now_ms(), concurrency)
    if not store.insert_account(tx, account):
        raise errors.ValidationError.at("name", f"there is already an account named {name!r}")
    return account


def account_of(tx: Tx, *, account_id: str) -> Account:
    """The account with that id. Raises `NotFound`."""
    account = store.account_by_id(tx, account_id)
    if account is None:
        raise errors.NotFound(f"There is no account {account_id!r}.")
    return account


def change_account(tx: Tx, *, account_id: str, name: str | None = None, concurrency: int | None = None) -> Account:
    """The account after the change. `concurrency` 0 means the service's; None leaves what there is."""
    before = account_of(tx, account_id=account_id)
    if name is not None and (name := _name(name, path="name")) != before.name:
        if before.name == DEFAULT_ACCOUNT:
            raise errors.ValidationError.at("name", "the default account keeps its name: the command line relies on it")
        if not store.rename(tx, account_id, name=name):
            raise errors.ValidationError.at("name", f"there is already an account named {name!r}")
    if concurrency is not None:
        store.set_concurrency(tx, account_id, concurrency=concurrency or None)
    return account_of(tx, account_id=account_id)


def get_account(tx: Tx, *, name: str) -> Account:
    """The account of that name or id; the default account is made when it is first asked for."""
    account = store.account_by_name(tx, name) or store.account_by_id(tx, name)
    if account is None and name == DEFAULT_ACCOUNT:
        store.insert_account(tx, Account(ids.new("acct"), name, 0, clock.now_ms()))
        account = store.account_by_name(tx, name)
    if account is None:
        raise errors.NotFound(f"There is no account {name!r}; `pixeldojo accounts list` shows them.")
    return account


def list_accounts(tx: Tx) -> list[Account]:
    """Every account, oldest first."""
    return store.accounts(tx)


def account_page(tx: Tx, *, limit: int, before: str | None = None) -> list[Account]:
    """Accounts, newest first: those older than `before`, which is an id."""
    return store.account_page(tx, limit=limit, before=before)


def _scopes(scopes: list[str] | None) -> str | None:
    if scopes is None:
        return None
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        raise errors.ValidationError.at("scopes", f"must be some of {', '.join(SCOPES)}, not {', '.join(unknown)}")
    return msgspec.json.encode(sorted(set(scopes))).decode()


def create_key(
    tx: Tx,
    *,
    account_id: str,
    name: str,
    models: list[str] | None = None,
    cap_milli: int | None = None,
    expires_ms: int | None = None,
    rate_limit: str | None = None,
    scopes: list[str] | None = None,
    budget_id: str | None = None,
) -> tuple[Key, str]:
    """A new key and its secret text, which is not stored and can't be shown again.

    `models` are those it may run (none of them when empty, all when None).
    `cap_milli` is the most the key may spend in all; `expires_ms` must lie in the future; `rate_limit` (`600/minute`,
    `off`) is the key's own, None for the service's. With `budget_id` it spends from the budget of another key
    instead of having a cap of its own.
    """
    now = clock.now_ms()
    if expires_ms is not None and expires_ms <= now:
        raise errors.ValidationError.at("expiresAt", "must lie in the future")
    if cap_milli is not None and cap_milli < 0:
        raise errors.ValidationError.at("capCredits", "must be zero or more")
    try:
        rate_limit = limits.tidy(rate_limit) if rate_limit is not None else None
    except ValueError as error:
        raise errors.ValidationError.at("rateLimit", str(error)) from None
    if budget_id is None:
        budget_id = ids.new("bud")
        store.insert_budget(tx, budget_id, cap_milli=cap_milli)
    secret = ids.new_key()
    key = Key(
        id=ids.new("key"),
        account_id=account_id,
        name=_name(name, path="name"),
        prefix=secret[: ids.KEY_PREFIX_CHARS],
        models=msgspec.json.encode(sorted(set(models))).decode() if models is not None else None,
        cap_milli=cap_milli,
        spent_milli=0,
        created_ms=now,
        expires_ms=expires_ms,
        revoked_ms=None,
        rate_limit=rate_limit,
        scopes=_scopes(scopes),
        budget_id=budget_id,
    )
    store.insert_key(tx, key, key_hash=ids.key_hash(secret))
    return store.key_by_id(tx, key.id) or key, secret


def list_keys(tx: Tx, *, account_id: str) -> list[Key]:
    """Every key of the account, oldest first, revoked ones too."""
    return store.keys(tx, account_id)


def key_page(tx: Tx, *, account_id: str, limit: int, before: str | None = None) -> list[Key]:
    """The account's keys, newest first, revoked ones too: those older than `before`, which is an id."""
    return store.key_page(tx, account_id, limit=limit, before=before)


def find_key(tx: Tx, *, account_id: str, key: str) -> Key:
    """The account's key with that id or prefix. Raises `NotFound`, and `ValidationError` for a prefix of several."""
    found = store.keys_named(tx, account_id, text=key)
    if not found:
        raise errors.NotFound(f"There is no key {key!r} in this account.")
    if len(found) > 1:
        raise errors.ValidationError.at("key", f"{key!r} is the prefix of {len(found)} keys; give the id")
    return found[0]


def revoke_key(tx: Tx, *, account_id: str, key: str) -> Key:
    """Revoke the key with that id or prefix; it stops working with this commit. Revoking twice is no error."""
    found = find_key(tx, account_id=account_id, key=key)
    now = clock.now_ms()
    store.revoke(tx, found.id, now_ms=now)
    return found._replace(revoked_ms=found.revoked_ms or now)


def rotate_key(tx: Tx, *, account_id: str, key: str, grace_s: int = GRACE_S) -> tuple[Key, Key, str]:
    """Put a new secret in the place of a key: (the old key, the new one, its secret text).

    The new key has the old one's name, scopes, models, rate limit and expiry, and spends from the same budget. The
    old one works for another `grace_s` seconds. Raises `ValidationError` when it has ended or was rotated before.
    """
    old, now = find_key(tx, account_id=account_id, key=key), clock.now_ms()
    secret = ids.new_key()
    new = old._replace(id=ids.new("key"), prefix=secret[: ids.KEY_PREFIX_CHARS], created_ms=now)
    ends = min(now + grace_s * 1000, old.expires_ms or 2**62)
    if old.replaced_by is None:
        store.insert_key(tx, new, key_hash=ids.key_hash(secret))
    # Of two rotations at once one finds the other's mark here, and is undone.
    if old.replaced_by is not None or not store.replace(tx, old.id, by=new.id, expires_ms=ends, now_ms=now):
        named = f"was rotated already, into {old.replaced_by}" if old.replaced_by else "has ended or was just rotated"
        raise errors.ValidationError.at("key", f"{old.id} {named}: rotate another key, or make a new one")
    return old._replace(expires_ms=ends, replaced_by=new.id), new, secret


def whoami(tx: Tx, *, caller: Caller) -> tuple[Account, Key]:
    """The caller's account and key."""
    return account_of(tx, account_id=caller.account_id), find_key(tx, account_id=caller.account_id, key=caller.key_id)


def authenticate(tx: Tx, authorization: str | None) -> Caller:
    """The caller behind an `Authorization` header. Raises `Unauthorized`, saying what to mend."""
    if not authorization:
        raise errors.Unauthorized("Missing API key: send the header `Authorization: Bearer YOUR_API_KEY`.")
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise errors.Unauthorized("The Authorization header must read `Bearer YOUR_API_KEY`.")
    key = store.terms_by_hash(tx, ids.key_hash(token.strip()))
    if key is None:
        raise errors.Unauthorized("Invalid API key.")
    if key.revoked_ms is not None:
        raise errors.Unauthorized(f"This API key ({key.prefix}…) was revoked.")
    if key.expires_ms is not None and key.expires_ms <= clock.now_ms():
        ended = "was rotated: use the key that replaced it" if key.replaced_by else "has expired"
        raise errors.Unauthorized(f"This API key ({key.prefix}…) {ended}.")
    return Caller(key.account_id, key.id, models_of(key), scopes_of(key))


def models_of(key: Key | store.Terms) -> tuple[str, ...] | None:
    """The models that a key may run; None for all."""
    return tuple(msgspec.json.decode(key.models)) if key.models else None


def scopes_of(key: Key | store.Terms) -> frozenset[str]:
    """What a key may do."""
    return frozenset(msgspec.json.decode(key.scopes)) if key.scopes else _DEFAULT_SCOPES


def require(caller: Caller, scope: str) -> None:
    """Raises `Unauthorized` when the caller's key lacks the scope."""
    if scope not in caller.scopes and "admin" not in caller.scopes:
        has = ", ".join(sorted(caller.scopes))
        raise errors.Unauthorized(f"This API key lacks the scope {scope}; it has {has}.")


def as_caller(
    tx: Tx, authorization: str | None, act: Callable[..., T], /, *, needs: str | None = "jobs:read", **arguments: Any
) -> T:
    """Authenticate, check the scope (None: any key will do), then `act(tx, caller=…, **arguments)`, all in the same
    transaction.

    So a key that was revoked a moment ago can't spend, and a request costs one visit to the database.
    """
    caller = authenticate(tx, authorization)
    if needs is not None:
        require(caller, needs)
    return act(tx, caller=caller, **arguments)


def counted_as(tx: Tx, authorization: str | None) -> tuple[str, str | None] | None:
    """(id, its own rate limit or None) of what a header's key is counted as; None for a key that doesn't work.

    The id is the budget's, which a key shares with the one it replaced and those it made: they are no second limit.

    Only for counting calls: whether the key works is asked again, in the transaction that acts.
    """
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        return None
    key = store.key_by_hash(tx, ids.key_hash(token.strip()))
    if key is None or key.revoked_ms is not None:
        return None
    if key.expires_ms is not None and key.expires_ms <= clock.now_ms():
        return None
    return key.budget_id, key.rate_limit


def touch(tx: Tx) -> None:
    """The smallest write: it shows whether the database takes any."""
    store.touch(tx)
