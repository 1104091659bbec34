"""The worker's loop: free slot → claim → run → keep the files → finish. It restarts by asking the table.

Whatever goes wrong with one job is settled for that job alone: retried within its attempts, then failed and
refunded. When the worker is stopped it hands its jobs back; when it is killed, their leases run out.
"""

import asyncio
import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import structlog

from pixeldojo import logs, traces
from pixeldojo.assets import files
from pixeldojo.catalogue.card import Card
from pixeldojo.db import DatabaseUnavailable
from pixeldojo.engines.engine import Output
from pixeldojo.house import House
from pixeldojo.jobs import news
from pixeldojo.jobs import service as jobs
from pixeldojo.jobs.store import Job
from pixeldojo.worker import folders, inputs
from pixeldojo.worker.runner import ChildRunner, Fault, Preview

_POLL_S = 1.0  # only matters when a wake-up was lost or another process made the row
_PROGRESS_S = 0.25
_AHEAD_S = 0.02  # of a quick model, this much work is claimed ahead of its seats
_AHEAD_MOST = 16
# Results that took less are not brought to the disk one by one: a test pattern would take longer to keep than to make.
_WORTH_SYNCING_S = 0.05
_STOP_S = 1.0  # how long an engine may take to notice a cancel before its process is ended
_CANCELLED = Fault("cancelled", "The job was cancelled", permanent=True)
_log = structlog.get_logger()


_Made = tuple[list[dict[str, Any]], float]  # the assets, and the engine's own seconds


