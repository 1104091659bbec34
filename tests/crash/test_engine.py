"""Engines that die, hang, lie or talk nonsense: each costs its own job an attempt, and nobody else anything."""

import asyncio
import dataclasses
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import psutil  # type: ignore[import-untyped]
import pytest
import structlog

from crash.conftest import PATIENCE_S, Floor, alive, engine_pids, only, open_account, until
from pixeldojo import app, clock
from pixeldojo.catalogue.card import Card, EngineSpec, read_all
from pixeldojo.db import Database, DatabaseUnavailable, Tx
from pixeldojo.house import House
from pixeldojo.janitor import Janitor
from pixeldojo.jobs import service as jobs
from pixeldojo.settings import Settings
from pixeldojo.worker import runner
from pixeldojo.worker.runner import ChildRunner, Fault
from pixeldojo.worker.worker import Worker

pytestmark = pytest.mark.usefixtures("no_orphans")

Run = Callable[[Any], Any]
Story = Callable[[Floor], Awaitable[None]]

_COST = 1_000
_TESTCARD = next(card for card in read_all(None) if card.api_id == "testcard")


def _card(*, instances: int = 1, timeout_s: float = 5.0, options: dict[str, Any] | None = None) -> Card:
    engine = msgspec.structs.replace(_TESTCARD.engine, instances=instances, timeout_s=timeout_s, options=options or {})
    return msgspec.structs.replace(_TESTCARD, engine=engine)


