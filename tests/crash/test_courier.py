"""A courier that dies or is stopped in the middle of its work: every webhook arrives, under one id, with one text."""

import asyncio
import ipaddress
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pixeldojo.db
from crash.conftest import open_account, until
from pixeldojo import app, clock
from pixeldojo.courier import Courier
from pixeldojo.db import Tx
from pixeldojo.house import House
from pixeldojo.jobs import service as jobs
from pixeldojo.settings import Settings
from postbox import Postbox, hang

COUNT = 120
HOME = (ipaddress.ip_network("127.0.0.0/8"),)


def _settings(folder: Path) -> Settings:
    return Settings(data_dir=folder, testcard=True, allow_networks=HOME, webhook_timeout_s=5.0)


def _fill(tx: Tx, house: House, url: str, count: int) -> list[str]:
    """So many jobs that have just failed, each with a webhook."""
    caller, ids = open_account(tx), []
    for number in range(count):
        body = {"prompt": "x", "webhook_url": url.format(number % 7)}
        order = house.catalogue.order("testcard", body)
        ids.append(jobs.submit(tx, caller=caller, order=order, retention_s=3600).job.id)
        jobs.cancel(tx, caller=caller, job_id=ids[-1], retention_s=3600)
    return ids


async def _states(house: House) -> dict[str, int]:
    rows = await house.db.scan(lambda tx: tx.all("SELECT status, COUNT(*) FROM deliveries GROUP BY status"))
    return dict(rows)


def _assert_each_arrived_under_one_id(box: Postbox, ids: list[str]) -> None:
    by_job: dict[str, set[tuple[str, bytes]]] = {}
    for each in box.received:
        by_job.setdefault(each.event["data"]["jobId"], set()).add((each.id, each.body))
    assert set(by_job) == set(ids)
    assert all(len(told) == 1 for told in by_job.values())
    assert len(set.union(*by_job.values())) == len(ids)


@pytest.fixture
def courier_process(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A service on the test's folder that does nothing but deliver."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIXELDOJO_")} | {
        "PYTHONPATH": str(Path(pixeldojo.__file__).parents[1]), "PIXELDOJO_DATA_DIR": str(tmp_path),
        "PIXELDOJO_ROLES": "courier", "PIXELDOJO_ALLOW_NETWORKS": "127.0.0.0/8", "PIXELDOJO_PORT": "0",
        "PIXELDOJO_WEBHOOK_TIMEOUT_S": "5",
    }  # fmt: skip
    process = subprocess.Popen([sys.executable, "-m", "pixeldojo", "serve"], env=environment, stdout=subprocess.DEVNULL)
    yield process
    process.kill()
    process.wait(10)


def test_a_killed_courier_loses_nothing(
    tmp_path: Path, courier_process: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slowly(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.02)
        writer.write(b"HTTP/1.1 204 No\r\n\r\n")

    async def work() -> None:
        async with app.open_house(_settings(tmp_path)) as house, Postbox() as box:
            box.answers |= {f"/{number}": slowly for number in range(6)} | {"/6": hang}
            ids = await house.db.write(_fill, house, box.url("/{}"), COUNT)
            await box.until(COUNT // 2, within_s=20)
            courier_process.send_signal(signal.SIGKILL)
            courier_process.wait(10)
            states = await _states(house)
            assert states.get("sending", 0) >= 1, states
            box.answers["/6"] = 204
            courier = Courier(house)
            while await courier.step():  # what was not begun goes on at once; what was, when its lease has run out
                pass
            assert set(await _states(house)) <= {"delivered", "sending"}
            later = clock.now_ms() + 60_000
            monkeypatch.setattr(clock, "now_ms", lambda: later)
            while await courier.step():
                pass
            assert await _states(house) == {"delivered": COUNT}
            _assert_each_arrived_under_one_id(box, ids)
            assert len(box.received) > COUNT

    asyncio.run(work())


def test_a_stopped_courier_hands_back_what_it_holds(tmp_path: Path) -> None:
    async def work() -> None:
        async with app.open_house(_settings(tmp_path)) as house, Postbox() as box:
            box.answers |= {f"/{number}": hang for number in range(4)}
            ids = await house.db.write(_fill, house, box.url("/{}"), 40)
            task = asyncio.create_task(Courier(house).run())
            await box.until(40)
            task.cancel()
            done, _ = await asyncio.wait([task], timeout=5)
            assert done and task.cancelled()
            states = await _states(house)
            assert set(states) == {"due", "delivered"}
            box.answers.clear()
            fresh = asyncio.create_task(Courier(house).run())  # nobody waits for a lease

            async def delivered() -> Any:
                return await _states(house) == {"delivered": 40}

            await until(delivered)
            fresh.cancel()
            await asyncio.gather(fresh, return_exceptions=True)
            _assert_each_arrived_under_one_id(box, ids)

    asyncio.run(work())


def test_a_courier_outlives_a_database_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async with app.open_house(_settings(tmp_path)) as house, Postbox() as box:
            courier, write = Courier(house), house.db.write
            failures = 6

            async def failing(*arguments: Any, **more: Any) -> Any:
                nonlocal failures
                failures -= 1
                if failures >= 0 and failures % 2:
                    raise pixeldojo.db.DatabaseUnavailable("the disk is full")
                return await write(*arguments, **more)

            monkeypatch.setattr("pixeldojo.courier._TURN_S", 0.02)
            ids = await house.db.write(_fill, house, box.url("/{}"), 20)
            monkeypatch.setattr(house.db, "write", failing)
            task = asyncio.create_task(courier.run())

            async def delivered() -> Any:
                return await _states(house) == {"delivered": 20}

            await until(delivered)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            _assert_each_arrived_under_one_id(box, ids)

    asyncio.run(work())
