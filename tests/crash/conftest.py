"""What the crash tests share: somebody with credits, jobs to submit, and an eye on the processes.

Nothing here is replaced by a stand-in: the engines are real child processes, and they really die.
"""

import asyncio
import contextlib
import dataclasses
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psutil  # type: ignore[import-untyped]
import pytest

from pixeldojo.accounts import service as accounts
from pixeldojo.accounts.service import Caller
from pixeldojo.catalogue.card import Card
from pixeldojo.catalogue.service import Catalogue
from pixeldojo.db import Tx
from pixeldojo.house import House
from pixeldojo.jobs import service as jobs
from pixeldojo.jobs import store as jobs_store
from pixeldojo.jobs.store import Job
from pixeldojo.ledger import service as ledger
from pixeldojo.worker import worker as worker_room
from pixeldojo.worker.worker import Worker

T = TypeVar("T")

GRANTED = 1_000_000
PATIENCE_S = 20.0


@pytest.fixture(autouse=True)
def quick_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that waits for its next try is looked for at once, not within a second."""
    monkeypatch.setattr(worker_room, "_POLL_S", 0.02)


async def until(check: Callable[[], Any], *, patience_s: float = PATIENCE_S) -> Any:
    """The first true value of `check`, which may be a coroutine function."""
    async with asyncio.timeout(patience_s):
        while True:
            found = check()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.01)


def waited(check: Callable[[], T], *, patience_s: float = PATIENCE_S, pause_s: float = 0.02) -> T:
    """The first true value of `check`, from a test that has no event loop."""
    end = time.monotonic() + patience_s
    while True:
        found = check()
        if found:
            return found
        if time.monotonic() > end:
            raise TimeoutError(f"waited {patience_s:g} s in vain")
        time.sleep(pause_s)


def alive(pid: int) -> bool:
    """Whether the process still runs; one that ended and was not waited for does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


_others: set[int] = set()  # engines of services that outlive a test


def engine_pids(parent: int | None = None) -> set[int]:
    """The engines that the test (or the process `parent`) has started."""
    found = set()
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(parent).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if "pixeldojo.engines.child" in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                    found.add(child.pid)
    return found - _others


def open_account(tx: Tx) -> Caller:
    """Somebody new, with credits and a key."""
    account = accounts.create_account(tx, name=secrets.token_hex(8))
    ledger.grant(tx, account_id=account.id, amount_milli=GRANTED)
    key, _ = accounts.create_key(tx, account_id=account.id, name="test")
    return Caller(account.id, key.id, None)


class Floor:
    """An open house, a caller in it, and what happened to the caller's jobs."""

    def __init__(self, house: House, caller: Caller, card: Card) -> None:
        self.house, self.caller, self.card = house, caller, card

    async def submit(self, prompt: str = "bars", **more: Any) -> str:
        order = self.house.catalogue.order(self.card.api_id, {"prompt": prompt, **more})
        receipt = await self.house.db.write(
            jobs.submit, caller=self.caller, order=order, retention_s=self.house.settings.retention_s
        )
        return receipt.job.id

    async def job(self, job_id: str) -> Job:
        job = await self.house.db.read(jobs_store.get, job_id)
        assert job is not None
        return job

    async def ended(self, job_id: str, *, patience_s: float = PATIENCE_S) -> Job:
        """The job once it is completed or failed."""

        async def look() -> Job | None:
            job = await self.job(job_id)
            return job if job.completed_ms is not None else None

        found: Job = await until(look, patience_s=patience_s)
        return found

    async def begun(self, job_id: str) -> Job:
        """The job once a worker has it."""

        async def look() -> Job | None:
            job = await self.job(job_id)
            return job if job.status == "processing" else None

        found: Job = await until(look)
        return found

    async def settle(self, expected: int) -> None:
        """The books agree, and the caller has paid `expected` milli-credits in all."""
        assert await self.house.db.scan(ledger.audit) == []
        assert await self.house.db.read(ledger.balance, account_id=self.caller.account_id) == GRANTED - expected

    @property
    def work_folders(self) -> list[Path]:
        return [path for path in (self.house.settings.data_dir / "work").iterdir() if path.is_dir()]

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[Worker]:
        """A worker until the block ends; nothing of it is left then."""
        worker = Worker(self.house, self.house.catalogue.cards)
        task = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            pids = engine_pids()
            task.cancel()
            done, _ = await asyncio.wait([task], timeout=PATIENCE_S)
            assert done, "the worker does not stop"
            assert task.cancelled(), task.exception()
            assert not [pid for pid in pids if alive(pid)]
            assert self.work_folders == []


@pytest.fixture(autouse=True)
def own_engines() -> None:
    """`engine_pids` means those that the test starts."""
    _others.clear()
    _others.update(engine_pids())


@pytest.fixture
def no_orphans(own_engines: None) -> Iterator[None]:
    """No engine outlives the test."""
    yield
    waited(lambda: not engine_pids(), patience_s=5)


def only(house: House, card: Card) -> House:
    """The same house with one model in it."""
    return dataclasses.replace(house, catalogue=Catalogue([card]))
