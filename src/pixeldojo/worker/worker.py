"""The worker's loop: free slot → claim → run → keep the files → finish. It restarts by asking the table.

Whatever goes wrong with one job is settled for that job alone: retried within its attempts, then failed and
refunded. When the worker is stopped it hands its jobs back; when it is killed, their leases run out.
"""

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import structlog

from pixeldojo.assets import files
from pixeldojo.catalogue.card import Card
from pixeldojo.db import DatabaseUnavailable
from pixeldojo.engines.engine import Output
from pixeldojo.house import House
from pixeldojo.jobs import service as jobs
from pixeldojo.jobs.store import Job
from pixeldojo.worker import inputs
from pixeldojo.worker.runner import ChildRunner, Fault

_POLL_S = 1.0  # only matters when a wake-up was lost or another process made the row
_PROGRESS_S = 0.25
_AHEAD_S = 0.02  # of a quick model, this much work is claimed ahead of its seats
_AHEAD_MOST = 16
_log = structlog.get_logger()


_Made = tuple[list[dict[str, Any]], float]  # the assets, and the engine's own seconds


class _Held:
    """A job this worker holds: its lease, how far it is, and its two tasks, once they exist."""

    __slots__ = ("concluding", "job", "lease", "making", "progress", "told")

    def __init__(self, job: Job, lease: str) -> None:
        self.job, self.lease = job, lease
        self.progress = self.told = 0.0
        self.making: asyncio.Task[_Made] | None = None
        self.concluding: asyncio.Task[None] | None = None

    @property
    def tasks(self) -> list[asyncio.Task[Any]]:
        return [task for task in (self.making, self.concluding) if task is not None]


class _Line:
    """The jobs of one model on their way through its seats (a seat is one engine process)."""

    def __init__(self, card: Card) -> None:
        self.card = card
        self.queue: asyncio.Queue[_Held] = asyncio.Queue()
        self.busy = 0
        self.mean_s = float("inf")

    def took(self, seconds: float) -> None:
        """Learn how long a job of this model takes."""
        self.mean_s = seconds if self.mean_s == float("inf") else 0.9 * self.mean_s + 0.1 * seconds

    def wanted(self) -> int:
        """How many jobs to claim now: one for each free seat and, of a quick model, a few ahead."""
        ahead = min(int(_AHEAD_S / max(self.mean_s, 1e-4)), _AHEAD_MOST)
        missing = self.card.engine.instances - self.busy + ahead - self.queue.qsize()
        return missing if missing > ahead // 2 else 0


