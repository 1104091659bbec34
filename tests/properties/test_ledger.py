"""The ledger against its own sum and against a few integers in Python, whatever is asked of it in whatever order."""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pixeldojo import clock, errors, ids, money
from pixeldojo.accounts import service as accounts
from pixeldojo.db import Database, Tx
from pixeldojo.jobs import store as jobs_store
from pixeldojo.jobs.store import Job
from pixeldojo.ledger import service as ledger
from pixeldojo.ledger import store as ledger_store
from pixeldojo.ledger.store import Entry

Run = Callable[[Any], Any]

_ACCOUNTS = 2
_CAPS: tuple[int | None, ...] = (None, 2_500)  # of each account's keys


@dataclass
class _Books:
    """What the ledger should say, kept the simple way."""

    accounts: list[str]
    keys: list[tuple[str, str, int | None]]  # (key, account, cap)
    budget: dict[str, str] = field(default_factory=dict)  # key → the key whose budget it spends from
    rotated: set[str] = field(default_factory=set)
    balance: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    spent: dict[str, int] = field(default_factory=lambda: defaultdict(int))  # by that key
    once: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)  # (account, request) → (amount, entry)
    charged: dict[str, tuple[str, str, int]] = field(default_factory=dict)  # job → (account, key, cost)
    refunded: set[str] = field(default_factory=set)
    entries: int = 0


def _open(tx: Tx) -> _Books:
    books = _Books([], [])
    for _ in range(_ACCOUNTS):
        account = accounts.create_account(tx, name=secrets.token_hex(8))
        books.accounts.append(account.id)
        for cap in _CAPS:
            key, _ = accounts.create_key(tx, account_id=account.id, name="test", cap_milli=cap)
            books.keys.append((key.id, account.id, cap))
            books.budget[key.id] = key.id
    return books


def _job_row(tx: Tx, *, account_id: str, key_id: str, cost_milli: int) -> str:
    now = clock.now_ms()
    job = Job(
        id=ids.new("job"), account_id=account_id, key_id=key_id, model="none", modality="image", status="pending",
        input="{}", webhook_url=None, cost_milli=cost_milli, refunded_milli=0, progress_ppm=0, attempt=0,
        error_code=None, error_message=None, assets=None, engine_ms=None, created_ms=now, started_ms=None,
        completed_ms=None, expires_ms=now + 1000,
    )  # fmt: skip
    jobs_store.insert(tx, job)
    return job.id


def _charge(tx: Tx, *, account_id: str, key_id: str, cost_milli: int) -> tuple[str, int]:
    """A job and its charge, both or neither: the job's id, and the balance that is left."""
    job_id = _job_row(tx, account_id=account_id, key_id=key_id, cost_milli=cost_milli)
    of = {"account_id": account_id, "key_id": key_id, "job_id": job_id, "model": "none"}
    return job_id, ledger.charge(tx, **of, cost_milli=cost_milli)


def _tamper(tx: Tx, sql: str, account_id: str) -> int:
    return tx.run(sql, account_id)


def _whole(tx: Tx, account_id: str) -> tuple[int, list[Entry], dict[str, int]]:
    """(balance, entries in the order they were made, spent by key)."""
    entries = ledger_store.entries(tx, account_id, limit=10_000)[::-1]
    spent = {key.id: key.spent_milli for key in accounts.list_keys(tx, account_id=account_id)}
    return ledger.balance(tx, account_id=account_id), entries, spent


