"""The job machine against a few lines of Python: every move, by several workers, with leases old and new.

The clock belongs to the test, and it also jumps backwards. After each move every row is compared with the model,
so a stale lease that changed anything, a second charge, a lost refund or a move out of an end state shows at once.
"""

import asyncio
import dataclasses
import itertools
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pixeldojo import clock, errors
from pixeldojo.accounts import service as accounts
from pixeldojo.accounts.service import Caller
from pixeldojo.catalogue.card import Card, read_all
from pixeldojo.catalogue.service import Order
from pixeldojo.db import Database, Row, Tx
from pixeldojo.jobs import service as jobs
from pixeldojo.jobs import store as jobs_store
from pixeldojo.ledger import service as ledger
from pixeldojo.ledger import store as ledger_store

Run = Callable[[Any], Any]

_START_MS = 1_790_000_000_000
_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS
_LEASE_S = 15.0
_RETENTION_S = 24 * 3600
_MAX_ATTEMPTS = 3
_FAR_MS = _HOUR_MS  # a due time further away than this was written before the clock was set back
_CARD = next(card for card in read_all(None) if card.api_id == "testcard")
_NUMBERS = itertools.count()


class _Clock:
    def __init__(self) -> None:
        self.ms = _START_MS

    def now_ms(self) -> int:
        return self.ms


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    """The wall clock, standing still until the test moves it."""
    fake = _Clock()
    monkeypatch.setattr(clock, "now_ms", fake.now_ms)
    return fake


@dataclass
class _Model:
    """What one job should look like."""

    id: str
    account: str
    key: str
    cost: int
    created: int
    expires: int
    status: str = "pending"
    attempt: int = 0
    ready: int = 0
    lease: str | None = None
    until: int | None = None
    completed: int | None = None
    error: str | None = None
    swept: bool = False
    ppm: int = 0
    cancelling: bool = False

    @property
    def ended(self) -> bool:
        return self.status in ("completed", "failed")


@dataclass
class _Person:
    caller: Caller
    balance: int
    cap: int | None
    spent: int = 0
    used: dict[str, tuple[int, str, int]] = field(default_factory=dict)  # idempotency key → (variant, job, time)


def _order(card: Card, *, cost: int, variant: int) -> Order:
    return Order(card, {"prompt": "bars", "variant": variant}, [], cost, None, {"prompt": "bars", "variant": variant})


def _person(tx: Tx, *, milli: int, cap_milli: int | None) -> _Person:
    account = accounts.create_account(tx, name=secrets.token_hex(8))
    ledger.grant(tx, account_id=account.id, amount_milli=milli)
    key, _ = accounts.create_key(tx, account_id=account.id, name="test", cap_milli=cap_milli)
    return _Person(Caller(account.id, key.id, None), milli, cap_milli)


def _rows(tx: Tx, model: str) -> list[Row]:
    sql = (
        "SELECT id, status, attempt, ready_ms, lease, lease_until_ms, completed_ms, error_code, swept_ms, progress_ppm,"
        " expires_ms, refunded_milli, assets, started_ms, created_ms, cost_milli, cancel_ms"
        " FROM jobs WHERE model = ? ORDER BY id"
    )
    return tx.all(sql, model)


def _money(tx: Tx, account_id: str) -> tuple[int, dict[str, int], list[tuple[str, str | None, int]]]:
    entries = ledger_store.entries(tx, account_id, limit=1_000)
    spent = {key.id: key.spent_milli for key in accounts.list_keys(tx, account_id=account_id)}
    found = [(entry.kind, entry.job_id, entry.amount_milli) for entry in entries]
    return ledger.balance(tx, account_id=account_id), spent, found


def _bury(tx: Tx, model: str) -> None:
    """Leave nothing of this example for the next one to find."""
    for job_id, status, _, _, lease, *_ in _rows(tx, model):
        if status in ("pending", "processing"):
            jobs.fail(tx, job_id=job_id, lease=lease, code="over", message="over", retention_s=_RETENTION_S)
        jobs.mark_swept(tx, job_id=job_id)


