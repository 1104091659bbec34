"""The rules of money: a grant adds, a charge takes or is refused, a refund gives a charge back whole and once.

Each function changes the balance and writes the entry in the caller's transaction, so both happen or neither.
`UNIQUE (job_id, kind)` makes a second charge or refund of one job impossible whatever the caller does.
"""

from collections.abc import Collection
from dataclasses import dataclass

from pixeldojo import errors, ids, money
from pixeldojo.db import Tx
from pixeldojo.ledger import store
from pixeldojo.ledger.store import Entry as Entry
from pixeldojo.ledger.store import Usage as Usage

KINDS = ("grant", "charge", "refund")
GROUPS = tuple(store.GROUPS)
MOST_ROWS = 5_000
MOST_DAYS = 366


def grant(tx: Tx, *, account_id: str, amount_milli: int, note: str = "", request_key: str | None = None) -> Entry:
    """Add credits; a negative amount takes some back, at most to zero. The entry that was written."""
    if amount_milli == 0 or abs(amount_milli) > money.MOST_MILLI:
        raise errors.ValidationError.at("credits", "must be a number of credits other than zero")
    balance = store.add_to_balance(tx, account_id, amount_milli=amount_milli)
    if balance is None:
        held = money.to_credits(store.balance(tx, account_id) or 0)
        raise errors.ValidationError.at("credits", f"the account holds only {held} credits")
    entry = _entry(account_id, "grant", amount_milli, balance, note=note, request_key=request_key)
    store.insert(tx, entry)
    return entry


def grant_once(
    tx: Tx, *, account_id: str, amount_milli: int, note: str = "", request_key: str | None
) -> tuple[Entry, bool]:
    """`grant`, and False; or, when the account was granted under this `request_key` before, that entry and True.

    A key is remembered for as long as the ledger lasts. With another amount or note, `ValidationError`.
    """
    if request_key is not None:
        # Takes the account's row first: of two such grants at once, PostgreSQL lets the second wait and then see.
        store.add_to_balance(tx, account_id, amount_milli=0)
        earlier = store.granted_before(tx, account_id, request_key=request_key)
        if earlier is not None and (earlier.amount_milli, earlier.note) != (amount_milli, note):
            raise errors.ValidationError.at(
                "Idempotency-Key", "was used before for another grant to this account; use a new key for a new grant"
            )
        if earlier is not None:
            return earlier, True
    return grant(tx, account_id=account_id, amount_milli=amount_milli, note=note, request_key=request_key), False


def charge(tx: Tx, *, account_id: str, key_id: str, job_id: str, model: str, cost_milli: int) -> int:
    """Take the cost of a job; the balance that is left. Raises `InsufficientCredits`."""
    balance = store.add_to_balance(tx, account_id, amount_milli=-cost_milli)
    if balance is None:
        held = money.to_credits(store.balance(tx, account_id) or 0)
        raise errors.InsufficientCredits(
            f"Your account has insufficient credits: this job costs {money.to_credits(cost_milli)} and you have {held}."
        )
    if not store.add_to_spending(tx, key_id, amount_milli=cost_milli):
        cap, spent = store.spending(tx, key_id)
        raise errors.InsufficientCredits(
            f"This API key may spend {money.to_credits(cap or 0)} credits and has spent {money.to_credits(spent)}:"
            f" not enough is left for {money.to_credits(cost_milli)}."
        )
    store.insert(tx, _entry(account_id, "charge", -cost_milli, balance, job_id=job_id, key_id=key_id, model=model))
    return balance


def refund(tx: Tx, *, account_id: str, key_id: str, job_id: str, model: str, cost_milli: int) -> int:
    """Give the cost of a failed job back to the account and to the key's budget; the new balance."""
    balance = store.add_to_balance(tx, account_id, amount_milli=cost_milli)
    if balance is None:
        raise errors.CreditError("The credits could not be refunded.")
    store.add_to_spending(tx, key_id, amount_milli=-cost_milli)
    store.insert(tx, _entry(account_id, "refund", cost_milli, balance, job_id=job_id, key_id=key_id, model=model))
    return balance


def _entry(
    account_id: str,
    kind: str,
    amount: int,
    balance: int,
    *,
    job_id: str | None = None,
    key_id: str | None = None,
    model: str | None = None,
    note: str = "",
    request_key: str | None = None,
) -> Entry:
    made = ids.new("ent")
    # the id's own time, so that a range of time is a range of ids
    now = ids.made_ms(made)
    return Entry(made, account_id, kind, amount, balance, job_id, key_id, model, note, now, request_key)


def balance(tx: Tx, *, account_id: str) -> int:
    """The account's balance in milli-credits."""
    return store.balance(tx, account_id) or 0


def list_entries(
    tx: Tx, *, account_id: str, limit: int = 50, before: str | None = None, kind: str | None = None
) -> list[Entry]:
    """The newest entries first: those of one kind if that is given, and older than the entry `before`."""
    return store.entries(tx, account_id, limit=limit, before=before, kind=kind)


def usage(tx: Tx, *, account_id: str, from_ms: int, to_ms: int, group_by: Collection[str]) -> list[Usage]:
    """What jobs cost from `from_ms` to before `to_ms`, by any of `GROUPS`; one row of sums when by none of them.

    A charge counts when it was made, and so does a refund. Raises `ValidationError` for more than `MOST_ROWS` rows.
    """
    since, until = ids.first("ent", at_ms=from_ms), ids.first("ent", at_ms=to_ms)
    names = [name for name in GROUPS if name in group_by]
    rows = store.usage(tx, account_id, since=since, until=until, group_by=names, limit=MOST_ROWS + 1)
    if len(rows) > MOST_ROWS:
        raise errors.ValidationError.at("groupBy", f"gives more than {MOST_ROWS} rows; take fewer groups or days")
    return sorted(rows, key=lambda row: (row.day or 0, row.model or "", row.key_id or ""))


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over all accounts, in milli-credits; charges are positive here. `disagreements` must be 0."""

    granted_milli: int
    charged_milli: int
    refunded_milli: int
    balances_milli: int
    accounts: int
    disagreements: int


def totals(tx: Tx) -> Totals:
    """The whole ledger in a few figures. Reads every entry: for `db.scan`, and not too often."""
    sums, (accounts, balances) = store.sums(tx), store.balances(tx)
    return Totals(
        granted_milli=sums.get("grant", 0),
        charged_milli=-sums.get("charge", 0),
        refunded_milli=sums.get("refund", 0),
        balances_milli=balances,
        accounts=accounts,
        disagreements=len(store.disagreements(tx)),
    )


def audit(tx: Tx) -> list[tuple[str, int, int]]:
    """Accounts whose balance differs from the sum of their entries: (id, balance, sum). Must be empty."""
    return store.disagreements(tx)