class _Trial:
    """One example: random moves on fresh accounts, made on the books as well."""

    def __init__(self, db: Database, run: Run) -> None:
        self.db, self.run = db, run
        self.books: _Books = run(db.write(_open))

    def grant(self, which: int, amount: int) -> None:
        account, books = self.books.accounts[which % _ACCOUNTS], self.books
        call = self.db.write(ledger.grant, account_id=account, amount_milli=amount)
        if amount == 0 or books.balance[account] + amount < 0:
            with pytest.raises(errors.ValidationError):
                self.run(call)
            return
        entry = self.run(call)
        books.balance[account] += amount
        books.entries += 1
        assert (entry.amount_milli, entry.balance_milli) == (amount, books.balance[account])

    def grant_once(self, which: int, amount: int) -> None:
        """Under one of two request keys: an earlier grant is given again, or refused for another amount."""
        account, books, request = self.books.accounts[which % _ACCOUNTS], self.books, "ab"[which // 7 % 2]
        call = self.db.write(ledger.grant_once, account_id=account, amount_milli=amount, request_key=request)
        earlier = books.once.get((account, request))
        if earlier is not None and earlier[0] == amount:
            entry, replayed = self.run(call)
            assert (entry.id, replayed) == (earlier[1], True)
            return
        if earlier is not None or amount == 0 or books.balance[account] + amount < 0:
            with pytest.raises(errors.ValidationError):
                self.run(call)
            return
        entry, replayed = self.run(call)
        assert not replayed
        books.once[account, request] = (amount, entry.id)
        books.balance[account] += amount
        books.entries += 1

    def rotate(self, which: int, _: int) -> None:
        """The successor spends from the same budget, and so does the old key for as long as it works."""
        books = self.books
        key, account, cap = books.keys[which % len(books.keys)]
        call = self.db.write(accounts.rotate_key, account_id=account, key=key)
        if key in books.rotated:
            with pytest.raises(errors.ValidationError):
                self.run(call)
            return
        _, new, _ = self.run(call)
        books.rotated.add(key)
        self._another(new, account, cap, of=key)

    def share(self, which: int, _: int) -> None:
        """A key made from a key with a cap spends from its budget too."""
        books = self.books
        key, account, cap = books.keys[which % len(books.keys)]
        found = self.run(self.db.read(accounts.find_key, account_id=account, key=key))
        new, _ = self.run(
            self.db.write(accounts.create_key, account_id=account, name="shared", budget_id=found.budget_id)
        )
        self._another(new, account, cap, of=key)

    def _another(self, new: accounts.Key, account: str, cap: int | None, *, of: str) -> None:
        self.books.keys.append((new.id, account, cap))
        self.books.budget[new.id] = self.books.budget[of]
        assert new.cap_milli == cap

    def charge(self, which: int, amount: int) -> None:
        books, cost = self.books, abs(amount)
        key, account, cap = books.keys[which % len(books.keys)]
        budget = books.budget[key]
        call = self.db.write(_charge, account_id=account, key_id=key, cost_milli=cost)
        if cost > books.balance[account] or (cap is not None and books.spent[budget] + cost > cap):
            with pytest.raises(errors.InsufficientCredits):
                self.run(call)
            return
        job_id, left = self.run(call)
        books.charged[job_id] = (account, key, cost)
        books.balance[account] -= cost
        books.spent[budget] += cost
        books.entries += 1
        assert left == books.balance[account]

    def refund(self, which: int, _: int) -> None:
        books = self.books
        if not books.charged:
            return
        job_id = sorted(books.charged)[which % len(books.charged)]
        account, key, cost = books.charged[job_id]
        of = {"account_id": account, "key_id": key, "job_id": job_id, "model": "none"}
        call = self.db.write(ledger.refund, **of, cost_milli=cost)
        if job_id in books.refunded:
            with pytest.raises(Exception, match=r"(?i)unique|check constraint"):  # whichever comes first
                self.run(call)
            return
        assert self.run(call) == books.balance[account] + cost
        books.refunded.add(job_id)
        books.balance[account] += cost
        books.spent[books.budget[key]] -= cost
        books.entries += 1

    def charge_twice(self, which: int, _: int) -> None:
        books = self.books
        if books.charged:
            job_id = sorted(books.charged)[which % len(books.charged)]
            account, key, cost = books.charged[job_id]
            of = {"account_id": account, "key_id": key, "job_id": job_id, "model": "none"}
            call = self.db.write(ledger.charge, **of, cost_milli=cost)
            with pytest.raises(Exception, match=r"(?i)unique|insufficient|may spend"):
                self.run(call)

    def tamper(self, which: int, _: int) -> None:
        account = self.books.accounts[which % _ACCOUNTS]
        _, entries, _ = self.run(self.db.scan(_whole, account))
        if not entries:
            return  # a trigger for each row has nothing to refuse
        for sql in (
            "UPDATE entries SET amount_milli = amount_milli + 1 WHERE account_id = ?",
            "DELETE FROM entries WHERE account_id = ?",
        ):
            with pytest.raises(Exception, match="append-only"):
                self.run(self.db.write(_tamper, sql, account))

    def check(self) -> None:
        books, found = self.books, 0
        for account in books.accounts:
            balance, entries, spent = self.run(self.db.scan(_whole, account))
            assert balance == books.balance[account] >= 0
            assert balance == sum(entry.amount_milli for entry in entries)
            mine = {key: books.budget[key] for key, owner, _ in books.keys if owner == account}
            assert spent == {key: books.spent[budget] for key, budget in mine.items()}
            for key, total in spent.items():
                sharing = {each for each, budget in mine.items() if budget == mine[key]}
                assert total == -sum(entry.amount_milli for entry in entries if entry.key_id in sharing)
            kinds = sorted((entry.kind, entry.job_id or "") for entry in entries if entry.job_id)
            jobs = {job_id for job_id, (owner, _, _) in books.charged.items() if owner == account}
            assert kinds == sorted([("charge", j) for j in jobs] + [("refund", j) for j in jobs & books.refunded])
            found += len(entries)
        assert found == books.entries
        assert self.run(self.db.scan(ledger.audit)) == []


_AMOUNTS = st.one_of(st.sampled_from([0, 1, 100, 1_000, 2_500, -1_000]), st.integers(-3_000, 6_000))
_VERBS = (
    *("grant", "grant", "grant_once", "charge", "charge", "charge", "refund", "charge_twice", "rotate", "share"),
    "tamper",
)
_MOVES = st.lists(
    st.tuples(
        st.sampled_from(_VERBS),
        st.integers(0, 1_000),
        _AMOUNTS,
    ),
    max_size=25,
)


def _examples(url: str, *, sqlite: int, postgres: int) -> settings:
    return settings(
        max_examples=sqlite if url.startswith("sqlite") else postgres,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def _one_by_one(db: Database, run: Run, profile: settings) -> None:
    @profile
    @given(moves=_MOVES)
    def check(moves: list[tuple[str, int, int]]) -> None:
        trial = _Trial(db, run)
        for name, which, amount in moves:
            getattr(trial, name)(which, amount)
        trial.check()

    check()


def test_the_ledger_agrees_with_its_sum(db: Database, run: Run, database_url: str) -> None:
    _one_by_one(db, run, _examples(database_url, sqlite=50, postgres=15))


@pytest.mark.long
def test_the_ledger_agrees_with_its_sum_for_long(db: Database, run: Run, database_url: str) -> None:
    _one_by_one(db, run, _examples(database_url, sqlite=1500, postgres=300))


async def _all_at_once(calls: list[Any]) -> list[Any]:
    return await asyncio.gather(*calls, return_exceptions=True)


def test_charges_at_once_never_spend_more_than_there_is(db: Database, run: Run, database_url: str) -> None:
    """On SQLite they share one commit, on PostgreSQL several connections compete for the same rows."""

    @_examples(database_url, sqlite=20, postgres=8)
    @given(
        funds=st.lists(st.integers(1, 5_000), min_size=_ACCOUNTS, max_size=_ACCOUNTS),
        wanted=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3_000)), min_size=2, max_size=16),
    )
    def check(funds: list[int], wanted: list[tuple[int, int]]) -> None:
        trial = _Trial(db, run)
        books = trial.books
        for which, amount in enumerate(funds):
            trial.grant(which, amount)
        keys = [books.keys[which] for which, _ in wanted]
        calls = [
            db.write(_charge, account_id=account, key_id=key, cost_milli=cost)
            for (key, account, _), (_, cost) in zip(keys, wanted, strict=True)
        ]
        for outcome, (key, account, _), (_, cost) in zip(run(_all_at_once(calls)), keys, wanted, strict=True):
            if isinstance(outcome, errors.InsufficientCredits):
                continue
            books.charged[outcome[0]] = (account, key, cost)
            books.balance[account] -= cost
            books.spent[key] += cost
            books.entries += 1
        trial.check()
        # Each refund is asked for twice at once, and given once.
        twice = [
            db.write(ledger.refund, account_id=account, key_id=key, job_id=job_id, model="none", cost_milli=cost)
            for job_id, (account, key, cost) in books.charged.items()
            for _ in range(2)
        ]
        outcomes = run(_all_at_once(twice))
        assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == len(books.charged)
        for job_id, (account, key, cost) in books.charged.items():
            books.refunded.add(job_id)
            books.balance[account] += cost
            books.spent[key] -= cost
            books.entries += 1
        trial.check()

    check()


def test_no_grant_takes_a_balance_out_of_the_integers(db: Database, run: Run) -> None:
    """Beyond 2⁶³ SQLite would go on in floats, and lose milli-credits without a word."""
    trial = _Trial(db, run)
    trial.grant(0, money.MOST_MILLI)
    trial.grant(0, 1)
    trial.check()
    with pytest.raises(errors.ValidationError):
        run(db.write(ledger.grant, account_id=trial.books.accounts[0], amount_milli=money.MOST_MILLI + 1))
    trial.check()