class _Machine(RuleBasedStateMachine):
    def __init__(self, db: Database, run: Run, moved: _Clock) -> None:
        super().__init__()
        self.db, self.run, self.clock = db, run, moved
        moved.ms = _START_MS
        self.card = msgspec.structs.replace(_CARD, api_id=f"m{next(_NUMBERS)}")
        self.jobs: dict[str, _Model] = {}
        self.people: list[_Person] = []
        self.leases: list[tuple[str, str, int]] = []  # every (job, lease, attempt) that was ever given out
        self.frozen: dict[str, Row] = {}

    def write(self, fn: Callable[..., Any], **more: Any) -> Any:
        return self.run(self.db.write(fn, **more))

    def read(self, fn: Callable[..., Any], *args: Any, **more: Any) -> Any:
        return self.run(self.db.scan(fn, *args, **more))

    def teardown(self) -> None:
        self.run(self.db.write(_bury, self.card.api_id))
        assert self.read(ledger.audit) == []

    @initialize()
    def open(self) -> None:
        for milli, cap in ((1_000_000, None), (4_000, None), (1_000_000, 3_000)):
            self.people.append(self.write(_person, milli=milli, cap_milli=cap))

    # --- clients

    @rule(
        who=st.sampled_from([0, 0, 0, 1, 2]),
        cost=st.sampled_from([0, 100, 1_000, 1_500]),
        key=st.sampled_from([None, None, None, "a", "b"]),
        variant=st.sampled_from([0, 0, 0, 1]),
    )
    def submit(self, who: int, cost: int, key: str | None, variant: int) -> None:
        person, now = self.people[who], self.clock.ms
        order = _order(self.card, cost=cost, variant=variant)
        call = self.db.write(
            jobs.submit, caller=person.caller, order=order, retention_s=_RETENTION_S, idempotency_key=key
        )
        earlier = person.used.get(key) if key else None
        if earlier is not None and earlier[2] > now - _DAY_MS:
            if earlier[0] != variant:
                with pytest.raises(errors.ValidationError):
                    self.run(call)
                return
            receipt = self.run(call)
            assert receipt.replayed
            assert receipt.job.id == earlier[1]
            assert receipt.balance_milli == person.balance
            return
        if cost > person.balance or (person.cap is not None and person.spent + cost > person.cap):
            with pytest.raises(errors.InsufficientCredits):
                self.run(call)
            return
        receipt = self.run(call)
        assert not receipt.replayed
        assert receipt.job.id not in self.jobs
        person.balance -= cost
        person.spent += cost
        assert receipt.balance_milli == person.balance
        job = _Model(
            receipt.job.id, person.caller.account_id, person.caller.key_id, cost, now, now + _RETENTION_S * 1000
        )
        self.jobs[job.id] = job
        if key:
            person.used[key] = (variant, job.id, now)

    @precondition(lambda self: self.jobs)
    @rule(which=st.integers(0, 1_000), who=st.integers(0, 2))
    def get(self, which: int, who: int) -> None:
        job, caller = self._one(which), self.people[who].caller
        call = self.db.read(jobs.get, caller=caller, job_id=job.id)
        if caller.account_id != job.account:
            with pytest.raises(errors.NotFound):
                self.run(call)
        elif job.ended and job.expires <= self.clock.ms:
            with pytest.raises(errors.Expired):
                self.run(call)
        else:
            assert self.run(call).status == job.status

    @precondition(lambda self: self.jobs)
    @rule(which=st.integers(0, 1_000), who=st.integers(0, 2), discard=st.booleans())
    def cancel(self, which: int, who: int, discard: bool) -> None:
        job, caller = self._one(which), self.people[who].caller
        fn: Callable[..., Any] = jobs.discard if discard else jobs.cancel
        more = {} if discard else {"retention_s": _RETENTION_S}
        call = self.db.write(fn, caller=caller, job_id=job.id, **more)
        if caller.account_id != job.account:
            with pytest.raises(errors.NotFound):
                self.run(call)
        elif job.ended and job.expires <= self.clock.ms:
            with pytest.raises(errors.Expired):
                self.run(call)
        elif discard and not job.ended:
            with pytest.raises(errors.ValidationError):
                self.run(call)
        elif discard:
            self.run(call)
            job.expires = self.clock.ms
        elif job.ended:
            assert self.run(call)[0] == "too_late"
        elif job.status == "pending":
            assert self.run(call)[0] == "cancelled"
            self._end(job, "failed", "cancelled")
        else:
            assert self.run(call)[0] == "cancelling"
            job.cancelling = True

    # --- workers

    @rule(limit=st.integers(1, 3))
    def claim(self, limit: int) -> None:
        now = self.clock.ms
        ready = {
            job.id for job in self.jobs.values() if job.status == "pending" and not now < job.ready <= now + _FAR_MS
        }
        lease, claimed = self.write(jobs.claim, free={self.card.api_id: limit}, lease_s=_LEASE_S)
        assert {job.id for job in claimed} <= ready
        assert len(claimed) == min(limit, len(ready)), "a seat stays empty while jobs are ready"
        for row in claimed:
            job = self.jobs[row.id]
            job.status, job.lease, job.until, job.ppm = "processing", lease, now + int(_LEASE_S * 1000), 0
            job.attempt += 1
            assert row.attempt == job.attempt <= _MAX_ATTEMPTS
            self.leases.append((job.id, lease, job.attempt))

    @precondition(lambda self: self.leases)
    @rule(picks=st.lists(st.integers(0, 1_000), min_size=1, max_size=4), progress=st.sampled_from([0.0, 0.5, 1.0]))
    def heartbeat(self, picks: list[int], progress: float) -> None:
        held = {job_id: jobs.Beat(lease, progress) for job_id, lease, _ in map(self._lease, picks)}
        lost, cancelled = self.write(jobs.heartbeat, held=held, lease_s=_LEASE_S)
        assert lost == {job_id for job_id, beat in held.items() if self.jobs[job_id].lease != beat.lease}
        assert cancelled == {job_id for job_id in held.keys() - lost if self.jobs[job_id].cancelling}
        for job_id in held.keys() - lost:
            self.jobs[job_id].until = self.clock.ms + int(_LEASE_S * 1000)
            self.jobs[job_id].ppm = int(progress * 1_000_000)

    @precondition(lambda self: self.leases)
    @rule(pick=st.integers(0, 1_000))
    def finish(self, pick: int) -> None:
        job_id, lease, _ = self._lease(pick)
        job, valid = self.jobs[job_id], self.jobs[job_id].lease == lease
        done = self.write(jobs.finish, job_id=job_id, lease=lease, assets="[]", engine_s=0.1, retention_s=_RETENTION_S)
        assert (done is not None) == (valid and not job.cancelling)
        if valid and job.cancelling:
            self._end(job, "failed", "cancelled")
        elif valid:
            self._end(job, "completed")

    @precondition(lambda self: self.leases)
    @rule(pick=st.integers(0, 1_000))
    def fail(self, pick: int) -> None:
        job_id, lease, _ = self._lease(pick)
        valid = self.jobs[job_id].lease == lease
        done = self.write(
            jobs.fail, job_id=job_id, lease=lease, code="engine_failed", message="no", retention_s=_RETENTION_S
        )
        assert (done is not None) == valid
        if valid:
            self._end(self.jobs[job_id], "failed", "engine_failed")

    @precondition(lambda self: self.leases)
    @rule(pick=st.integers(0, 1_000))
    def retry(self, pick: int) -> None:
        job_id, lease, attempt = self._lease(pick)
        valid = self.jobs[job_id].lease == lease
        moved = self.write(
            jobs.retry, job_id=job_id, lease=lease, attempt=attempt, code="timeout", message="no",
            max_attempts=_MAX_ATTEMPTS, retention_s=_RETENTION_S,
        )  # fmt: skip
        assert moved == valid
        if valid:
            self._again(self.jobs[job_id], "timeout")

    @precondition(lambda self: self.leases)
    @rule(pick=st.integers(0, 1_000))
    def release(self, pick: int) -> None:
        job_id, lease, _ = self._lease(pick)
        job = self.jobs[job_id]
        valid = job.lease == lease
        assert self.write(jobs.release, job_id=job_id, lease=lease, retention_s=60) == valid
        if valid:
            job.status, job.lease, job.until, job.ready, job.ppm = "pending", None, None, 0, 0
            job.attempt -= 1

    # --- loops and time

    @rule()
    def rescue(self) -> None:
        now = self.clock.ms
        stale = [job for job in self.jobs.values() if job.until is not None and not now <= job.until <= now + _FAR_MS]
        assert self.write(jobs.rescue_stale, max_attempts=_MAX_ATTEMPTS, retention_s=_RETENTION_S) == len(stale)
        for job in stale:
            self._again(job, "worker_lost")

    @rule()
    def expire(self) -> None:
        late = [job for job in self.jobs.values() if job.status == "pending" and job.expires <= self.clock.ms]
        assert self.write(jobs.expire_pending, retention_s=_RETENTION_S) == len(late)
        for job in late:
            self._end(job, "failed", "expired")

    @rule()
    def sweep(self) -> None:
        overdue = self.read(jobs.overdue)
        due = {j.id for j in self.jobs.values() if j.ended and not j.swept and j.expires <= self.clock.ms}
        assert {job.id for job in overdue} == due
        for job in overdue:
            self.write(jobs.mark_swept, job_id=job.id)
            self.jobs[job.id].swept = True

    @rule()
    def forget(self) -> None:
        self.write(jobs.forget_idempotency)
        for person in self.people:
            old = self.clock.ms - _DAY_MS
            person.used = {key: use for key, use in person.used.items() if use[2] > old}

    @rule(step=st.sampled_from([1, 999, 1_000, 5_000, 15_001, _DAY_MS + 1, -1, -5_000, -_HOUR_MS, -2 * _DAY_MS]))
    def clock_moves(self, step: int) -> None:
        self.clock.ms += step

    # --- what the model does on a move

    def _one(self, which: int) -> _Model:
        return list(self.jobs.values())[which % len(self.jobs)]

    def _lease(self, pick: int) -> tuple[str, str, int]:
        return self.leases[-1 - pick % len(self.leases)]  # shrinks towards the newest

    def _end(self, job: _Model, status: str, error: str | None = None) -> None:
        job.status, job.error, job.lease, job.until = status, error, None, None
        job.completed = self.clock.ms
        job.expires = self.clock.ms + _RETENTION_S * 1000
        if status == "completed":
            job.ppm = 1_000_000
        else:
            person = next(person for person in self.people if person.caller.account_id == job.account)
            person.balance += job.cost
            person.spent -= job.cost

    def _again(self, job: _Model, code: str) -> None:
        if job.cancelling:
            self._end(job, "failed", "cancelled")
            return
        if job.attempt >= _MAX_ATTEMPTS:
            self._end(job, "failed", code)
            return
        wait = (0, 1_000)[job.attempt - 1]
        job.status, job.lease, job.until, job.ppm = "pending", None, None, 0
        job.ready = self.clock.ms + wait if wait else 0

    @invariant()
    def agrees(self) -> None:
        rows = self.read(_rows, self.card.api_id)
        assert [row[0] for row in rows] == sorted(self.jobs)
        for row in rows:
            job = self.jobs[row[0]]
            seen = _Model(
                id=row[0], account=job.account, key=job.key, cost=row[15], created=job.created, expires=row[10],
                status=row[1], attempt=row[2], ready=row[3], lease=row[4], until=row[5], completed=job.completed,
                error=row[7], swept=row[8] is not None, ppm=row[9], cancelling=row[16] is not None,
            )  # fmt: skip
            assert seen == dataclasses.replace(job, ppm=row[9] if job.status == "failed" else job.ppm)
            assert row[11] == (job.cost if job.status == "failed" else 0)
            assert 0 <= job.attempt <= _MAX_ATTEMPTS
            self._no_negative_age(job, started=row[13], created=row[14], completed=row[6])
            if job.ended:  # final: only its expiry and the sweep may still be written
                now = (*row[:8], row[9], *row[11:])
                assert self.frozen.setdefault(job.id, now) == now

    def _no_negative_age(self, job: _Model, *, started: int | None, created: int, completed: int | None) -> None:
        assert (completed is not None) == job.ended
        assert started is None or started >= created
        assert completed is None or completed >= (created if started is None else started)

    @invariant()
    def money_agrees(self) -> None:
        for person in self.people:
            balance, spent, entries = self.read(_money, person.caller.account_id)
            mine = [job for job in self.jobs.values() if job.account == person.caller.account_id]
            assert balance == person.balance == sum(amount for _, _, amount in entries)
            assert spent == {person.caller.key_id: person.spent}
            charges = sorted((j, amount) for kind, j, amount in entries if kind == "charge")
            refunds = sorted((j, amount) for kind, j, amount in entries if kind == "refund")
            assert charges == sorted((job.id, -job.cost) for job in mine)
            assert refunds == sorted((job.id, job.cost) for job in mine if job.status == "failed")


