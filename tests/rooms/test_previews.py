"""The preview of a job: the newest alone, only while the job is worked on, and gone with its end."""

from collections.abc import Callable
from typing import Any

import pytest

from pixeldojo.accounts import service as accounts
from pixeldojo.catalogue.card import read_all
from pixeldojo.catalogue.service import Order
from pixeldojo.db import Database, Tx
from pixeldojo.jobs import service as jobs
from pixeldojo.ledger import service as ledger

Run = Callable[[Any], Any]
_CARD = next(card for card in read_all(None) if card.api_id == "testcard")


def _working(tx: Tx) -> tuple[str, str]:
    """A job at work, and its lease."""
    account_id = accounts.create_account(tx, name="ana").id
    _, key = accounts.create_key(tx, account_id=account_id, name="key")
    caller = accounts.authenticate(tx, f"Bearer {key}")
    ledger.grant(tx, account_id=account_id, amount_milli=5_000)
    order = Order(_CARD, {"prompt": "x"}, [], 1_000, None, {"prompt": "x"})
    receipt = jobs.submit(tx, caller=caller, order=order, retention_s=3600)
    return receipt.job.id, jobs.claim(tx, free={"testcard": 1}, lease_s=60)[0]


def _rows(tx: Tx) -> int:
    row = tx.one("SELECT COUNT(*) FROM job_previews")
    return int(row[0]) if row else 0


@pytest.mark.parametrize("end", ["finish", "fail", "cancel"])
def test_a_preview_lives_while_its_job_is_worked_on(db: Database, run: Run, end: str) -> None:
    job_id, lease = run(db.write(_working))

    def beat(lease: str, picture: bytes) -> None:
        told = jobs.Beat(lease, 0.5, ("image/webp", picture))
        run(db.write(jobs.heartbeat, held={job_id: told}, lease_s=60))

    def seen(after: int) -> Any:
        return run(db.read(jobs.watch, job_id=job_id, after=after))[1]

    assert seen(0) is None
    beat(lease, b"one")
    assert seen(0) == (1, "image/webp", b"one")
    beat(lease, b"two\0")
    assert seen(1) == (2, "image/webp", b"two\0")
    assert seen(2) is None
    beat("lease_of_another", b"three")
    assert seen(2) is None
    if end == "finish":
        run(db.write(jobs.finish, job_id=job_id, lease=lease, assets="[]", engine_s=1.0, retention_s=60))
    elif end == "fail":
        run(db.write(jobs.fail, job_id=job_id, lease=lease, code="x", message="x", retention_s=60))
    else:
        told = {job_id: jobs.Beat(lease, 0.6)}
        run(db.write(lambda tx: tx.run("UPDATE jobs SET cancel_ms = 1 WHERE id = ?", job_id)))
        assert run(db.write(jobs.heartbeat, held=told, lease_s=60)) == (set(), {job_id})
        run(db.write(jobs.release, job_id=job_id, lease=lease, retention_s=60))
    assert run(db.read(jobs.watch, job_id=job_id, after=0))[0].completed_ms is not None
    assert seen(0) is None
    assert run(db.read(_rows)) == 0
