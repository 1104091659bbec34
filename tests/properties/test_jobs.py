"""The job machine against a few lines of Python: every move, by several workers, with leases old and new.

The clock belongs to the test, and it also jumps backwards. After each move every row is compared with the model,
so a stale lease that changed anything, a second charge, a lost refund or a move out of an end state shows at once.
"""

import dataclasses
import itertools
from collections.abc import Callable
from dataclasses import dataclass
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

from pixeldojo import errors
from pixeldojo.accounts.service import Caller
from pixeldojo.db import Database, Row, Tx
from pixeldojo.jobs import hooks
from pixeldojo.jobs import service as jobs
from pixeldojo.jobs import store as jobs_store
from pixeldojo.ledger import service as ledger
from properties.parts import (
    CARD,
    DAY_MS,
    HOUR_MS,
    LEASE_S,
    MAX_ATTEMPTS,
    RETENTION_S,
    START_MS,
    Clock,
    Person,
    Run,
    money_of,
    open_person,
    order_of,
    rows_of,
)

_FAR_MS = HOUR_MS  # a due time further away than this was written before the clock was set back
_NUMBERS = itertools.count()
_WHICH = st.one_of(st.integers(0, 2), st.integers(0, 1_000))  # counted from the newest; most of the old are over
_WHO = st.sampled_from([None, None, None, 0, 1, 2])


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
    started: bool = False
    start_by: int | None = None
    deadline: int | None = None
    hears: tuple[str, ...] | None = None  # what its webhook hears of; None: it has none
    told_start: int = 0
    rank: int = 0

    @property
    def ended(self) -> bool:
        return self.status in ("completed", "failed")

    def over(self, now: int) -> bool:
        """Its time is over, or its files are gone and the clock was set back."""
        return self.ended and (self.swept or self.expires <= now)


def _told(tx: Tx, model: str) -> dict[str, list[tuple[str, str, str]]]:
    """(event, id, status) of every delivery of each job."""
    sql = (
        "SELECT job_id, deliveries.type, deliveries.id, deliveries.status FROM deliveries"
        " JOIN jobs ON jobs.id = job_id WHERE model = ? ORDER BY deliveries.id"
    )
    found: dict[str, list[tuple[str, str, str]]] = {}
    for job_id, *rest in tx.all(sql, model):
        found.setdefault(job_id, []).append((rest[0], rest[1], rest[2]))
    return found


def _bury(tx: Tx, model: str) -> None:
    """Leave nothing of this example for the next one to find."""
    for job_id, status, _, _, lease, *_ in rows_of(tx, model):
        if status in ("pending", "processing"):
            jobs.fail(tx, job_id=job_id, lease=lease, code="over", message="over", retention_s=RETENTION_S)
        jobs.mark_swept(tx, job_id=job_id)
        jobs_store.delete(tx, job_id)


