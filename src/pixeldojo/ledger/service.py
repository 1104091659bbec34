"""The rules of money: a grant adds, a charge takes or is refused, a refund gives a charge back whole and once.

Each function changes the balance and writes the entry in the caller's transaction, so both happen or neither.
`UNIQUE (job_id, kind)` makes a second charge or refund of one job impossible whatever the caller does.
"""

from pixeldojo import clock, errors, ids, money
from pixeldojo.db import Tx
from pixeldojo.ledger import store
from pixeldojo.ledger.store import Entry


def grant(tx: Tx, *, account_id: str, amount_milli: int, note: str = "") -> Entry:
    """Add credits; a negative amount takes some back, at most to zero. The entry that was written."""
    if amount_milli == 0 or abs(amount_milli) > money.MOST_MILLI:
        raise errors.ValidationError.at("amount", "must be a number of credits other than zero")
    balance = store.add_to_balance(tx, account_id, amount_milli=amount_milli)
    if balance is None:
        held = money.to_credits(store.balance(tx, account_id) or 0)
        raise errors.ValidationError.at("amount", f"the account holds only {held} credits")
    entry = _entry(account_id, "grant", amount_milli, balance, job_id=None, key_id=None, note=note)
    store.insert(tx, entry)
    return entry


def charge(tx: Tx, *, account_id: str, key_id: str, job_id: str, cost_milli: int) -> int:
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
    store.insert(tx, _entry(account_id, "charge", -cost_milli, balance, job_id=job_id, key_id=key_id))
    return balance


def refund(tx: Tx, *, account_id: str, key_id: str, job_id: str, cost_milli: int) -> int:
    """Give the cost of a failed job back to the account and to the key's budget; the new balance."""
    balance = store.add_to_balance(tx, account_id, amount_milli=cost_milli)
    if balance is None:
        raise errors.CreditError("The credits could not be refunded.")
    store.add_to_spending(tx, key_id, amount_milli=-cost_milli)
    store.insert(tx, _entry(account_id, "refund", cost_milli, balance, job_id=job_id, key_id=key_id))
    return balance


def _entry(
    account_id: str,
    kind: str,
    amount: int,
    balance: int,
    *,
    job_id: str | None,
    key_id: str | None,
    note: str = "",
) -> Entry:
    return Entry(ids.new("ent"), account_id, kind, amount, balance, job_id, key_id, note, clock.now_ms())


def balance(tx: Tx, *, account_id: str) -> int:
    """The account's balance in milli-credits."""
    return store.balance(tx, account_id) or 0


def list_entries(tx: Tx, *, account_id: str, limit: int = 50) -> list[Entry]:
    """The newest entries first."""
    return store.entries(tx, account_id, limit=limit)


def audit(tx: Tx) -> list[tuple[str, int, int]]:
    """Accounts whose balance differs from the sum of their entries: (id, balance, sum). Must be empty."""
    return store.disagreements(tx)