def _against_the_model(db: Database, run: Run, moved: _Clock, *, examples: int, steps: int) -> None:
    profile = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    machine: Any = lambda: _Machine(db, run, moved)  # noqa: E731
    run_state_machine_as_test(machine, settings=profile)


def test_the_machine_agrees_with_its_model(db: Database, run: Run, moved: _Clock, database_url: str) -> None:
    sqlite = database_url.startswith("sqlite")
    _against_the_model(db, run, moved, examples=40 if sqlite else 12, steps=40)


@pytest.mark.long
def test_the_machine_agrees_with_its_model_for_long(db: Database, run: Run, moved: _Clock, database_url: str) -> None:
    sqlite = database_url.startswith("sqlite")
    _against_the_model(db, run, moved, examples=600 if sqlite else 150, steps=80)


# --- several at once


async def _at_once(*calls: Any) -> list[Any]:
    return await asyncio.gather(*calls)


def _submit_many(tx: Tx, count: int, card: Card) -> list[str]:
    person = _person(tx, milli=1_000 * count, cap_milli=None)
    order = _order(card, cost=1_000, variant=0)
    return [jobs.submit(tx, caller=person.caller, order=order, retention_s=60).job.id for _ in range(count)]


@pytest.mark.parametrize("count", [1, 7, 300])
def test_workers_at_once_never_share_a_job_nor_take_too_many(db: Database, run: Run, count: int) -> None:
    wanted = run(db.write(_submit_many, count, _CARD))
    found: list[str] = []
    while len(found) < count:
        free = {"another": 2, "testcard": 3}
        claims = run(_at_once(*(db.write(jobs.claim, free=free, lease_s=_LEASE_S) for _ in range(8))))
        assert all(len(claimed) <= 3 for _, claimed in claims)
        assert len({lease for lease, _ in claims}) == 8
        now = [job.id for _, claimed in claims for job in claimed]
        assert now, "there are jobs left, and nobody got one"
        found += now
    assert sorted(found) == sorted(wanted)


