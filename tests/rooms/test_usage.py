"""What jobs cost by day, model and key: whatever it is summed by, it is the ledger's own sum."""

import itertools
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from pixeldojo import clock, errors, ids
from pixeldojo.accounts import service as accounts
from pixeldojo.db import Database, Tx
from pixeldojo.ledger import service as ledger
from pixeldojo.ledger import view

Run = Callable[[Awaitable[Any]], Any]
DAY_MS = 86_400_000
START_MS = 20_000 * DAY_MS
GROUPS = [groups for size in range(4) for groups in itertools.combinations(("day", "model", "key"), size)]


def _history(tx: Tx, *, at: Callable[[int], None], seed: int) -> tuple[str, str]:
    """Two accounts with some hundred charges and refunds in six days: the one to look at, and a stranger's."""
    dice = random.Random(seed)
    mine, other = (accounts.create_account(tx, name=name).id for name in ("Ana", "Bob"))
    keys = {
        name: [accounts.create_key(tx, account_id=name, name="k")[0].id for _ in range(2)] for name in (mine, other)
    }
    for account_id in (mine, other):
        ledger.grant(tx, account_id=account_id, amount_milli=10**9)
    times = sorted(dice.randrange(START_MS, START_MS + 6 * DAY_MS) for _ in range(300))
    times[:2] = [START_MS, START_MS + DAY_MS]  # exactly on the edge of a day
    open_jobs: list[dict[str, Any]] = []
    for time_ms in sorted(times):
        at(time_ms)
        if open_jobs and dice.random() < 0.3:
            ledger.refund(tx, **open_jobs.pop(dice.randrange(len(open_jobs))))
            continue
        account_id = dice.choice((mine, mine, other))
        job: dict[str, Any] = {
            "account_id": account_id, "key_id": dice.choice(keys[account_id]), "job_id": ids.new("job"),
            "model": dice.choice(("dojo-mini", "testcard")), "cost_milli": dice.randrange(2_000),
        }  # fmt: skip
        ledger.charge(tx, **job)
        open_jobs.append(job)
    return mine, other


@pytest.fixture
def history(db: Database, run: Run, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    def at(time_ms: int) -> None:
        monkeypatch.setattr(clock, "now_ms", lambda: time_ms)

    at(START_MS)
    found: tuple[str, str] = run(db.write(_history, at=at, seed=7))
    return found


def test_usage_is_the_ledgers_sum(db: Database, run: Run, history: tuple[str, str]) -> None:
    for account_id in history:
        entries = run(db.read(ledger.list_entries, account_id=account_id, limit=10_000))
        for groups, (since, until) in itertools.product(GROUPS, ((0, 6), (1, 4), (2, 3), (7, 9))):
            from_ms, to_ms = START_MS + since * DAY_MS, START_MS + until * DAY_MS
            wanted: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0, 0, 0])
            for entry in entries:
                if entry.kind == "grant" or not from_ms <= entry.created_ms < to_ms:
                    continue
                what = {"day": entry.created_ms // DAY_MS, "model": entry.model, "key": entry.key_id}
                sums = wanted[tuple(what[name] if name in groups else None for name in what)]
                sums[0] += entry.kind == "charge"
                sums[1] -= entry.amount_milli if entry.kind == "charge" else 0
                sums[2] += entry.amount_milli if entry.kind == "refund" else 0
            period: dict[str, Any] = {"from_ms": from_ms, "to_ms": to_ms, "group_by": groups}
            rows = run(db.scan(ledger.usage, account_id=account_id, **period))
            if not groups and not wanted:
                wanted[None, None, None] = [0, 0, 0]
            assert {row[:3]: list(row[3:]) for row in rows} == dict(wanted)
            assert rows == sorted(rows, key=lambda row: tuple(str(each) for each in row[:3]))
            total = view.usage(rows, **period)["total"]
            counted = [sum(sums[place] for sums in wanted.values()) for place in range(3)]
            assert total["jobs"] == counted[0]
            assert round(total["net"] * 1000) == counted[1] - counted[2]


def test_the_whole_agrees_with_the_balance(db: Database, run: Run, history: tuple[str, str]) -> None:
    for account_id in history:
        period: dict[str, Any] = {"from_ms": START_MS, "to_ms": START_MS + 6 * DAY_MS, "group_by": ["model"]}
        rows = run(db.scan(ledger.usage, account_id=account_id, **period))
        net = sum(row.charged_milli - row.refunded_milli for row in rows)
        assert run(db.read(ledger.balance, account_id=account_id)) == 10**9 - net


def test_entries_of_a_kind_page_by_page(db: Database, run: Run, history: tuple[str, str]) -> None:
    account_id = history[0]
    every = run(db.read(ledger.list_entries, account_id=account_id, limit=10_000))
    assert [entry.created_ms for entry in every] == sorted((entry.created_ms for entry in every), reverse=True)
    for kind in (None, *ledger.KINDS):
        found: list[ledger.Entry] = []
        while True:
            before = found[-1].id if found else None
            page = run(db.read(ledger.list_entries, account_id=account_id, limit=7, before=before, kind=kind))
            found += page
            if len(page) < 7:
                break
        assert found == [entry for entry in every if kind in (None, entry.kind)]


def test_too_many_rows_are_refused(
    db: Database, run: Run, history: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    period: dict[str, Any] = {"from_ms": START_MS, "to_ms": START_MS + 6 * DAY_MS, "group_by": ["day", "model"]}
    monkeypatch.setattr(ledger, "MOST_ROWS", 12)
    assert len(run(db.scan(ledger.usage, account_id=history[0], **period))) == 12
    monkeypatch.setattr(ledger, "MOST_ROWS", 11)
    with pytest.raises(errors.ValidationError, match="groupBy"):
        run(db.scan(ledger.usage, account_id=history[0], **period))