class _FastClock:
    """A clock that can be moved; it moves on by itself as well."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead_ms = 0
        real = clock.now_ms
        monkeypatch.setattr(clock, "now_ms", lambda: real() + self.ahead_ms)


@pytest.fixture
def moving(monkeypatch: pytest.MonkeyPatch) -> _FastClock:
    return _FastClock(monkeypatch)


@pytest.fixture
def tell(run: Run, tmp_path: Path) -> Callable[..., None]:
    """Tell a story on a fresh floor: `tell(story, card=…, lease_s=…)`."""

    def tell(story: Story, *, card: Card | None = None, **wanted: Any) -> None:
        card = card or _card()
        settings = Settings(data_dir=tmp_path / "data", testcard=True, **wanted)

        async def live() -> None:
            async with app.open_house(settings) as house:
                caller = await house.db.write(open_account)
                await story(Floor(only(house, card), caller, card))

        run(live())

    return tell


def _kept(floor: Floor, job_id: str) -> list[str]:
    folder = floor.house.settings.data_dir / "assets" / job_id
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


# --- one attempt that comes to nothing


@pytest.mark.parametrize(
    ("prompt", "code", "says"),
    [
        ("!crash", "engine_failed", "status 13"),
        ("!kill", "engine_failed", "SIGKILL"),
        ("!raise", "engine_failed", "RuntimeError"),
        ("!hang", "timeout", "0.5 s"),
        ("!nothing", "engine_failed", "nothing"),
        ("!missing", "engine_failed", "file"),
        ("!outside", "engine_failed", "file"),
        ("!link", "engine_failed", "file"),
        ("!odd", "engine_failed", "image/bmp"),
    ],
)
def test_a_job_that_never_works_is_tried_three_times_and_refunded(
    tell: Callable[..., None], moving: _FastClock, prompt: str, code: str, says: str
) -> None:
    async def story(floor: Floor) -> None:
        moving.ahead_ms = 0
        async with floor.working():
            bad = await floor.submit(prompt, num_outputs=2)
            good = await floor.submit("bars")

            async def third() -> bool:
                job = await floor.job(bad)
                moving.ahead_ms += 1_000 if job.status == "pending" and job.attempt == 2 else 0  # its wait is over
                return job.completed_ms is not None

            await until(third)
            failed, done = await floor.job(bad), await floor.ended(good)
        assert (failed.status, failed.error_code, failed.attempt) == ("failed", code, 3)
        assert failed.error_message is not None
        assert says in failed.error_message
        assert failed.error_message.endswith("(after 3 attempts)")
        assert failed.refunded_milli == failed.cost_milli == 2 * _COST
        assert (done.status, done.attempt) == ("completed", 1)
        assert _kept(floor, bad) == []
        assert _kept(floor, good) == ["0.png"]
        await floor.settle(_COST)

    tell(story, card=_card(timeout_s=0.5))


def test_a_crash_is_logged_where_it_was_and_without_the_prompt(
    tell: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    async def story(floor: Floor) -> None:
        async with floor.working():
            await floor.ended(await floor.submit("!raise secret words"))

    with structlog.testing.capture_logs() as lines:
        tell(story, card=_card(timeout_s=5))
    crashes = [line for line in lines if line["event"] == "engine_crashed"]
    assert len(crashes) == 3
    assert crashes[0]["error"] == "RuntimeError"
    assert re.search(r"testcard\.py:\d+ generate > \S+testcard\.py:\d+ _trouble$", crashes[0]["trace"])
    told = [line for line in lines if line["log_level"] != "debug"]
    assert "secret words" not in repr(told) + "".join(capfd.readouterr())


def test_what_an_engine_prints_is_for_who_debugs(tell: Callable[..., None], capfd: pytest.CaptureFixture[str]) -> None:
    async def story(floor: Floor) -> None:
        async with floor.working():
            assert (await floor.ended(await floor.submit("!print"))).status == "completed"

    with structlog.testing.capture_logs() as lines:
        tell(story, card=_card())
    assert capfd.readouterr() == ("", "")
    printed = [line for line in lines if line["event"] == "engine_prints"]
    assert {line["log_level"] for line in printed} == {"debug"}
    assert "not JSON at all" in "".join(line["text"] for line in printed)


def test_a_refusal_is_final_at_once(tell: Callable[..., None]) -> None:
    async def story(floor: Floor) -> None:
        async with floor.working():
            job = await floor.ended(await floor.submit("!refuse"))
        assert (job.status, job.error_code, job.attempt) == ("failed", "validation_error", 1)
        assert job.error_message == "The prompt asks to be refused."
        await floor.settle(0)

    tell(story)


def test_an_engine_that_prints_does_not_break_the_line(tell: Callable[..., None]) -> None:
    async def story(floor: Floor) -> None:
        async with floor.working():
            job = await floor.ended(await floor.submit("!print"))
        assert (job.status, job.attempt) == ("completed", 1)
        assert _kept(floor, job.id) == ["0.png"]

    tell(story)


def test_a_child_killed_in_the_middle_of_a_job_is_replaced(tell: Callable[..., None]) -> None:
    async def story(floor: Floor) -> None:
        async with floor.working():
            job_id = await floor.submit("!slow")

            async def half_way() -> bool:
                return (await floor.job(job_id)).progress_ppm > 0

            await until(half_way)
            (pid,) = engine_pids()
            os.kill(pid, signal.SIGKILL)
            job = await floor.ended(job_id)
            assert engine_pids() != {pid}
        assert (job.status, job.attempt) == ("completed", 2)
        await floor.settle(_COST)

    tell(story)


def test_a_child_killed_while_idle_costs_no_job(tell: Callable[..., None]) -> None:
    async def story(floor: Floor) -> None:
        async with floor.working():
            await floor.ended(await floor.submit())
            (pid,) = engine_pids()
            os.kill(pid, signal.SIGKILL)
            await until(lambda: not alive(pid))
            await asyncio.sleep(0.05)  # the event loop hears of it
            job = await floor.ended(await floor.submit())
        assert (job.status, job.attempt) == ("completed", 1)

    tell(story)


def test_an_engine_that_does_not_load_fails_its_jobs(tell: Callable[..., None], moving: _FastClock) -> None:
    async def story(floor: Floor) -> None:
        async with floor.working():
            job = await floor.ended(await floor.submit())
        assert (job.status, job.error_code, job.attempt) == ("failed", "engine_failed", 2)
        assert "did not load (TypeError)" in (job.error_message or "")
        await floor.settle(0)

    tell(story, card=_card(options={"no_such_option": 1}), max_attempts=2)


# --- nonsense on the pipe

_READY = 'print(\'{"say": "ready"}\', flush=True)\nsys.stdin.readline()\n'


@pytest.mark.parametrize(
    "script",
    [
        "print('Segmentation fault', flush=True)\nsys.stdin.read()\n",
        'print(\'{"say": "done"}\', flush=True)\nsys.stdin.read()\n',
        _READY + "print('not JSON', flush=True)\nsys.stdin.read()\n",
        _READY + "print('[1, 2]', flush=True)\nsys.stdin.read()\n",
        _READY + 'print(\'{"say": "progress", "fraction": null}\', flush=True)\nsys.stdin.read()\n',
        _READY + "sys.stdout.buffer.write(b'\\xff\\xfe\\n')\nsys.stdout.flush()\nsys.stdin.read()\n",
        _READY + 'print(\'{"say": "done", "outputs": [{"file": 1}]}\', flush=True)\nsys.stdin.read()\n',
        _READY + 'print(\'{"say": "what"}\', flush=True)\nsys.stdin.read()\n',
        _READY + "sys.stdout.write('x' * 2**20)\nsys.stdout.flush()\nsys.stdin.read()\n",
        _READY + 'sys.stdout.write(\'{"say": "do\')\nsys.stdout.flush()\n',
        _READY + "import subprocess\nsubprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL)\nsys.exit(3)\n",
    ],
    ids=["no-ready", "done-first", "text", "list", "null", "bytes", "output", "unknown", "endless", "half", "helper"],
)
def test_garbage_is_a_failed_attempt(
    tell: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str
) -> None:
    child = tmp_path / "child"
    child.write_text(f"#!{sys.executable}\nimport sys\n{script}")
    child.chmod(child.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(runner, "sys", SimpleNamespace(executable=str(child)))
    monkeypatch.setattr(runner, "_LINE_BYTES", 2**12)  # far less than a pipe still holds after a kill

    async def story(floor: Floor) -> None:
        async with floor.working():
            job = await floor.ended(await floor.submit())
        assert (job.status, job.error_code) == ("failed", "engine_failed")
        assert not [each for each in psutil.Process().children() if str(child) in each.cmdline()]
        await floor.settle(0)

    tell(story, max_attempts=1)


def test_a_program_that_can_not_be_started_is_a_failed_attempt(
    tell: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(runner, "sys", SimpleNamespace(executable=str(tmp_path / "no-such-program")))

    async def story(floor: Floor) -> None:
        async with floor.working():
            job = await floor.ended(await floor.submit())
        assert (job.status, job.error_code) == ("failed", "engine_failed")
        assert str(tmp_path) not in (job.error_message or "")
        await floor.settle(0)

    tell(story, max_attempts=1)


def test_a_model_that_never_loads_is_given_up(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    child = tmp_path / "child"
    child.write_text(f"#!{sys.executable}\nimport sys\nsys.stdin.read()\n")
    child.chmod(child.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(runner, "sys", SimpleNamespace(executable=str(child)))
    monkeypatch.setattr(runner, "_LOAD_TIMEOUT_S", 0.2)
    slot = ChildRunner(EngineSpec(family="testcard"), folder=tmp_path / "out")
    with pytest.raises(Fault, match="load in time"):
        run(slot.start())
    assert slot.pid is None


# --- the worker stops


@pytest.mark.parametrize("prompt", ["!slow", "!hang"])
def test_a_worker_that_is_stopped_hands_its_jobs_back(tell: Callable[..., None], prompt: str) -> None:
    async def story(floor: Floor) -> None:
        async with floor.working():
            ids = [await floor.submit(each) for each in (prompt, prompt, "bars")]
            await floor.begun(ids[0])
            await floor.begun(ids[1])
        for job_id in ids:
            job = await floor.job(job_id)
            assert (job.status, job.attempt, job.progress_ppm) == ("pending", 0, 0)
        await floor.settle(3 * _COST)
        if prompt == "!slow":
            async with floor.working():
                assert [(await floor.ended(job_id)).attempt for job_id in ids] == [1, 1, 1]

    tell(story, card=_card(instances=2))


@pytest.mark.parametrize("yields", range(12))
def test_a_stop_is_heard_at_every_moment(tell: Callable[..., None], yields: int) -> None:
    """A wake-up and the stop may come together: neither swallows the other."""

    async def story(floor: Floor) -> None:
        async with floor.working() as worker:
            await floor.ended(await floor.submit())
            worker._event.set()
            for _ in range(yields):
                await asyncio.sleep(0)

    tell(story)


@pytest.mark.parametrize("wait_s", [0.0, 0.002, 0.01, 0.05, 0.1, 0.2])
def test_a_stop_is_heard_while_engines_load(tell: Callable[..., None], wait_s: float) -> None:
    async def story(floor: Floor) -> None:
        job_id = await floor.submit("!hang")
        async with floor.working():
            await asyncio.sleep(wait_s)
        assert ((await floor.job(job_id)).status, (await floor.job(job_id)).attempt) == ("pending", 0)

    tell(story, card=_card(instances=2))


class _Fading:
    """A real database whose next writes come to nothing, later than they were asked for."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.error: Exception | None = None
        self.asked = 0

    async def write(self, fn: Any, /, *args: Any, **more: Any) -> Any:
        if self.error is not None:
            self.asked += 1
            await asyncio.sleep(0.05)
            raise self.error
        return await self._db.write(fn, *args, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


def _fading(floor: Floor) -> tuple[_Fading, House]:
    fading: Any = _Fading(floor.house.db)
    return fading, dataclasses.replace(floor.house, db=fading)


def test_a_stop_is_heard_while_the_database_is_away(tell: Callable[..., None]) -> None:
    async def story(floor: Floor) -> None:
        fading, house = _fading(floor)
        async with Floor(house, floor.caller, floor.card).working():
            await asyncio.sleep(0.05)
            fading.error = DatabaseUnavailable("the disk is full")
            await until(lambda: fading.asked)

    tell(story)


def test_the_loops_outlive_whatever_the_database_raises(tell: Callable[..., None]) -> None:
    async def story(floor: Floor) -> None:
        fading, house = _fading(floor)
        janitor = asyncio.create_task(Janitor(house).run())
        async with Floor(house, floor.caller, floor.card).working():
            slow = await floor.submit("!slow")
            await floor.begun(slow)
            for error in (DatabaseUnavailable("away"), RuntimeError("something new")):
                fading.error, fading.asked = error, 0
                await until(lambda: fading.asked > 6)
            fading.error = None
            assert (await floor.ended(await floor.submit())).status == "completed"
            slow_job = await floor.ended(slow)
            assert slow_job.status == "completed"
            assert not janitor.done()
        janitor.cancel()
        await asyncio.gather(janitor, return_exceptions=True)
        await floor.settle(2 * _COST)

    tell(story, card=_card(instances=2), lease_s=5.0, janitor_interval_s=0.01)


# --- leases that run out under a worker that is still there


def test_a_job_rescued_from_a_living_worker_is_done_once(tell: Callable[..., None], moving: _FastClock) -> None:
    """The same worker gets the job again, in its other slot, before it hears that the lease was lost."""

    async def story(floor: Floor) -> None:
        async with floor.working() as worker:
            job_id = await floor.submit("!slow")
            await floor.begun(job_id)
            await until(lambda: job_id in worker._held)
            first = worker._held[job_id]
            await until(lambda: first.making is not None and first.progress > 0)
            moving.ahead_ms += 60_000
            rescued = await floor.house.db.write(jobs.rescue_stale, max_attempts=3, retention_s=60)
            assert rescued == 1
            await until(lambda: worker._held.get(job_id, first) is not first)
            second = worker._held[job_id]
            assert first.making is not None
            await until(first.making.done)
            await asyncio.sleep(0.02)
            assert worker._held[job_id] is second, "the new hold went with the old one"
            job = await floor.ended(job_id)
            await worker.idle()
            assert worker._held == {}
        assert (job.status, job.attempt) == ("completed", 2)
        assert _kept(floor, job_id) == ["0.png"]
        await floor.settle(_COST)

    tell(story, card=_card(instances=2), lease_s=30.0)


def test_a_worker_that_loses_a_lease_ends_the_work(tell: Callable[..., None], moving: _FastClock) -> None:
    async def story(floor: Floor) -> None:
        async with floor.working() as worker:
            job_id = await floor.submit("!hang")
            await until(lambda: job_id in worker._held and worker._held[job_id].making)
            pids = engine_pids()
            assert pids
            moving.ahead_ms += 60_000
            await floor.house.db.write(jobs.rescue_stale, max_attempts=1, retention_s=60)
            await until(lambda: not any(alive(pid) for pid in pids))
            assert (await floor.ended(await floor.submit())).status == "completed"
        job = await floor.job(job_id)
        assert (job.status, job.error_code) == ("failed", "worker_lost")
        await floor.settle(_COST)

    tell(story, card=_card(timeout_s=60), lease_s=1.0)


# --- what a killed worker leaves lying about


def test_the_folders_of_dead_workers_are_removed(tell: Callable[..., None]) -> None:
    async def story(floor: Floor) -> None:
        root = floor.house.settings.data_dir / "work"
        living = Worker(floor.house, [])
        dead = root / "worker-dead"
        (dead / "testcard-0" / "out").mkdir(parents=True)
        (dead / "testcard-0" / "out" / "0.png").write_bytes(b"x" * 100)
        Worker(floor.house, [])
        assert not dead.exists()
        assert living._folder in floor.work_folders, "that one still lives"

    tell(story)


def test_a_half_written_file_goes_with_its_job(tell: Callable[..., None]) -> None:
    async def story(floor: Floor) -> None:
        async with floor.working():
            job_id = await floor.submit()
            await floor.ended(job_id)
        folder = floor.house.settings.data_dir / "assets" / job_id
        (folder / "1.png#1").write_bytes(b"the service was killed while it wrote this")
        await floor.house.files.remove_job(job_id)
        assert not folder.exists()
        assert await floor.house.files.remove_job(job_id) == 0

    tell(story)


def test_a_disk_that_fails_where_engines_work_is_told_as_such(tell: Callable[..., None]) -> None:
    async def story(floor: Floor) -> None:
        async with floor.working():
            place = floor.work_folders[0] / "testcard-0"
            place.mkdir(exist_ok=True)
            (place / "out").write_bytes(b"")  # in the place of the folder for results
            job = await floor.ended(await floor.submit())
            assert job.error_code == "storage_failed"
        await floor.settle(0)

    tell(story, max_attempts=1)


def test_files_that_come_after_the_sweep_of_their_job_are_cleared_away(
    tell: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that stood still for so long that its job was given up, ended and removed by others."""

    def end(tx: Tx, job_id: str) -> None:
        row = tx.one("SELECT lease FROM jobs WHERE id = ?", job_id)
        assert row is not None
        jobs.fail(tx, job_id=job_id, lease=row[0], code="worker_lost", message="gone", retention_s=0)
        jobs.mark_swept(tx, job_id=job_id)

    async def story(floor: Floor) -> None:
        files, put = floor.house.files, floor.house.files.put

        async def late(name: str, path: Path) -> int:
            await floor.house.db.write(end, name.partition("/")[0])
            return await put(name, path)

        monkeypatch.setattr(files, "put", late)
        async with floor.working() as worker:
            job_id = await floor.submit()
            await floor.ended(job_id)
            await worker.idle()
        assert not (floor.house.settings.data_dir / "assets" / job_id).exists()
        await floor.settle(0)

    tell(story)


def test_an_engine_whose_end_was_not_yet_noticed_fails_its_attempt_alone(tmp_path: Path) -> None:
    """Under uvloop, writing to a pipe that is closed raises: of a run it is a fault, of a cancel it is nothing."""
    uvloop = pytest.importorskip("uvloop")

    async def story() -> None:
        child = ChildRunner(_card().engine, folder=tmp_path)
        await child.start()
        process = child._process
        assert process is not None and process.stdin is not None and child.pid is not None
        os.kill(child.pid, signal.SIGSTOP)  # it must not see the end of its input before it is killed
        process.stdin.transport.abort()
        for _ in range(3):  # the pipe is closed in a later turn of the loop
            await asyncio.sleep(0)
        os.kill(child.pid, signal.SIGKILL)
        child.cancel()
        with pytest.raises(Fault, match="was killed"):
            await child.generate({}, {}, on_progress=lambda _: None, on_preview=lambda _: None)

    uvloop.run(story())


def test_an_engine_that_nobody_listens_to_any_more_ends_quietly() -> None:
    command = [sys.executable, "-m", "pixeldojo.engines.child", "testcard", "{}"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as child:
        assert child.stdin is not None and child.stdout is not None and child.stderr is not None
        assert b"ready" in child.stdout.readline()
        child.stdout.close()
        message = {"op": "run", "params": {"prompt": "!refuse"}, "inputs": {}, "outDir": "."}
        child.stdin.write(msgspec.json.encode(message) + b"\n")
        child.stdin.flush()
        assert child.wait(PATIENCE_S) == 0
        assert child.stderr.read() == b""
