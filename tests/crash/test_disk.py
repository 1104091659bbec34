"""A disk that fills up under a running service, and a clock that jumps: work waits or fails cleanly, and goes on."""

import asyncio
import contextlib
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from crash.conftest import GRANTED, PATIENCE_S, Floor, only, open_account, until, waited
from crash.test_service import Service
from pixeldojo import app, clock, errors
from pixeldojo.catalogue.card import read_all
from pixeldojo.db.open import open_database
from pixeldojo.janitor import Janitor
from pixeldojo.jobs import service as jobs
from pixeldojo.jobs.view import View
from pixeldojo.ledger import service as ledger
from pixeldojo.settings import Settings

Run = Callable[[Any], Any]

_DAY_MS = 24 * 3_600_000
_RUN = "/api/v1/models/testcard/run"
_TESTCARD = next(card for card in read_all(None) if card.api_id == "testcard")


class _Room:
    """How the disk of a service is filled, and emptied again."""

    def __init__(self, service: Service, fill: Callable[[], None], free: Callable[[], None]) -> None:
        self.service, self.fill, self.free = service, fill, free


@contextlib.contextmanager
def _limited(folder: Path) -> Iterator[_Room]:
    """No file of the service may grow: what a quota does. Nobody needs to be root for it."""
    if not sys.platform.startswith("linux"):
        pytest.skip("the limits of another process can only be set on Linux")
    import resource

    service = Service(folder)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]

    def limit(size: int) -> None:
        resource.prlimit(service.pid, resource.RLIMIT_FSIZE, (size, hard))

    yield _Room(service, lambda: limit(4096), lambda: limit(hard))


@contextlib.contextmanager
def _small_disk(folder: Path) -> Iterator[_Room]:
    """A disk of its own in memory, really full; the service's log lies on it as well."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a disk")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        (folder / "data").mkdir()
        filler = folder / "filler"

        def fill() -> None:
            with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
                while file.write(b"\0" * 4096):
                    pass

        yield _Room(Service(folder / "data"), fill, filler.unlink)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(
    params=[pytest.param(_limited, id="limit"), pytest.param(_small_disk, id="disk", marks=pytest.mark.long)]
)
def room(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[_Room]:
    """A service that is not started, on a disk that can be filled."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if request.param is _limited:
        folder /= "data"
        folder.mkdir()
    with request.param(folder) as room:
        try:
            yield room
        finally:
            process = room.service.process
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()


def test_a_full_disk_refuses_submits_and_charges_nothing(room: _Room) -> None:
    service = room.service
    service.start()
    with service.client() as client:
        accepted = [service.submit(client)]
        (done,) = service.all_ended(client, accepted)
        accepted += [service.submit(client, "!slow"), service.submit(client, "!slow")]
        waited(lambda: service.job(client, accepted[1]).get("progress", 0) > 0)
        room.fill()
        refused, until_s = 0, time.monotonic() + 2.2  # by then the slow jobs end, and can't be settled
        while time.monotonic() < until_s:
            response = client.post(_RUN, json={"prompt": "bars"})
            if response.status_code == 202:  # there may be room for a little more at first
                accepted.append(response.json()["jobId"])
                continue
            refused += 1
            time.sleep(0.02)
            assert response.status_code == 500
            assert response.json()["error"]["code"] == "submission_failed"
            assert int(response.headers["retry-after"]) > 0
        assert refused > 20
        # What was made before can still be had, and the process lives.
        assert service.job(client, accepted[0])["status"] == "completed"
        assert client.get(done["output"]["image"]).status_code == 200
        assert client.get("/healthz").status_code == 200
        room.free()
        again = waited(lambda: _accepted(client))
        assert again is not None
        accepted.append(again)
        ended = service.all_ended(client, accepted)
        assert {job["status"] for job in ended} <= {"completed", "failed"}
        assert ended[-1]["status"] == "completed"
        assert client.get("/readyz").status_code == 200
    service.check(accepted, ended)


def _accepted(client: Any) -> str | None:
    response = client.post(_RUN, json={"prompt": "bars"})
    return response.json()["jobId"] if response.status_code == 202 else None


