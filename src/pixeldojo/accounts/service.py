"""The rules of accounts and keys. A key is random, shown once, and stored as a hash with a visible prefix."""

from dataclasses import dataclass

import msgspec

from pixeldojo import clock, errors, ids
from pixeldojo.accounts import store
from pixeldojo.accounts.store import Account, Key
from pixeldojo.db import Tx

DEFAULT_ACCOUNT = "default"
_NAME_CHARS = 100


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling: an account, through one of its keys. `models` limits the key to these ids."""

    account_id: str
    key_id: str
    models: tuple[str, ...] | None

    def may_run(self, api_id: str) -> bool:
        """Whether the key's allow-list, if it has one, names this model."""
        return self.models is None or api_id in self.models


def _name(text: str, *, path: str) -> str:
    if not text.strip() or len(text) > _NAME_CHARS or not text.isprintable():
        raise errors.ValidationError.at(path, f"must be 1 to {_NAME_CHARS} printable characters")
    return text.strip()


def create_account(tx: Tx, *, name: str) -> Account:
    """A new account with no credits. Raises `ValidationError` when the name is taken."""
    account = Account(ids.new("acct"), _name(name, path="name"), 0, clock.now_ms())
    if not store.insert_account(tx, account):
        raise errors.ValidationError.at("name", f"there is already an account named {name!r}")
    return account


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


def create_key(
    tx: Tx,
    *,
    account_id: str,
    name: str,
    models: list[str] | None = None,
    cap_milli: int | None = None,
    expires_ms: int | None = None,
) -> tuple[Key, str]:
    """A new key and its secret text, which is not stored and can't be shown again.

    `models` are those it may run (none of them when empty, all when None).
    `cap_milli` is the most the key may spend in all; `expires_ms` must lie in the future.
    """
    now = clock.now_ms()
    if expires_ms is not None and expires_ms <= now:
        raise errors.ValidationError.at("expires", "must lie in the future")
    if cap_milli is not None and cap_milli < 0:
        raise errors.ValidationError.at("cap", "must be zero or more")
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
    )
    store.insert_key(tx, key, key_hash=ids.key_hash(secret))
    return key, secret


def list_keys(tx: Tx, *, account_id: str) -> list[Key]:
    """Every key of the account, oldest first, revoked ones too."""
    return store.keys(tx, account_id)


def revoke_key(tx: Tx, *, account_id: str, key: str) -> Key:
    """Revoke the key with that id or prefix; it stops working with this commit. Revoking twice is no error."""
    found = store.keys_named(tx, account_id, text=key)
    if not found:
        raise errors.NotFound(f"There is no key {key!r}; `pixeldojo keys list` shows ids and prefixes.")
    if len(found) > 1:
        raise errors.ValidationError.at("key", f"{key!r} is the prefix of {len(found)} keys; give the id")
    store.revoke(tx, found[0].id, now_ms=clock.now_ms())
    return found[0]


def authenticate(tx: Tx, authorization: str | None) -> Caller:
    """The caller behind an `Authorization` header. Raises `Unauthorized`, saying what to mend."""
    if not authorization:
        raise errors.Unauthorized("Missing API key: send the header `Authorization: Bearer YOUR_API_KEY`.")
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise errors.Unauthorized("The Authorization header must read `Bearer YOUR_API_KEY`.")
    key = store.key_by_hash(tx, ids.key_hash(token.strip()))
    if key is None:
        raise errors.Unauthorized("Invalid API key.")
    if key.revoked_ms is not None:
        raise errors.Unauthorized(f"This API key ({key.prefix}…) was revoked.")
    if key.expires_ms is not None and key.expires_ms <= clock.now_ms():
        raise errors.Unauthorized(f"This API key ({key.prefix}…) has expired.")
    models = tuple(msgspec.json.decode(key.models)) if key.models else None
    return Caller(key.account_id, key.id, models)
