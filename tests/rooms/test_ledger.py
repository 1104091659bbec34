"""Money: every change has its entry, no entry ever changes, and no balance goes below zero."""

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from pixeldojo import errors, money
from pixeldojo.accounts import service as accounts
from pixeldojo.catalogue import card as cards
from pixeldojo.catalogue.service import Catalogue
from pixeldojo.db import Database, Tx
from pixeldojo.jobs import service as jobs
from pixeldojo.ledger import service as ledger

T = TypeVar("T")
Run = Callable[[Awaitable[T]], T]


class Book:
    """An account with one key, and jobs of any price."""

    def __init__(self, db: Database, run: Run[Any], *, cap_milli: int | None = None) -> None:
        self._db, self._run = db, run
        self.account_id = self.do(accounts.create_account, name="Ana").id
        self.key, text = self.do(accounts.create_key, account_id=self.account_id, name="x", cap_milli=cap_milli)
        self.caller = self.do(accounts.authenticate, authorization=f"Bearer {text}")
        card = next(card for card in cards.read_all(None) if card.api_id == "testcard")
        self._order = Catalogue([card]).order("testcard", {"prompt": "x"})

    def do(self, fn: Callable[..., T], /, **more: Any) -> T:
        found: T = self._run(self._db.write(fn, **more))
        return found

    def grant(self, amount_milli: int) -> ledger.Entry:
        return self.do(ledger.grant, account_id=self.account_id, amount_milli=amount_milli)

    def submit(self, cost_milli: int) -> str:
        order = dataclasses.replace(self._order, cost_milli=cost_milli)
        return self.do(jobs.submit, caller=self.caller, order=order, retention_s=60).job.id

    def again(self, fn: Callable[..., int], job_id: str, cost_milli: int) -> int:
        """`ledger.charge` or `ledger.refund`, past the rooms that would ask only once."""
        named = {"account_id": self.account_id, "key_id": self.key.id, "job_id": job_id, "model": "testcard"}
        return self.do(fn, **named, cost_milli=cost_milli)

    def entries(self) -> list[tuple[str, int, int]]:
        found = self.do(ledger.list_entries, account_id=self.account_id)
        return [(entry.kind, entry.amount_milli, entry.balance_milli) for entry in reversed(found)]

    def balance(self) -> int:
        return self.do(ledger.balance, account_id=self.account_id)

    def spent(self) -> int:
        return self.do(accounts.list_keys, account_id=self.account_id)[0].spent_milli


@pytest.fixture
def book(db: Database, run: Run[Any]) -> Book:
    return Book(db, run)


def test_grants(book: Book) -> None:
    book.grant(5000)
    assert book.grant(-2000).balance_milli == 3000
    for amount in (-3001, 0, money.MOST_MILLI + 1, -money.MOST_MILLI - 1):
        with pytest.raises(errors.ValidationError) as caught:
            book.grant(amount)
        assert [detail.path for detail in caught.value.details] == ["credits"]
    assert book.entries() == [("grant", 5000, 5000), ("grant", -2000, 3000)]
    assert len(book.do(ledger.list_entries, account_id=book.account_id, limit=1)) == 1
    assert book.do(ledger.audit) == []


def test_grants_up_to_what_the_column_holds(book: Book) -> None:
    for _ in range(3):
        book.grant(money.MOST_MILLI)
    assert book.balance() == 3 * money.MOST_MILLI
    assert money.to_credits(book.balance()) == 3 * 10**12


def test_nobody_spends_the_last_credit_twice(book: Book) -> None:
    book.grant(3000)
    book.submit(2999)
    with pytest.raises(errors.InsufficientCredits) as caught:
        book.submit(2)
    assert "costs 0.002" in caught.value.message
    assert "have 0.001" in caught.value.message
    book.submit(1)
    book.submit(0)  # what is free can be had with nothing
    assert (book.balance(), book.spent()) == (0, 3000)
    assert [kind for kind, _, _ in book.entries()] == ["grant", "charge", "charge", "charge"]
    assert book.do(ledger.audit) == []


def test_a_job_is_charged_once_and_refunded_once(book: Book) -> None:
    book.grant(5000)
    job_id, _ = book.submit(1000), book.submit(1000)
    with pytest.raises(Exception, match=r"(?i)unique"):
        book.again(ledger.charge, job_id, 1000)
    assert book.again(ledger.refund, job_id, 1000) == 4000
    with pytest.raises(Exception, match=r"(?i)unique"):
        book.again(ledger.refund, job_id, 1000)
    moves = [("grant", 5000, 5000), ("charge", -1000, 4000), ("charge", -1000, 3000), ("refund", 1000, 4000)]
    assert book.entries() == moves
    assert (book.balance(), book.spent()) == (4000, 1000)
    assert book.do(ledger.audit) == []


def test_a_refund_that_cannot_be_made(book: Book) -> None:
    with pytest.raises(errors.CreditError) as caught:
        book.do(ledger.refund, account_id="acct_x", key_id="key_x", job_id="job_x", model="testcard", cost_milli=1)
    assert (caught.value.code, caught.value.status) == ("credit_error", 500)
    with pytest.raises(errors.ValidationError):
        book.do(ledger.grant, account_id="acct_x", amount_milli=1)


def test_a_cap(db: Database, run: Run[Any]) -> None:
    book = Book(db, run, cap_milli=1500)
    book.grant(10_000)
    job_id = book.submit(1500)
    with pytest.raises(errors.InsufficientCredits, match=r"may spend 1\.5 credits and has spent 1\.5"):
        book.submit(1)
    assert (book.balance(), book.spent()) == (8500, 1500)
    book.again(ledger.refund, job_id, 1500)
    book.submit(1499)
    book.submit(1)
    assert (book.balance(), book.spent()) == (8500, 1500)


FORBIDDEN = (
    "UPDATE entries SET amount_milli = 1",
    "UPDATE entries SET note = 'x' WHERE kind = 'grant'",
    "DELETE FROM entries",
    "DELETE FROM entries WHERE kind = 'charge'",
    "UPDATE accounts SET balance_milli = -1",
    "UPDATE budgets SET spent_milli = -1",
    "INSERT INTO entries (id, account_id, kind, amount_milli, balance_milli, created_ms)"
    " SELECT 'ent_x', id, 'gift', 1, 1, 1 FROM accounts",
    "INSERT INTO entries (id, account_id, kind, amount_milli, balance_milli, created_ms)"
    " SELECT 'ent_x', id, 'charge', -1, 1, 1 FROM accounts",
    "INSERT INTO entries (id, account_id, kind, amount_milli, balance_milli, job_id, created_ms)"
    " SELECT 'ent_x', account_id, 'refund', -1, 1, id, 1 FROM jobs",
    "INSERT INTO entries (id, account_id, kind, amount_milli, balance_milli, created_ms)"
    " VALUES ('ent_x', 'acct_x', 'grant', 1, 1, 1)",
)


def test_the_database_itself_forbids_it(book: Book) -> None:
    book.grant(5000)
    book.submit(1000)
    before = book.entries()
    for sql in FORBIDDEN:
        with pytest.raises(Exception, match=r"(?i)append-only|constraint"):
            book.do(lambda tx, sql: tx.run(sql), sql=sql)
    assert book.entries() == before
    assert book.do(ledger.audit) == []


def test_the_audit_finds_a_balance_that_is_wrong(book: Book) -> None:
    def steal(tx: Tx) -> int:
        return tx.run("UPDATE accounts SET balance_milli = balance_milli + 7")

    book.grant(5000)
    book.do(steal)
    assert book.do(ledger.audit) == [(book.account_id, 5007, 5000)]
