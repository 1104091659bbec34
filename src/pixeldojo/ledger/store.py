"""SQL of the ledger: entries, and the two running sums (an account's balance, a budget's spending)."""

from collections.abc import Sequence
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
    model: str | None
    note: str
    created_ms: int
    request_key: str | None = None


class Usage(NamedTuple):
    """What jobs cost, by what was asked for: `day` counts from 1970-01-01 UTC. Amounts are positive."""

    day: int | None
    model: str | None
    key_id: str | None
    jobs: int
    charged_milli: int
    refunded_milli: int


GROUPS = {"day": "created_ms / 86400000", "model": "model", "key": "key_id"}
_ENTRY = ", ".join(Entry._fields)
_INSERT = f"INSERT INTO entries ({_ENTRY}) VALUES ({', '.join('?' * len(Entry._fields))})"


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
            "UPDATE budgets SET spent_milli = spent_milli + ? WHERE id = (SELECT budget_id FROM keys WHERE id = ?)"
            " AND (cap_milli IS NULL OR spent_milli + ? <= cap_milli)",
            amount_milli,
            key_id,
            amount_milli,
        )
        == 1
    )


def insert(tx: Tx, entry: Entry) -> None:
    tx.run(_INSERT, *entry)


def entries(tx: Tx, account_id: str, *, limit: int, before: str | None = None, kind: str | None = None) -> list[Entry]:
    """The newest first; with `before`, those older than that entry."""
    where, params = ["account_id = ?"], [account_id]
    if kind is not None:
        # the planner takes the index of the rare kinds only where it sees that they are meant
        where.append("kind = ?" if kind == "charge" else "kind = ? AND kind <> 'charge'")
        params.append(kind)
    if before is not None:
        where.append("id < ?")
        params.append(before)
    sql = f"SELECT {_ENTRY} FROM entries WHERE {' AND '.join(where)} ORDER BY id DESC LIMIT ?"
    return [Entry._make(row) for row in tx.all(sql, *params, limit)]


def granted_before(tx: Tx, account_id: str, *, request_key: str) -> Entry | None:
    """The grant that was made under this key."""
    row = tx.one(f"SELECT {_ENTRY} FROM entries WHERE account_id = ? AND request_key = ?", account_id, request_key)
    return Entry._make(row) if row else None


def usage(tx: Tx, account_id: str, *, since: str, until: str, group_by: Sequence[str], limit: int) -> list[Usage]:
    """Sums over charges and refunds with `since` <= id < `until`, in no order."""
    groups = [GROUPS[name] for name in group_by]
    picked = ", ".join(GROUPS[name] if name in group_by else "NULL" for name in GROUPS)
    by = f" GROUP BY {', '.join(groups)}" if groups else ""
    rows = tx.all(
        f"SELECT {picked}, COUNT(CASE WHEN kind = 'charge' THEN 1 END),"
        " COALESCE(SUM(CASE WHEN kind = 'charge' THEN -amount_milli ELSE 0 END), 0),"
        " COALESCE(SUM(CASE WHEN kind = 'refund' THEN amount_milli ELSE 0 END), 0)"
        f" FROM entries WHERE account_id = ? AND id >= ? AND id < ? AND kind <> 'grant'{by} LIMIT ?",
        account_id,
        since,
        until,
        limit,
    )
    return [Usage._make(row) for row in rows]


def balance(tx: Tx, account_id: str) -> int | None:
    row = tx.one("SELECT balance_milli FROM accounts WHERE id = ?", account_id)
    return row[0] if row else None


def spending(tx: Tx, key_id: str) -> tuple[int | None, int]:
    """(cap, spent) of the budget that a key spends from, in milli-credits."""
    row = tx.one(
        "SELECT cap_milli, spent_milli FROM budgets WHERE id = (SELECT budget_id FROM keys WHERE id = ?)", key_id
    )
    return (row[0], row[1]) if row else (0, 0)


def sums(tx: Tx) -> dict[str, int]:
    """The sum of all entries of each kind, in milli-credits."""
    return {row[0]: int(row[1]) for row in tx.all("SELECT kind, SUM(amount_milli) FROM entries GROUP BY kind")}


def balances(tx: Tx) -> tuple[int, int]:
    """(how many accounts there are, the sum of their balances)."""
    row = tx.one("SELECT COUNT(*), COALESCE(SUM(balance_milli), 0) FROM accounts")
    return (int(row[0]), int(row[1])) if row else (0, 0)


def disagreements(tx: Tx) -> list[tuple[str, int, int]]:
    """(account, its balance, the sum of its entries) wherever the two differ."""
    rows = tx.all(
        "SELECT a.id, a.balance_milli, COALESCE(SUM(e.amount_milli), 0) FROM accounts a"
        " LEFT JOIN entries e ON e.account_id = a.id GROUP BY a.id, a.balance_milli"
        " HAVING a.balance_milli <> COALESCE(SUM(e.amount_milli), 0)"
    )
    return [(row[0], int(row[1]), int(row[2])) for row in rows]
