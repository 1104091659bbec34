"""SQL of the ledger: entries, and the two running sums (an account's balance, a key's spending)."""

from typing import NamedTuple

from pixeldojo.db import Tx


class Entry(NamedTuple):
    """A row of `entries`. `balance_milli` is the account's balance after it."""

    id: str
    account_id: str
    kind: str
    amount_milli: int
    balance_milli: int
    job_id: str | None
    key_id: str | None
    note: str
    created_ms: int


_ENTRY = "id, account_id, kind, amount_milli, balance_milli, job_id, key_id, note, created_ms"
_INSERT = f"INSERT INTO entries ({_ENTRY}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"


def add_to_balance(tx: Tx, account_id: str, *, amount_milli: int) -> int | None:
    """The new balance; None when it would be negative (or there is no such account)."""
    row = tx.one(
        "UPDATE accounts SET balance_milli = balance_milli + ? WHERE id = ? AND balance_milli + ? >= 0"
        " RETURNING balance_milli",
        amount_milli,
        account_id,
        amount_milli,
    )
    return row[0] if row else None


def add_to_spending(tx: Tx, key_id: str, *, amount_milli: int) -> bool:
    """False when the key's cap would be passed."""
    return (
        tx.run(
            "UPDATE keys SET spent_milli = spent_milli + ? WHERE id = ?"
            " AND (cap_milli IS NULL OR spent_milli + ? <= cap_milli)",
            amount_milli,
            key_id,
            amount_milli,
        )
        == 1
    )


def insert(tx: Tx, entry: Entry) -> None:
    tx.run(_INSERT, *entry)


def entries(tx: Tx, account_id: str, *, limit: int) -> list[Entry]:
    sql = f"SELECT {_ENTRY} FROM entries WHERE account_id = ? ORDER BY id DESC LIMIT ?"
    return [Entry._make(row) for row in tx.all(sql, account_id, limit)]


def balance(tx: Tx, account_id: str) -> int | None:
    row = tx.one("SELECT balance_milli FROM accounts WHERE id = ?", account_id)
    return row[0] if row else None


def spending(tx: Tx, key_id: str) -> tuple[int | None, int]:
    """(cap, spent) of a key, in milli-credits."""
    row = tx.one("SELECT cap_milli, spent_milli FROM keys WHERE id = ?", key_id)
    return (row[0], row[1]) if row else (0, 0)


def disagreements(tx: Tx) -> list[tuple[str, int, int]]:
    """(account, its balance, the sum of its entries) wherever the two differ."""
    rows = tx.all(
        "SELECT a.id, a.balance_milli, COALESCE(SUM(e.amount_milli), 0) FROM accounts a"
        " LEFT JOIN entries e ON e.account_id = a.id GROUP BY a.id, a.balance_milli"
        " HAVING a.balance_milli <> COALESCE(SUM(e.amount_milli), 0)"
    )
    return [(row[0], int(row[1]), int(row[2])) for row in rows]
