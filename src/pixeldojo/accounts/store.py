"""SQL of accounts and keys."""

from typing import Any, NamedTuple

from pixeldojo.db import Row, Tx


class Account(NamedTuple):
    """A row of `accounts`. Balances are milli-credits."""

    id: str
    name: str
    balance_milli: int
    created_ms: int


class Key(NamedTuple):
    """A row of `keys`, without its hash. `models` is a JSON list of model ids, or None for all."""

    id: str
    account_id: str
    name: str
    prefix: str
    models: str | None
    cap_milli: int | None
    spent_milli: int
    created_ms: int
    expires_ms: int | None
    revoked_ms: int | None


_ACCOUNT = "id, name, balance_milli, created_ms"
_KEY = "id, account_id, name, prefix, models, cap_milli, spent_milli, created_ms, expires_ms, revoked_ms"
_KEY_BY_HASH = f"SELECT {_KEY} FROM keys WHERE hash = ?"


def _account(row: Row | None) -> Account | None:
    return Account._make(row) if row else None


def insert_account(tx: Tx, account: Account) -> bool:
    """False when the name is taken."""
    sql = f"INSERT INTO accounts ({_ACCOUNT}) VALUES (?, ?, ?, ?) ON CONFLICT (name) DO NOTHING"
    return tx.run(sql, *account) == 1


def account_by_id(tx: Tx, account_id: str) -> Account | None:
    return _account(tx.one(f"SELECT {_ACCOUNT} FROM accounts WHERE id = ?", account_id))


def account_by_name(tx: Tx, name: str) -> Account | None:
    return _account(tx.one(f"SELECT {_ACCOUNT} FROM accounts WHERE name = ?", name))


def accounts(tx: Tx) -> list[Account]:
    return [Account._make(row) for row in tx.all(f"SELECT {_ACCOUNT} FROM accounts ORDER BY id")]


def insert_key(tx: Tx, key: Key, *, key_hash: str) -> None:
    tx.run(f"INSERT INTO keys ({_KEY}, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", *key, key_hash)


def key_by_hash(tx: Tx, key_hash: str) -> Key | None:
    row = tx.one(_KEY_BY_HASH, key_hash)
    return Key._make(row) if row else None


def keys(tx: Tx, account_id: str) -> list[Key]:
    return [Key._make(row) for row in tx.all(f"SELECT {_KEY} FROM keys WHERE account_id = ? ORDER BY id", account_id)]


def keys_named(tx: Tx, account_id: str, *, text: str) -> list[Key]:
    """Keys of the account whose id or visible prefix is `text`."""
    sql = f"SELECT {_KEY} FROM keys WHERE account_id = ? AND (id = ? OR prefix = ?) ORDER BY id"
    return [Key._make(row) for row in tx.all(sql, account_id, text, text)]


def revoke(tx: Tx, key_id: str, *, now_ms: int) -> Any:
    return tx.run("UPDATE keys SET revoked_ms = ? WHERE id = ? AND revoked_ms IS NULL", now_ms, key_id)
