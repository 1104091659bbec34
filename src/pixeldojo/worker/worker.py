"""The worker's loop: free slot → claim → run → keep the files → finish. It restarts by asking the table.

Whatever goes wrong with one job is settled for that job alone: retried within its attempts, then failed and
refunded. When the worker is stopped it hands its jobs back; when it is killed, their leases run out.
"""

import asyncio
import contextlib
import shutil
import tempfile
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
_log = structlog.get_logger()


class _Held:
    """A job this worker holds: its lease, how far it is, and the task that works on it."""

    __slots__ = ("job", "lease", "progress", "task", "told")

    def __init__(self, job: Job, lease: str) -> None:
        self.job, self.lease = job, lease
        self.progress = self.told = 0.0
        self.task: asyncio.Task[None] | None = None


class Worker:
    """Runs the jobs of every card it is given."""

    def __init__(self, house: House, cards: list[Card]) -> None:
        self._house = house
        self._cards = {card.api_id: card for card in cards}
        root = house.settings.data_dir / "work"
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = Path(tempfile.mkdtemp(prefix="worker-", dir=root))
        self._idle: dict[str, list[ChildRunner]] = {
            card.api_id: [
                ChildRunner(card.engine, folder=self._folder / f"{card.api_id}-{number}" / "out")
                for number in range(card.engine.instances)
            ]
            for card in cards
        }
        self._held: dict[str, _Held] = {}
        self._event = house.db.event(jobs.CHANNEL)
        self._stopping = False

    async def run(self) -> None:
        """Work until cancelled; then hand back what is unfinished."""
        warm = asyncio.create_task(self._warm())
        beat = asyncio.create_task(self._beat())
        try:
            while True:
                self._event.clear()
                if not await self.step():
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._event.wait(), _POLL_S)
        finally:
            warm.cancel()
            beat.cancel()
            await asyncio.gather(warm, beat, return_exceptions=True)
            await self._stop()

    async def step(self) -> bool:
        """Claim what fits into the free slots and start it. False when there was nothing to do."""
        # Taken out before the claim: while it is under way, a runner may neither start to load nor be given away.
        taken = {model: idle.copy() for model, idle in self._idle.items() if idle}
        if not taken:
            return False
        for model in taken:
            self._idle[model].clear()
        claimed: list[Job] = []
        try:
            lease, claimed = await self._claim({model: len(runners) for model, runners in taken.items()})
            for job in claimed:
                held = self._held[job.id] = _Held(job, lease)
                held.task = asyncio.create_task(self._work(held, taken[job.model].pop()))
        except DatabaseUnavailable as error:
            _log.error("claim_failed", error=str(error))
            await asyncio.sleep(_POLL_S)
        finally:
            for model, runners in taken.items():
                self._idle[model] += runners
        return bool(claimed)

    async def _claim(self, free: dict[str, int]) -> tuple[str, list[Job]]:
        claiming = asyncio.ensure_future(
            self._house.db.write(jobs.claim, free=free, lease_s=self._house.settings.lease_s)
        )
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:  # the transaction goes on: what it claims must be handed back
            lease, claimed = await claiming
            self._held |= {job.id: _Held(job, lease) for job in claimed}
            raise

    async def idle(self) -> None:
        """Wait until nothing is being worked on."""
        while tasks := [held.task for held in self._held.values() if held.task]:
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _warm(self) -> None:
        """Load every engine before the first job asks for it."""
        for idle in self._idle.values():
            for runner in list(idle):
                if runner in idle:  # not taken by a job meanwhile
                    idle.remove(runner)
                    try:
                        await runner.start()
                    except Fault as fault:
                        _log.error("engine_did_not_load", error=fault.message)
                    finally:
                        idle.append(runner)
                        self._event.set()

    async def _work(self, held: _Held, runner: ChildRunner) -> None:
        job, settled = held.job, False
        try:
            assets, engine_s = await self._make(held, runner)
            await self._finish(held, assets, engine_s)
            settled = True
        except Fault as fault:
            await self._settle(held, fault)
            settled = True
        except files.FilesUnavailable as error:
            _log.error("storage_failed", job=job.id, error=str(error))
            await self._settle(held, Fault("storage_failed", "The result could not be stored"))
            settled = True
        except DatabaseUnavailable as error:
            _log.error("job_not_settled", job=job.id, error=str(error))  # the lease runs out; then it is tried again
            settled = True
        except Exception:
            _log.exception("worker_fault", job=job.id)
            await self._settle(held, Fault("internal_error", "Something went wrong on our side"))
            settled = True
        finally:
            if settled:  # otherwise the worker is stopping, and `_stop` hands the job back
                self._held.pop(job.id, None)
            self._idle[job.model].append(runner)
            self._event.set()

    async def _make(self, held: _Held, runner: ChildRunner) -> tuple[list[dict[str, Any]], float]:
        job, card = held.job, self._cards[held.job.model]
        params = msgspec.json.decode(job.input)
        wanted = {name: params[name] for name in card.pictures if name in params}
        paths: Mapping[str, Path] = {}
        if wanted:
            carried = await self._house.db.read(jobs.inputs, job_id=job.id)
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
                if job_id in lost and held.task is not None:
                    _log.warning("lease_lost", job=job_id)
                    held.task.cancel()  # its child is killed with it
                    self._held.pop(job_id, None)

    async def _stop(self) -> None:
        for held in self._held.values():
            if held.task is not None:
                held.task.cancel()
        await asyncio.gather(*(h.task for h in self._held.values() if h.task), return_exceptions=True)
        for held in list(self._held.values()):
            with contextlib.suppress(DatabaseUnavailable):
                await self._house.db.write(jobs.release, job_id=held.job.id, lease=held.lease)
        self._held.clear()
        for idle in self._idle.values():
            for runner in idle:
                await runner.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
