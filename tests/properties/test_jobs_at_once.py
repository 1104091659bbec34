"""Jobs moved by several at once, and by a clock that jumps: what the state machine does not reach in one thread."""

import asyncio
from typing import Any

import pytest

from pixeldojo.catalogue.card import Card
from pixeldojo.db import Database, Tx
from pixeldojo.jobs import service as jobs
from pixeldojo.jobs import store as jobs_store
from pixeldojo.ledger import service as ledger
from properties.parts import CARD, DAY_MS, LEASE_S, Clock, Run, money_of, open_person, order_of, rows_of


async def _at_once(*calls: Any) -> list[Any]:
    return await asyncio.gather(*calls)


def _submit_many(tx: Tx, count: int, card: Card) -> list[str]:
    person = open_person(tx, milli=1_000 * count, cap_milli=None)
    order = order_of(card, cost=1_000, variant=0)
    return [jobs.submit(tx, caller=person.caller, order=order, retention_s=60).job.id for _ in range(count)]


@pytest.mark.parametrize("count", [1, 7, 300])
def test_workers_at_once_never_share_a_job_nor_take_too_many(db: Database, run: Run, count: int) -> None:
    wanted = run(db.write(_submit_many, count, CARD))
    found: list[str] = []
    while len(found) < count:
        free = {"another": 2, "testcard": 3}
        claims = run(_at_once(*(db.write(jobs.claim, free=free, lease_s=LEASE_S) for _ in range(8))))
        assert all(len(claimed) <= 3 for _, claimed in claims)
        assert len({lease for lease, _ in claims}) == 8
        now = [job.id for _, claimed in claims for job in claimed]
        assert now, "there are jobs left, and nobody got one"
        found += now
    assert sorted(found) == sorted(wanted)


def test_of_all_who_end_a_job_at_once_one_does(db: Database, run: Run) -> None:
    run(db.write(_submit_many, 30, CARD))
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
    rows = {row[0]: row for row in run(db.scan(rows_of, "testcard"))}
    for job in claimed:
        balance, _, entries = run(db.scan(money_of, job.account_id))
        kinds = [kind for kind, job_id, _ in entries if job_id == job.id]
        status = rows[job.id][1]
        assert sorted(kinds) == (["charge", "refund"] if status == "failed" else ["charge"])
        assert balance == 1_000 * sum(row[1] == "failed" for row in rows.values())
    assert run(db.scan(ledger.audit)) == []


def test_one_idempotency_key_at_once_is_one_job(db: Database, run: Run) -> None:
    person = run(db.write(open_person, milli=10_000, cap_milli=None))
    order = order_of(CARD, cost=1_000, variant=0)
    calls = [
        db.write(jobs.submit, caller=person.caller, order=order, retention_s=60, idempotency_key="k") for _ in range(12)
    ]
    receipts = run(_at_once(*calls))
    assert len({receipt.job.id for receipt in receipts}) == 1
    assert sorted(receipt.replayed for receipt in receipts) == [False] + [True] * 11
    assert run(db.read(ledger.balance, account_id=person.caller.account_id)) == 9_000


def test_a_clock_set_back_keeps_no_job_waiting(db: Database, run: Run, moved: Clock) -> None:
    """A retry and a lease that were written a day ahead: neither may hold its job until that day comes."""
    first, second = run(db.write(_submit_many, 2, CARD))
    moved.ms += DAY_MS
    for _ in range(2):  # the second failure waits for a second
        lease, _ = run(db.write(jobs.claim, free={"testcard": 2}, lease_s=LEASE_S))
        for job_id in (first, second):
            held = {"job_id": job_id, "lease": lease, "code": "timeout", "message": "no"}
            attempt = run(db.read(jobs_store.get, job_id)).attempt
            if job_id == first or attempt == 1:
                run(db.write(jobs.retry, **held, attempt=attempt, max_attempts=3, retention_s=60))
    moved.ms -= DAY_MS
    _, claimed = run(db.write(jobs.claim, free={"testcard": 2}, lease_s=LEASE_S))
    assert [job.id for job in claimed] == [first]
    assert run(db.write(jobs.rescue_stale, max_attempts=3, retention_s=60)) == 1
    moved.ms += 1_000
    _, claimed = run(db.write(jobs.claim, free={"testcard": 2}, lease_s=LEASE_S))
    assert [job.id for job in claimed] == [second]


def test_a_job_that_waits_for_its_next_try_keeps_no_seat_from_others(db: Database, run: Run, moved: Clock) -> None:
    """Turns are shared between accounts, but only between those with something to do now."""
    (first,) = run(db.write(_submit_many, 1, CARD))
    for attempt in (1, 2):
        lease, _ = run(db.write(jobs.claim, free={"testcard": 1}, lease_s=LEASE_S))
        held = {"job_id": first, "lease": lease, "attempt": attempt, "code": "timeout", "message": "no"}
        assert run(db.write(jobs.retry, **held, max_attempts=3, retention_s=60))
    others = run(db.write(_submit_many, 3, CARD))
    found = []
    for _ in others:
        _, claimed = run(db.write(jobs.claim, free={"testcard": 1}, lease_s=LEASE_S))
        found += [job.id for job in claimed]
    assert sorted(found) == sorted(others)
    moved.ms += 1_000
    _, claimed = run(db.write(jobs.claim, free={"testcard": 1}, lease_s=LEASE_S))
    assert [job.id for job in claimed] == [first]


def test_a_job_that_was_begun_in_time_is_not_failed_for_a_late_start(db: Database, run: Run, moved: Clock) -> None:
    """Not even while it waits for its second attempt."""
    person = run(db.write(open_person, milli=10_000, cap_milli=None))
    limits = jobs.Limits(start_within_s=1.0)
    for _ in range(2):
        order = order_of(CARD, cost=1_000, variant=0)
        run(db.write(jobs.submit, caller=person.caller, order=order, retention_s=60, limits=limits))
    lease, (begun,) = run(db.write(jobs.claim, free={"testcard": 1}, lease_s=LEASE_S))
    held = {"job_id": begun.id, "lease": lease, "attempt": 1, "code": "timeout", "message": "no"}
    assert run(db.write(jobs.retry, **held, max_attempts=3, retention_s=60))
    moved.ms += 2_000
    assert run(db.write(jobs.enforce_limits, retention_s=60)) == 1
    codes = {row[0]: (row[1], row[7]) for row in run(db.scan(rows_of, "testcard"))}
    assert codes.pop(begun.id) == ("pending", None)
    assert list(codes.values()) == [("failed", "not_started")]