class _Held:
    """A job this worker holds: its lease, how far it is, and its two tasks, once they exist."""

    __slots__ = ("cancelled", "concluding", "job", "lease", "making", "preview", "progress", "runner", "told", "trace")

    def __init__(self, job: Job, lease: str) -> None:
        self.job, self.lease = job, lease
        self.progress = self.told = 0.0
        self.preview: Preview | None = None  # made since the last heartbeat
        self.cancelled = False
        self.runner: ChildRunner | None = None
        self.trace: Any = None  # where its spans belong
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
        self._folder, self._lock = folders.open_own(house.settings.data_dir / "work")
        self._held: dict[str, _Held] = {}
        self._settling: set[asyncio.Task[None]] = set()
        self._leaving: set[asyncio.Task[_Made]] = set()
        self._event = house.db.event(news.PENDING)
        self._cancels = house.db.event(news.CANCELS)
        self._seats: list[asyncio.Task[None]] = []
        self._runners: list[ChildRunner] = []

    async def run(self) -> None:
        """Work until cancelled; then hand back what is unfinished."""
        beat = asyncio.create_task(self._beat())
        try:
            while True:
                self._event.clear()
                if not await self._tried():
                    # Not `wait_for`: before Python 3.12 a wake-up at the same moment makes it forget a cancellation.
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_POLL_S):
                            await self._event.wait()
        finally:
            beat.cancel()
            await asyncio.gather(beat, return_exceptions=True)
            await self.stop()

    async def _tried(self) -> bool:
        try:
            return await self.step()
        except DatabaseUnavailable as error:
            _log.error("claim_failed", error=str(error))
        except Exception:  # the loop's edge: with the worker gone, every later job would wait for ever
            _log.exception("claim_failed")
        await asyncio.sleep(_POLL_S)
        return False

    async def step(self) -> bool:
        """Claim what the seats can take. False when there was nothing to do."""
        if not self._seats:
            self._open_seats()
        free = {model: count for model, line in self._lines.items() if (count := line.wanted())}
        if not free:
            return False
        claimed = await self._claim(free)
        for held in claimed:
            self._lines[held.job.model].queue.put_nowait(held)
        return bool(claimed)

    async def _claim(self, free: dict[str, int]) -> list[_Held]:
        claiming = asyncio.ensure_future(
            self._house.db.write(
                jobs.claim,
                free=free,
                lease_s=self._house.settings.lease_s,
                account_concurrency=self._house.settings.account_concurrency,
            )
        )
        try:
            lease, claimed = await asyncio.shield(claiming)
        except asyncio.CancelledError:  # the transaction goes on: what it claims must be handed back
            with contextlib.suppress(DatabaseUnavailable):
                self._hold(*await claiming)
            raise
        return self._hold(lease, claimed)

    def _hold(self, lease: str, claimed: list[Job]) -> list[_Held]:
        new = [_Held(job, lease) for job in claimed]
        for held in new:
            self._let_go(held.job.id)
            self._held[held.job.id] = held
        return new

    def _let_go(self, job_id: str) -> None:
        """Give up a job whose lease is lost, if it is here: perhaps it has just come back to us under another."""
        held = self._held.pop(job_id, None)
        if held is None:
            return
        _log.warning("lease_lost", job=job_id)
        if held.making is not None and held.concluding is None:
            held.making.cancel()  # its child is killed with it
            self._leaving.add(held.making)
            held.making.add_done_callback(self._leaving.discard)

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
            held.runner = runner
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
        logs.begin(job=job.id)
        try:
            if making.cancelled():
                if held.cancelled:
                    raise _CANCELLED
                await self._clear_away(job.id)
                return  # the lease was lost
            assets, engine_s = making.result()
            with traces.span("finish", within=held.trace, job=job.id):
                await self._finish(held, assets, engine_s)
        except Fault as fault:
            await self._settle(held, fault)
        except (files.FilesUnavailable, OSError) as error:  # a full disk, for one, also here where the engine works
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
        job = held.job
        logs.begin(job=job.id)
        with traces.span("attempt", job=job.id, model=job.model, attempt=job.attempt):
            held.trace = traces.here()
            return await self._run_engine(held, runner)

    async def _run_engine(self, held: _Held, runner: ChildRunner) -> _Made:
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

        def on_preview(preview: Preview) -> None:
            held.preview = preview

        with traces.span("engine run", job=job.id, model=job.model):
            outputs, seconds = await runner.generate(params, paths, on_progress=on_progress, on_preview=on_preview)
        if not outputs:
            raise Fault("engine_failed", "The model made nothing")
        lasting = seconds >= _WORTH_SYNCING_S
        kept = [await self._keep(job, runner, index, output, lasting) for index, output in enumerate(outputs)]
        return kept, seconds

    async def _keep(self, job: Job, runner: ChildRunner, index: int, output: Output, lasting: bool) -> dict[str, Any]:
        path = runner.folder / Path(output.file).name
        if output.content_type not in files.EXTENSIONS:
            raise Fault("engine_failed", f"The model made a file of an unknown type ({output.content_type[:40]})")
        if path.name != output.file or path.is_symlink() or not path.is_file():
            raise Fault("engine_failed", "The model told of a file that it did not make")
        key = files.key(job.id, index=index, content_type=output.content_type)
        size = await self._house.files.put(key, path, lasting=lasting)
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
            await self._clear_away(held.job.id)

    async def _clear_away(self, job_id: str) -> None:
        """Files of an attempt that lost its lease, where the job was swept meanwhile: nobody else would remove them."""
        job = await self._house.db.read(jobs.look, job_id=job_id)
        if job is None or job.swept_ms is not None:
            await self._house.files.remove_job(job_id)

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
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PROGRESS_S):
                    await self._cancels.wait()
            tick += 1
            every = tick % ticks == 0 or self._cancels.is_set()
            self._cancels.clear()
            due = {
                job_id: jobs.Beat(held.lease, held.progress, held.preview)
                for job_id, held in self._held.items()
                if every or held.progress != held.told or held.preview
            }
            if not due:
                continue
            try:
                lost, cancelled = await self._house.db.write(jobs.heartbeat, held=due, lease_s=lease_s)
            except DatabaseUnavailable as error:
                _log.error("heartbeat_failed", error=str(error))
                continue
            except Exception:  # the loop's edge: without heartbeats every lease would run out
                _log.exception("heartbeat_failed")
                continue
            for job_id, beat in due.items():
                held = self._held.get(job_id)
                if held is None or held.lease != beat.lease:
                    continue
                held.told = beat.progress
                if held.preview is beat.preview:
                    held.preview = None
                if job_id in cancelled and not held.cancelled:
                    self._cancel(held)
                elif job_id in lost and held.concluding is None:
                    self._let_go(job_id)

    def _cancel(self, held: _Held) -> None:
        """Tell the engine to stop; end it when it has not after a second."""
        held.cancelled = True
        if held.runner is None or held.making is None:  # it still waits for a seat, and gets none
            del self._held[held.job.id]
            task = asyncio.create_task(self._settle(held, _CANCELLED))
            self._settling.add(task)
            task.add_done_callback(self._settling.discard)
        elif held.concluding is None:
            held.runner.cancel()
            asyncio.get_running_loop().call_later(_STOP_S, held.making.cancel)

    async def stop(self) -> None:
        """End every engine at once and hand back the jobs that are unfinished."""
        for seat in self._seats:
            seat.cancel()
        await asyncio.gather(*self._seats, return_exceptions=True)
        for held in self._held.values():
            if held.making is not None:
                held.making.cancel()
        tasks = [task for held in self._held.values() for task in held.tasks]
        await asyncio.gather(*tasks, *self._leaving, *self._settling, return_exceptions=True)
        for held in list(self._held.values()):
            with contextlib.suppress(DatabaseUnavailable):
                await self._house.db.write(
                    jobs.release, job_id=held.job.id, lease=held.lease, retention_s=self._house.settings.retention_s
                )
        self._held.clear()
        for runner in self._runners:
            await runner.stop()
        folders.close(self._folder, self._lock)
        self._lock = None