def test_of_all_who_end_a_job_at_once_one_does(db: Database, run: Run) -> None:
    run(db.write(_submit_many, 30, _CARD))
    lease, claimed = run(db.write(jobs.claim, free={"testcard": 30}, lease_s=-1.0))  # stale at once
    calls = []
    for job in claimed:
        of = {"job_id": job.id, "lease": lease}
        calls += [
            db.write(jobs.finish, **of, assets="[]", engine_s=0, retention_s=60),
            db.write(jobs.fail, **of, code="timeout", message="no", retention_s=60),
            db.write(jobs.rescue_stale, max_attempts=1, retention_s=60, limit=3),
            db.write(jobs.release, **of, retention_s=60),
        ]
    run(_at_once(*calls))
    rows = {row[0]: row for row in run(db.scan(_rows, "testcard"))}
    for job in claimed:
        balance, _, entries = run(db.scan(_money, job.account_id))
        kinds = [kind for kind, job_id, _ in entries if job_id == job.id]
        status = rows[job.id][1]
        assert sorted(kinds) == (["charge", "refund"] if status == "failed" else ["charge"])
        assert balance == 1_000 * sum(row[1] == "failed" for row in rows.values())
    assert run(db.scan(ledger.audit)) == []


def test_one_idempotency_key_at_once_is_one_job(db: Database, run: Run) -> None:
    person = run(db.write(_person, milli=10_000, cap_milli=None))
    order = _order(_CARD, cost=1_000, variant=0)
    calls = [
        db.write(jobs.submit, caller=person.caller, order=order, retention_s=60, idempotency_key="k") for _ in range(12)
    ]
    receipts = run(_at_once(*calls))
    assert len({receipt.job.id for receipt in receipts}) == 1
    assert sorted(receipt.replayed for receipt in receipts) == [False] + [True] * 11
    assert run(db.read(ledger.balance, account_id=person.caller.account_id)) == 9_000