def test_a_service_that_can_not_write_is_not_ready(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    with _limited(folder) as room:
        room.service.start()
        try:
            with room.service.client() as client:
                room.fill()
                assert client.post(_RUN, json={"prompt": "bars"}).status_code == 500
                assert client.get("/readyz").status_code == 500
        finally:
            room.service.kill()


def test_a_full_database_changes_nothing_by_halves(run: Run, tmp_path: Path) -> None:
    """The same inside one process, many submits at once, until the file may grow no more."""
    settings = Settings(data_dir=tmp_path / "data", testcard=True)

    def pages(most: int) -> Callable[[Any], Any]:
        return lambda tx: tx.all(f"PRAGMA max_page_count = {most}")

    async def story() -> None:
        async with app.open_house(settings) as house:
            floor = Floor(only(house, _TESTCARD), await house.db.write(open_account), _TESTCARD)
            await floor.house.db.write(pages(1))  # it can't go below what there is
            first = [floor.submit("x" * 900) for _ in range(200)]
            outcomes = await asyncio.gather(*first, return_exceptions=True)
            accepted = [job_id for job_id in outcomes if isinstance(job_id, str)]
            assert 0 < len(accepted) < 200
            assert {type(error).__name__ for error in outcomes if not isinstance(error, str)} == {"DatabaseUnavailable"}
            await floor.settle(1_000 * len(accepted))
            await floor.house.db.write(pages(2**30))
            accepted += await asyncio.gather(*(floor.submit() for _ in range(5)))
            async with floor.working():
                for job_id in accepted:
                    assert (await floor.ended(job_id)).status == "completed"
            await floor.settle(1_000 * len(accepted))

    run(story())


# --- the clock


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_jumping_clock_loses_no_job(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    ahead_ms = 0
    real = clock.now_ms
    monkeypatch.setattr(clock, "now_ms", lambda: real() + ahead_ms)
    settings = Settings(data_dir=tmp_path / "data", testcard=True, lease_s=1.0, janitor_interval_s=0.05)

    async def story() -> None:
        nonlocal ahead_ms
        async with app.open_house(settings) as house:
            floor = Floor(only(house, _TESTCARD), await house.db.write(open_account), _TESTCARD)
            janitor = asyncio.create_task(Janitor(house).run())
            accepted = []
            async with floor.working():
                for number in range(12):
                    accepted += [await floor.submit("!slow" if number == 0 else "!raise" if number == 1 else "bars")]
                    await asyncio.sleep(dice.uniform(0, 0.15))
                    ahead_ms += dice.choice([_DAY_MS, -_DAY_MS, 0])
                ended = [await floor.ended(job_id) for job_id in accepted]
                await asyncio.sleep(0)
            assert not janitor.done()
            janitor.cancel()
            await asyncio.gather(janitor, return_exceptions=True)
        paid = 0
        for job in ended:
            assert job.completed_ms is not None
            assert job.created_ms <= (job.started_ms or job.created_ms) <= job.completed_ms
            paid += job.cost_milli - job.refunded_milli
            if job.status == "failed" and job.id != accepted[1]:
                assert job.error_code in ("expired", "worker_lost"), job
        db = open_database(settings.database)
        assert await db.scan(ledger.audit) == []
        assert await db.read(ledger.balance, account_id=floor.caller.account_id) == GRANTED - paid
        await db.close()

    run(story())


def test_a_clock_set_back_by_a_day_delays_nobody(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A job that waits for its next try and one whose worker died: both go on at once, not tomorrow."""
    ahead_ms = 0
    real = clock.now_ms
    monkeypatch.setattr(clock, "now_ms", lambda: real() + ahead_ms)
    settings = Settings(data_dir=tmp_path / "data", testcard=True, lease_s=1.0, janitor_interval_s=0.05)
    card = msgspec.structs.replace(_TESTCARD, api_id="testcard")

    async def story() -> None:
        nonlocal ahead_ms
        async with app.open_house(settings) as house:
            floor = Floor(only(house, card), await house.db.write(open_account), card)
            ahead_ms = _DAY_MS
            dead, waiting = await floor.submit(), await floor.submit()
            for _ in range(2):
                lease, claimed = await house.db.write(jobs.claim, free={"testcard": 2}, lease_s=1.0)
                for job in claimed:
                    if job.id == waiting or job.attempt == 1:
                        await house.db.write(
                            jobs.retry, job_id=job.id, lease=lease, attempt=job.attempt, code="timeout", message="no",
                            max_attempts=3, retention_s=60,
                        )  # fmt: skip
            ahead_ms = 0
            janitor = asyncio.create_task(Janitor(house).run())
            async with floor.working():
                async with asyncio.timeout(PATIENCE_S):
                    for job_id in (dead, waiting):
                        assert (await floor.ended(job_id)).status == "completed"
            janitor.cancel()
            await asyncio.gather(janitor, return_exceptions=True)
            await until(lambda: janitor.done())

    run(story())


def test_what_was_swept_stays_expired_when_the_clock_is_set_back(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its files are gone: nobody is shown links to them again."""
    ahead_ms = 0
    real = clock.now_ms
    monkeypatch.setattr(clock, "now_ms", lambda: real() + ahead_ms)

    async def story() -> None:
        nonlocal ahead_ms
        async with app.open_house(Settings(data_dir=tmp_path / "data", testcard=True)) as house:
            floor = Floor(only(house, _TESTCARD), await house.db.write(open_account), _TESTCARD)
            async with floor.working():
                job_id = await floor.submit()
                await floor.ended(job_id)
            ahead_ms = _DAY_MS + 60_000
            await Janitor(house).step()
            ahead_ms = 0
            with pytest.raises(errors.Expired):
                await house.db.read(jobs.get, caller=floor.caller, job_id=job_id)
            (job,), _ = await house.db.read(jobs.list_jobs, caller=floor.caller, limit=10)
            shown = View(signer=house.signer, base_url="").listed(job)
            assert shown["expired"]
            assert "output" not in shown

    run(story())
