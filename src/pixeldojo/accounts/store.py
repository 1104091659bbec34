"""SQL of accounts and keys."""

from typing import NamedTuple

from pixeldojo.db import Row, Tx


class Account(NamedTuple):
    """A row of `accounts`. Balances are milli-credits."""

    id: str
    name: str
    balance_milli: int
    created_ms: int
    concurrency: int | None = None


class Key(NamedTuple):
    """A row of `keys` with its budget, without its hash. `models` and `scopes` are JSON lists; None: all models, the
    usual scopes.

    `cap_milli` and `spent_milli` are the budget's, which keys that replaced one another share. `rate_limit` is this
    key's own (`600/minute`, `off`), None for the service's. `replaced_by` is the key made in its place.
    """

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
    rate_limit: str | None
    scopes: str | None
    budget_id: str
    replaced_by: str | None = None


class Terms(NamedTuple):
    """What of a key decides whether it works and what it may do. Asked by every request, so no more than that."""

    id: str
    account_id: str
    prefix: str
    models: str | None
    scopes: str | None
    expires_ms: int | None
    revoked_ms: int | None
    replaced_by: str | None


_ACCOUNT = ", ".join(Account._fields)
_OF_BUDGET = ("cap_milli", "spent_milli")
_OWN = [name for name in Key._fields if name not in _OF_BUDGET]
_COLUMNS = ", ".join(f"budgets.{name}" if name in _OF_BUDGET else f"keys.{name}" for name in Key._fields)
_KEY = f"SELECT {_COLUMNS} FROM keys JOIN budgets ON budgets.id = budget_id"
_KEY_BY_HASH = f"{_KEY} WHERE hash = ?"
_TERMS_BY_HASH = f"SELECT {', '.join(Terms._fields)} FROM keys WHERE hash = ?"
_INSERT_KEY = f"INSERT INTO keys ({', '.join(_OWN)}, hash) VALUES ({', '.join('?' * len(_OWN))}, ?)"


def _account(row: Row | None) -> Account | None:
    return Account._make(row) if row else None


def insert_account(tx: Tx, account: Account) -> bool:
    """False when the name is taken."""
    sql = f"INSERT INTO accounts ({_ACCOUNT}) VALUES (?, ?, ?, ?, ?) ON CONFLICT (name) DO NOTHING"
    return tx.run(sql, *account) == 1


def account_by_id(tx: Tx, account_id: str) -> Account | None:
    return _account(tx.one(f"SELECT {_ACCOUNT} FROM accounts WHERE id = ?", account_id))


def account_by_name(tx: Tx, name: str) -> Account | None:
    return _account(tx.one(f"SELECT {_ACCOUNT} FROM accounts WHERE name = ?", name))


def accounts(tx: Tx) -> list[Account]:
    return [Account._make(row) for row in tx.all(f"SELECT {_ACCOUNT} FROM accounts ORDER BY id")]


def account_page(tx: Tx, *, limit: int, before: str | None) -> list[Account]:
    """The newest first; with `before`, those older than that account."""
    where, params = ("WHERE id < ? ", [before]) if before is not None else ("", [])
    rows = tx.all(f"SELECT {_ACCOUNT} FROM accounts {where}ORDER BY id DESC LIMIT ?", *params, limit)
    return [Account._make(row) for row in rows]


def rename(tx: Tx, account_id: str, *, name: str) -> bool:
    """False when another account has the name."""
    sql = "UPDATE accounts SET name = ? WHERE id = ? AND NOT EXISTS (SELECT 1 FROM accounts WHERE name = ? AND id <> ?)"
    return tx.run(sql, name, account_id, name, account_id) == 1


def set_concurrency(tx: Tx, account_id: str, *, concurrency: int | None) -> None:
    tx.run("UPDATE accounts SET concurrency = ? WHERE id = ?", concurrency, account_id)


def insert_budget(tx: Tx, budget_id: str, *, cap_milli: int | None) -> None:
    tx.run("INSERT INTO budgets (id, cap_milli) VALUES (?, ?)", budget_id, cap_milli)


def insert_key(tx: Tx, key: Key, *, key_hash: str) -> None:
    """A key of a budget that is there."""
    tx.run(_INSERT_KEY, *(getattr(key, name) for name in _OWN), key_hash)


def key_by_hash(tx: Tx, key_hash: str) -> Key | None:
    row = tx.one(_KEY_BY_HASH, key_hash)
    return Key._make(row) if row else None


def terms_by_hash(tx: Tx, key_hash: str) -> Terms | None:
    row = tx.one(_TERMS_BY_HASH, key_hash)
    return Terms._make(row) if row else None


def keys(tx: Tx, account_id: str) -> list[Key]:
    return [Key._make(row) for row in tx.all(f"{_KEY} WHERE account_id = ? ORDER BY keys.id", account_id)]


def key_page(tx: Tx, account_id: str, *, limit: int, before: str | None) -> list[Key]:
    """The newest first; with `before`, those older than that key."""
    older, params = (" AND keys.id < ?", [before]) if before is not None else ("", [])
    rows = tx.all(f"{_KEY} WHERE account_id = ?{older} ORDER BY keys.id DESC LIMIT ?", account_id, *params, limit)
    return [Key._make(row) for row in rows]


def key_by_id(tx: Tx, key_id: str) -> Key | None:
    row = tx.one(f"{_KEY} WHERE keys.id = ?", key_id)
    return Key._make(row) if row else None


def count_live_keys(tx: Tx, account_id: str, *, now_ms: int) -> int:
    """Those that are neither revoked nor expired."""
    row = tx.one(
        "SELECT COUNT(*) FROM keys WHERE account_id = ? AND revoked_ms IS NULL"
        " AND (expires_ms IS NULL OR expires_ms > ?)",
        account_id,
        now_ms,
    )
    return int(row[0]) if row else 0


def keys_named(tx: Tx, account_id: str, *, text: str) -> list[Key]:
    """Keys of the account whose id or visible prefix is `text`."""
    sql = f"{_KEY} WHERE account_id = ? AND (keys.id = ? OR prefix = ?) ORDER BY keys.id"
    return [Key._make(row) for row in tx.all(sql, account_id, text, text)]


def replace(tx: Tx, key_id: str, *, by: str, expires_ms: int, now_ms: int) -> bool:
    """Let a key that works end at `expires_ms` and name the one in its place. False when it has one, or has ended."""
    sql = (
        "UPDATE keys SET replaced_by = ?, expires_ms = ? WHERE id = ? AND replaced_by IS NULL AND revoked_ms IS NULL"
        " AND (expires_ms IS NULL OR expires_ms > ?)"
    )
    return tx.run(sql, by, expires_ms, key_id, now_ms) == 1


def revoke(tx: Tx, key_id: str, *, now_ms: int) -> None:
    tx.run("UPDATE keys SET revoked_ms = ? WHERE id = ? AND revoked_ms IS NULL", now_ms, key_id)


def touch(tx: Tx) -> None:
    sql = "INSERT INTO secrets (name, value) VALUES ('touched', ?)"
    tx.run(sql + " ON CONFLICT (name) DO UPDATE SET value = excluded.value", "x" * 2000)