def test_a_clock_set_back_keeps_no_job_waiting(db: Database, run: Run, moved: _Clock) -> None:
    """A retry and a lease that were written a day ahead: neither may hold its job until that day comes."""
    first, second = run(db.write(_submit_many, 2, _CARD))
    moved.ms += _DAY_MS
    for _ in range(2):  # the second failure waits for a second
        lease, _ = run(db.write(jobs.claim, free={"testcard": 2}, lease_s=_LEASE_S))
        for job_id in (first, second):
            held = {"job_id": job_id, "lease": lease, "code": "timeout", "message": "no"}
            attempt = run(db.read(jobs_store.get, job_id)).attempt
            if job_id == first or attempt == 1:
                run(db.write(jobs.retry, **held, attempt=attempt, max_attempts=3, retention_s=60))
    moved.ms -= _DAY_MS
    _, claimed = run(db.write(jobs.claim, free={"testcard": 2}, lease_s=_LEASE_S))
    assert [job.id for job in claimed] == [first]
    assert run(db.write(jobs.rescue_stale, max_attempts=3, retention_s=60)) == 1
    moved.ms += 1_000
    _, claimed = run(db.write(jobs.claim, free={"testcard": 2}, lease_s=_LEASE_S))
    assert [job.id for job in claimed] == [second]


def test_a_job_that_waits_for_its_next_try_keeps_no_seat_from_others(db: Database, run: Run, moved: _Clock) -> None:
    """Turns are shared between accounts, but only between those with something to do now."""
    (first,) = run(db.write(_submit_many, 1, _CARD))
    for attempt in (1, 2):
        lease, _ = run(db.write(jobs.claim, free={"testcard": 1}, lease_s=_LEASE_S))
        held = {"job_id": first, "lease": lease, "attempt": attempt, "code": "timeout", "message": "no"}
        assert run(db.write(jobs.retry, **held, max_attempts=3, retention_s=60))
    others = run(db.write(_submit_many, 3, _CARD))
    found = []
    for _ in others:
        _, claimed = run(db.write(jobs.claim, free={"testcard": 1}, lease_s=_LEASE_S))
        found += [job.id for job in claimed]
    assert sorted(found) == sorted(others)
    moved.ms += 1_000
    _, claimed = run(db.write(jobs.claim, free={"testcard": 1}, lease_s=_LEASE_S))
    assert [job.id for job in claimed] == [first]