class _Machine(RuleBasedStateMachine):
    def __init__(self, db: Database, run: Run, moved: Clock) -> None:
        super().__init__()
        self.db, self.run, self.clock = db, run, moved
        moved.ms = START_MS
        self.card = msgspec.structs.replace(CARD, api_id=f"m{next(_NUMBERS)}")
        self.jobs: dict[str, _Model] = {}
        self.people: list[Person] = []
        self.leases: list[tuple[str, str, int]] = []  # every (job, lease, attempt) that was ever given out
        self.frozen: dict[str, Row] = {}
        self.swept_ms: dict[str, int] = {}
        self.ends: dict[str, str] = {}  # job → the id of the delivery of its end
        self.gone: dict[str, _Model] = {}  # jobs whose rows were deleted; the ledger knows them still

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
            self.people.append(self.write(open_person, milli=milli, cap_milli=cap))

    # --- clients

    @rule(
        who=st.sampled_from([0, 0, 0, 1, 2]),
        cost=st.sampled_from([0, 100, 1_000, 1_500]),
        key=st.sampled_from([None, None, None, "a", "b"]),
        variant=st.sampled_from([0, 0, 0, 1]),
        hook=st.sampled_from([None, None, "https://example.com/hook"]),
        events=st.sampled_from([None, None, ["start"], ["progress", "failed"], ["start", "progress", "completed"]]),
        priority=st.sampled_from([0, 0, 0, 5, -5]),
        limits=st.sampled_from([(None, None)] * 2 + [(1.0, None), (None, 5.0), (5.0, 1.0)]),
    )
    def submit(
        self, who: int, cost: int, key: str | None, variant: int, hook: str | None, events: list[str] | None,
        priority: int, limits: tuple[float | None, float | None],
    ) -> None:  # fmt: skip
        person, now = self.people[who], self.clock.ms
        order = order_of(self.card, cost=cost, variant=variant, hook=hook, events=events, priority=priority)
        call = self.db.write(
            jobs.submit, caller=person.caller, order=order, retention_s=RETENTION_S, idempotency_key=key,
            limits=jobs.Limits(start_within_s=limits[0], cancel_after_s=limits[1]),
        )  # fmt: skip
        earlier = person.used.get(key) if key else None
        if earlier is not None and earlier[2] > now - DAY_MS:
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
            receipt.job.id, person.caller.account_id, person.caller.key_id, cost, now, now + RETENTION_S * 1000
        )
        job.start_by, job.deadline = (None if each is None else now + int(each * 1000) for each in limits)
        job.hears = tuple(events or hooks.ENDS) if hook else None
        job.rank = -priority
        self.jobs[job.id] = job
        if key:
            person.used[key] = (variant, job.id, now)

    @precondition(lambda self: self.jobs)
    @rule(which=_WHICH, who=_WHO)
    def get(self, which: int, who: int | None) -> None:
        job, caller = self._one(which, who)
        call = self.db.read(jobs.get, caller=caller, job_id=job.id)
        if caller.account_id != job.account:
            with pytest.raises(errors.NotFound):
                self.run(call)
        elif job.over(self.clock.ms):
            with pytest.raises(errors.Expired):
                self.run(call)
        else:
            assert self.run(call).status == job.status

    @precondition(lambda self: self.jobs)
    @rule(which=_WHICH, who=_WHO, discard=st.sampled_from([False, False, True]))
    def cancel(self, which: int, who: int | None, discard: bool) -> None:
        job, caller = self._one(which, who)
        fn: Callable[..., Any] = jobs.discard if discard else jobs.cancel
        more = {} if discard else {"retention_s": RETENTION_S}
        call = self.db.write(fn, caller=caller, job_id=job.id, **more)
        if caller.account_id != job.account:
            with pytest.raises(errors.NotFound):
                self.run(call)
        elif job.over(self.clock.ms):
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

    @precondition(lambda self: self.jobs)
    @rule(which=_WHICH, who=_WHO)
    def replay(self, which: int, who: int | None) -> None:
        job, caller = self._one(which, who)
        call = self.db.write(jobs.replay, caller=caller, job_id=job.id)
        if caller.account_id != job.account:
            with pytest.raises(errors.NotFound):
                self.run(call)
        elif job.over(self.clock.ms):
            with pytest.raises(errors.Expired):
                self.run(call)
        elif job.hears is None:
            with pytest.raises(errors.NotFound):
                self.run(call)
        elif not job.ended:
            with pytest.raises(errors.ValidationError):
                self.run(call)
        else:
            _, delivery = self.run(call)
            assert (delivery.id, delivery.status) == (self.ends[job.id], "due")

    # --- workers

    @rule(limit=st.integers(1, 3))
    def claim(self, limit: int) -> None:
        now = self.clock.ms
        ready = {
            job.id for job in self.jobs.values() if job.status == "pending" and not now < job.ready <= now + _FAR_MS
        }
        lease, claimed = self.write(jobs.claim, free={self.card.api_id: limit}, lease_s=LEASE_S)
        assert {job.id for job in claimed} <= ready
        assert len(claimed) == min(limit, len(ready)), "a seat stays empty while jobs are ready"
        for account in {job.account_id for job in claimed}:
            mine = sorted((self.jobs[each].rank, each) for each in ready if self.jobs[each].account == account)
            taken = sorted((job.rank, job.id) for job in claimed if job.account_id == account)
            assert taken == mine[: len(taken)], "somebody's less urgent job goes first"
        for row in claimed:
            job = self.jobs[row.id]
            job.status, job.lease, job.until, job.ppm = "processing", lease, now + int(LEASE_S * 1000), 0
            job.attempt += 1
            job.started = True
            job.told_start += job.attempt == 1 and "start" in (job.hears or ())
            assert row.attempt == job.attempt <= MAX_ATTEMPTS
            self.leases.append((job.id, lease, job.attempt))

    @precondition(lambda self: self.leases)
    @rule(picks=st.lists(_WHICH, min_size=1, max_size=4), progress=st.sampled_from([0.0, 0.5, 1.0]))
    def heartbeat(self, picks: list[int], progress: float) -> None:
        held = {job_id: jobs.Beat(lease, progress) for job_id, lease, _ in map(self._lease, picks)}
        lost, cancelled = self.write(jobs.heartbeat, held=held, lease_s=LEASE_S)
        assert lost == {job_id for job_id, beat in held.items() if self.jobs[job_id].lease != beat.lease}
        assert cancelled == {job_id for job_id in held.keys() - lost if self.jobs[job_id].cancelling}
        for job_id in held.keys() - lost:
            self.jobs[job_id].until = self.clock.ms + int(LEASE_S * 1000)
            self.jobs[job_id].ppm = int(progress * 1_000_000)

    @precondition(lambda self: self.leases)
    @rule(pick=_WHICH)
    def finish(self, pick: int) -> None:
        job_id, lease, _ = self._lease(pick)
        job, valid = self.jobs[job_id], self.jobs[job_id].lease == lease
        done = self.write(jobs.finish, job_id=job_id, lease=lease, assets="[]", engine_s=0.1, retention_s=RETENTION_S)
        assert (done is not None) == (valid and not job.cancelling)
        if valid and job.cancelling:
            self._end(job, "failed", "cancelled")
        elif valid:
            self._end(job, "completed")

    @precondition(lambda self: self.leases)
    @rule(pick=_WHICH)
    def fail(self, pick: int) -> None:
        job_id, lease, _ = self._lease(pick)
        valid = self.jobs[job_id].lease == lease
        done = self.write(
            jobs.fail, job_id=job_id, lease=lease, code="engine_failed", message="no", retention_s=RETENTION_S
        )
        assert (done is not None) == valid
        if valid:
            self._end(self.jobs[job_id], "failed", "engine_failed")

    @precondition(lambda self: self.leases)
    @rule(pick=_WHICH)
    def retry(self, pick: int) -> None:
        job_id, lease, attempt = self._lease(pick)
        valid = self.jobs[job_id].lease == lease
        moved = self.write(
            jobs.retry, job_id=job_id, lease=lease, attempt=attempt, code="timeout", message="no",
            max_attempts=MAX_ATTEMPTS, retention_s=RETENTION_S,
        )  # fmt: skip
        assert moved == valid
        if valid:
            self._again(self.jobs[job_id], "timeout")

    @precondition(lambda self: self.leases)
    @rule(pick=_WHICH)
    def release(self, pick: int) -> None:
        job_id, lease, _ = self._lease(pick)
        job = self.jobs[job_id]
        valid = job.lease == lease
        assert self.write(jobs.release, job_id=job_id, lease=lease, retention_s=RETENTION_S) == valid
        if valid and job.cancelling:
            self._end(job, "failed", "cancelled")
        elif valid:
            job.status, job.lease, job.until, job.ready, job.ppm = "pending", None, None, 0, 0
            job.attempt -= 1

    # --- loops and time

    @rule(silent_ms=st.sampled_from([0, 15_001]))
    def rescue(self, silent_ms: int) -> None:
        self.clock.ms += silent_ms
        now = self.clock.ms
        stale = [job for job in self.jobs.values() if job.until is not None and not now <= job.until <= now + _FAR_MS]
        assert self.write(jobs.rescue_stale, max_attempts=MAX_ATTEMPTS, retention_s=RETENTION_S) == len(stale)
        for job in stale:
            self._again(job, "worker_lost")

    @rule(times=st.integers(1, MAX_ATTEMPTS))
    def die(self, times: int) -> None:
        """Workers that take what they can and are never heard of again: the way to a last attempt is long."""
        for _ in range(times):
            self.claim(limit=3)
            self.rescue(silent_ms=15_001)

    @rule()
    def expire(self) -> None:
        late = [job for job in self.jobs.values() if job.status == "pending" and job.expires <= self.clock.ms]
        assert self.write(jobs.expire_pending, retention_s=RETENTION_S) == len(late)
        for job in late:
            self._end(job, "failed", "expired")

    @rule(after_ms=st.sampled_from([0, 1_000, 5_000]))
    def enforce(self, after_ms: int) -> None:
        self.clock.ms += after_ms
        now = self.clock.ms
        late = [
            job
            for job in self.jobs.values()
            if not job.ended
            and (
                (job.deadline is not None and job.deadline <= now and not job.cancelling)
                or (job.start_by is not None and job.start_by <= now and not job.started)
            )
        ]
        assert self.write(jobs.enforce_limits, retention_s=RETENTION_S) == len(late)
        for job in late:
            if job.status == "pending":
                over = job.deadline is not None and job.deadline <= now
                self._end(job, "failed", "cancelled" if over else "not_started")
            else:
                job.cancelling = True

    @rule()
    def sweep(self) -> None:
        overdue = self.read(jobs.overdue)
        due = {j.id for j in self.jobs.values() if j.ended and not j.swept and j.expires <= self.clock.ms}
        assert {job.id for job in overdue} == due
        for job in overdue:
            self.write(jobs.mark_swept, job_id=job.id)
            self.jobs[job.id].swept = True
            self.swept_ms[job.id] = self.clock.ms

    @rule(kept_s=st.sampled_from([0, 2 * 24 * 3600]))
    def forget(self, kept_s: int) -> None:
        before = self.clock.ms - max(kept_s * 1000, DAY_MS)
        old_jobs = [job_id for job_id, at_ms in self.swept_ms.items() if at_ms < before]
        assert self.write(jobs.forget, kept_s=kept_s) == len(old_jobs)
        for job_id in old_jobs:
            self.gone[job_id] = self.jobs.pop(job_id)
            del self.swept_ms[job_id]
            self.leases = [held for held in self.leases if held[0] != job_id]
        self.write(jobs.forget_idempotency)
        for person in self.people:
            old = self.clock.ms - DAY_MS
            person.used = {key: use for key, use in person.used.items() if use[2] > old}

    @rule(step=st.sampled_from([1, 999, 1_000, 5_000, 15_001, DAY_MS + 1, -1, -5_000, -HOUR_MS, -2 * DAY_MS]))
    def clock_moves(self, step: int) -> None:
        self.clock.ms += step

    # --- what the model does on a move

    def _one(self, which: int, who: int | None) -> tuple[_Model, Caller]:
        """A job, of the newest first, and somebody: its owner, unless a person is named."""
        job = list(self.jobs.values())[-1 - which % len(self.jobs)]
        owner = next(each for each in self.people if each.caller.account_id == job.account)
        return job, (owner if who is None else self.people[who]).caller

    def _lease(self, pick: int) -> tuple[str, str, int]:
        return self.leases[-1 - pick % len(self.leases)]  # of the newest first

    def _end(self, job: _Model, status: str, error: str | None = None) -> None:
        job.status, job.error, job.lease, job.until = status, error, None, None
        job.completed = self.clock.ms
        job.expires = self.clock.ms + RETENTION_S * 1000
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
        if job.attempt >= MAX_ATTEMPTS:
            self._end(job, "failed", code)
            return
        wait = (0, 1_000)[job.attempt - 1]
        job.status, job.lease, job.until, job.ppm = "pending", None, None, 0
        job.ready = self.clock.ms + wait if wait else 0

    @invariant()
    def agrees(self) -> None:
        rows = self.read(rows_of, self.card.api_id)
        assert [row[0] for row in rows] == sorted(self.jobs)
        for row in rows:
            job = self.jobs[row[0]]
            seen = dataclasses.replace(
                job, id=row[0], cost=row[15], expires=row[10], started=row[13] is not None, status=row[1],
                attempt=row[2], ready=row[3], lease=row[4], until=row[5], error=row[7],
                swept=row[8] is not None, ppm=row[9], cancelling=row[16] is not None,
            )  # fmt: skip
            assert seen == dataclasses.replace(job, ppm=row[9] if job.status == "failed" else job.ppm)
            assert row[11] == (job.cost if job.status == "failed" else 0)
            assert 0 <= job.attempt <= MAX_ATTEMPTS
            self._no_negative_age(job, started=row[13], created=row[14], completed=row[6])
            if job.ended:  # final: only its expiry and the sweep may still be written
                now = (*row[:8], row[9], *row[11:])
                assert self.frozen.setdefault(job.id, now) == now

    def _no_negative_age(self, job: _Model, *, started: int | None, created: int, completed: int | None) -> None:
        assert (completed is not None) == job.ended
        assert started is None or started >= created
        assert completed is None or completed >= (created if started is None else started)

    @invariant()
    def webhooks_agree(self) -> None:
        """A job that has ended told its webhook so, once, and no other job did; beginnings as they were wanted."""
        told = self.read(_told, self.card.api_id)
        assert set(told) <= {job.id for job in self.jobs.values() if job.hears is not None}
        for job in (each for each in self.jobs.values() if each.hears is not None):
            events = told.get(job.id, [])
            ends = [(event, its_id) for event, its_id, _ in events if event in ("job.completed", "job.failed")]
            assert [event for event, _ in ends] == ([f"job.{job.status}"] if job.ended else [])
            assert sum(event == "job.started" for event, *_ in events) == job.told_start
            assert "progress" in (job.hears or ()) or all(event != "job.progress" for event, *_ in events)
            for _, its_id in ends:
                assert self.ends.setdefault(job.id, its_id) == its_id

    @invariant()
    def money_agrees(self) -> None:
        for person in self.people:
            balance, spent, entries = self.read(money_of, person.caller.account_id)
            every = [*self.jobs.values(), *self.gone.values()]
            mine = [job for job in every if job.account == person.caller.account_id]
            assert balance == person.balance == sum(amount for _, _, amount in entries)
            assert spent == {person.caller.key_id: person.spent}
            charges = sorted((j, amount) for kind, j, amount in entries if kind == "charge")
            refunds = sorted((j, amount) for kind, j, amount in entries if kind == "refund")
            assert charges == sorted((job.id, -job.cost) for job in mine)
            assert refunds == sorted((job.id, job.cost) for job in mine if job.status == "failed")


def _against_the_model(db: Database, run: Run, moved: Clock, *, examples: int, steps: int) -> None:
    profile = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    machine: Any = lambda: _Machine(db, run, moved)  # noqa: E731
    run_state_machine_as_test(machine, settings=profile)


def test_the_machine_agrees_with_its_model(db: Database, run: Run, moved: Clock, database_url: str) -> None:
    sqlite = database_url.startswith("sqlite")
    _against_the_model(db, run, moved, examples=40 if sqlite else 12, steps=40)


@pytest.mark.long
def test_the_machine_agrees_with_its_model_for_long(db: Database, run: Run, moved: Clock, database_url: str) -> None:
    sqlite = database_url.startswith("sqlite")
    _against_the_model(db, run, moved, examples=600 if sqlite else 150, steps=80)