class Worker:
    """Runs the jobs of every card it is given."""

    def __init__(self, house: House, cards: list[Card]) -> None:
        self._house = house
        self._lines = {card.api_id: _Line(card) for card in cards}
        root = house.settings.data_dir / "work"
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = Path(tempfile.mkdtemp(prefix="worker-", dir=root))
        self._held: dict[str, _Held] = {}
        self._event = house.db.event(jobs.CHANNEL)
        self._seats: list[asyncio.Task[None]] = []
        self._runners: list[ChildRunner] = []

    async def run(self) -> None:
        """Work until cancelled; then hand back what is unfinished."""
        beat = asyncio.create_task(self._beat())
        try:
            while True:
                self._event.clear()
                if not await self.step():
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._event.wait(), _POLL_S)
        finally:
            beat.cancel()
            await asyncio.gather(beat, return_exceptions=True)
            await self.stop()

    async def step(self) -> bool:
        """Claim what the seats can take. False when there was nothing to do."""
        if not self._seats:
            self._open_seats()
        free = {model: count for model, line in self._lines.items() if (count := line.wanted())}
        if not free:
            return False
        try:
            claimed = await self._claim(free)
        except DatabaseUnavailable as error:
            _log.error("claim_failed", error=str(error))
            await asyncio.sleep(_POLL_S)
            return False
        for held in claimed:
            self._lines[held.job.model].queue.put_nowait(held)
        return bool(claimed)

    async def _claim(self, free: dict[str, int]) -> list[_Held]:
        claiming = asyncio.ensure_future(
            self._house.db.write(jobs.claim, free=free, lease_s=self._house.settings.lease_s)
        )
        try:
            lease, claimed = await asyncio.shield(claiming)
        except asyncio.CancelledError:  # the transaction goes on: what it claims must be handed back
            lease, claimed = await claiming
            self._held |= {job.id: _Held(job, lease) for job in claimed}
            raise
        new = [_Held(job, lease) for job in claimed]
        self._held |= {held.job.id: held for held in new}
        return new

    async def idle(self) -> None:
        """Wait until nothing is held."""
        while self._held:  # noqa: ASYNC110 - for tests; not worth an event
            await asyncio.sleep(0.002)

    def _open_seats(self) -> None:
        for model, line in self._lines.items():
            for number in range(line.card.engine.instances):
                runner = ChildRunner(line.card.engine, folder=self._folder / f"{model}-{number}" / "out")
                self._runners.append(runner)
                self._seats.append(asyncio.create_task(self._seat(line, runner)))

    async def _seat(self, line: _Line, runner: ChildRunner) -> None:
        """Load the engine, then make one job after another."""
        try:
            await runner.start()
        except Fault as fault:  # the first job tries again, and fails with this reason
            _log.error("engine_did_not_load", model=line.card.api_id, error=fault.message)
        while True:
            held = await line.queue.get()
            if self._held.get(held.job.id) is not held:
                continue  # its lease was lost while it waited
            line.busy += 1
            started = time.monotonic()
            held.making = asyncio.create_task(self._make(held, runner))
            await asyncio.wait({held.making})
            line.took(time.monotonic() - started)
            line.busy -= 1
            held.concluding = asyncio.create_task(self._conclude(held, held.making))  # the seat is free again
            self._event.set()

    async def _conclude(self, held: _Held, making: "asyncio.Task[_Made]") -> None:
        """Write down what came of an attempt."""
        job = held.job
        try:
            if making.cancelled():
                return  # the lease was lost
            assets, engine_s = making.result()
            await self._finish(held, assets, engine_s)
        except Fault as fault:
            await self._settle(held, fault)
        except files.FilesUnavailable as error:
            _log.error("storage_failed", job=job.id, error=str(error))
            await self._settle(held, Fault("storage_failed", "The result could not be stored"))
        except DatabaseUnavailable as error:
            _log.error("job_not_settled", job=job.id, error=str(error))  # the lease runs out; then it is tried again
        except Exception:
            _log.exception("worker_fault", job=job.id)
            await self._settle(held, Fault("internal_error", "Something went wrong on our side"))
        finally:
            if self._held.get(job.id) is held:
                del self._held[job.id]

    async def _make(self, held: _Held, runner: ChildRunner) -> _Made:
        job, card = held.job, self._lines[held.job.model].card
        params = msgspec.json.decode(job.input)
        wanted = {name: params[name] for name in card.pictures if name in params}
        paths: Mapping[str, Path] = {}
        if wanted:
            carried = await self._house.db.scan(jobs.inputs, job_id=job.id)
            folder = runner.folder.parent / "in"
            paths = await inputs.fetch(wanted, held=carried, folder=folder, settings=self._house.settings)

        def on_progress(fraction: float) -> None:
            held.progress = fraction

        outputs, seconds = await runner.generate(params, paths, on_progress)
        if not outputs:
            raise Fault("engine_failed", "The model made nothing")
        return [await self._keep(job, runner, index, output) for index, output in enumerate(outputs)], seconds

    async def _keep(self, job: Job, runner: ChildRunner, index: int, output: Output) -> dict[str, Any]:
        key = files.key(job.id, index=index, content_type=output.content_type)
        size = await self._house.files.put(key, runner.folder / Path(output.file).name)
        asset = {
            "key": key,
            "type": output.type,
            "contentType": output.content_type,
            "width": output.width,
            "height": output.height,
            "bytes": size,
            "seed": output.seed,
        }
        if output.duration_s is not None:
            asset["durationSeconds"] = output.duration_s
        return asset

    async def _finish(self, held: _Held, assets: list[dict[str, Any]], engine_s: float) -> None:
        done = await self._house.db.write(
            jobs.finish,
            job_id=held.job.id,
            lease=held.lease,
            assets=msgspec.json.encode(assets).decode(),
            engine_s=engine_s,
            retention_s=self._house.settings.retention_s,
        )
        if done is None:
            _log.warning("lease_lost", job=held.job.id)

    async def _settle(self, held: _Held, fault: Fault) -> None:
        job, settings = held.job, self._house.settings
        _log.warning("attempt_failed", job=job.id, model=job.model, attempt=job.attempt, code=fault.code)
        try:
            if fault.permanent:
                await self._house.db.write(
                    jobs.fail, job_id=job.id, lease=held.lease, code=fault.code, message=fault.message,
                    retention_s=settings.retention_s,
                )  # fmt: skip
            else:
                await self._house.db.write(
                    jobs.retry, job_id=job.id, lease=held.lease, attempt=job.attempt, code=fault.code,
                    message=fault.message, max_attempts=settings.max_attempts, retention_s=settings.retention_s,
                )  # fmt: skip
        except DatabaseUnavailable as error:
            _log.error("job_not_settled", job=job.id, error=str(error))

    async def _beat(self) -> None:
        """Keep the leases and write progress down, in one small transaction for all jobs held."""
        lease_s = self._house.settings.lease_s
        ticks = max(1, int(lease_s / 4 / _PROGRESS_S))
        tick = 0
        while True:
            await asyncio.sleep(_PROGRESS_S)
            tick += 1
            due = {
                job_id: (held.lease, held.progress)
                for job_id, held in self._held.items()
                if tick % ticks == 0 or held.progress != held.told
            }
            if not due:
                continue
            try:
                lost = await self._house.db.write(jobs.heartbeat, held=due, lease_s=lease_s)
            except DatabaseUnavailable as error:
                _log.error("heartbeat_failed", error=str(error))
                continue
            for job_id, (_, progress) in due.items():
                held = self._held.get(job_id)
                if held is None:
                    continue
                held.told = progress
                if job_id in lost and held.concluding is None:
                    _log.warning("lease_lost", job=job_id)
                    del self._held[job_id]
                    if held.making is not None:
                        held.making.cancel()  # its child is killed with it

    async def stop(self) -> None:
        """End every engine at once and hand back the jobs that are unfinished."""
        for seat in self._seats:
            seat.cancel()
        await asyncio.gather(*self._seats, return_exceptions=True)
        for held in self._held.values():
            if held.making is not None:
                held.making.cancel()
        tasks = [task for held in self._held.values() for task in held.tasks]
        await asyncio.gather(*tasks, return_exceptions=True)
        for held in list(self._held.values()):
            with contextlib.suppress(DatabaseUnavailable):
                await self._house.db.write(jobs.release, job_id=held.job.id, lease=held.lease)
        self._held.clear()
        for runner in self._runners:
            await runner.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
