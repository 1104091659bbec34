"""The janitor's loop: removes what has expired and rescues jobs whose worker has gone silent."""

import asyncio

import structlog

from pixeldojo.assets import uploads
from pixeldojo.assets.files import FilesUnavailable
from pixeldojo.db import DatabaseUnavailable
from pixeldojo.house import House
from pixeldojo.jobs import service as jobs

_RESCUE_EVERY_S = 1.0
_UPLOADS_EVERY_S = 600.0
_log = structlog.get_logger()


class Janitor:
    """Sweeps one house."""

    def __init__(self, house: House) -> None:
        self._house = house

    async def run(self) -> None:
        """Rescue every second, sweep every `janitor_interval_s`, until cancelled."""
        interval = self._house.settings.janitor_interval_s
        loop = asyncio.get_running_loop()
        next_sweep, next_uploads = loop.time() + interval, loop.time() + _UPLOADS_EVERY_S
        while True:
            try:
                await self.rescue()
                if loop.time() >= next_uploads:
                    next_uploads = loop.time() + _UPLOADS_EVERY_S
                    await uploads.sweep(self._house.files)
                if loop.time() >= next_sweep:
                    next_sweep = loop.time() + interval
                    while await self.step():
                        pass
            except DatabaseUnavailable as error:
                _log.error("janitor_failed", error=str(error))
            except Exception:  # the loop's edge (the storage is away, say): without it nobody would rescue a job
                _log.exception("janitor_failed")
            await asyncio.sleep(min(_RESCUE_EVERY_S, interval))

    async def rescue(self) -> int:
        """Put stale jobs back into the queue, or fail and refund them; how many."""
        settings = self._house.settings
        rescued = await self._house.db.write(
            jobs.rescue_stale, max_attempts=settings.max_attempts, retention_s=settings.retention_s
        )
        if rescued:
            _log.warning("jobs_rescued", count=rescued)
        await self._house.db.write(jobs.enforce_limits, retention_s=settings.retention_s)
        return rescued

    async def step(self) -> bool:
        """Sweep one batch of expired jobs: files first, then the row, so that a crash between loses nothing.

        True when there may be more.
        """
        house = self._house
        overdue = await house.db.scan(jobs.overdue, limit=100)
        swept = 0
        for job in overdue:
            try:
                await house.files.remove_job(job.id)
            except FilesUnavailable as error:  # this one stays for the next sweep, and holds up no other
                _log.error("sweep_failed", job=job.id, error=str(error))
                continue
            await house.db.write(jobs.mark_swept, job_id=job.id, keep_input=house.settings.keep_inputs)
            swept += 1
        late = await house.db.write(jobs.expire_pending, retention_s=house.settings.retention_s)
        await house.db.write(jobs.forget_idempotency)
        forgotten = await house.db.write(jobs.forget, kept_s=house.settings.metadata_retention_s)
        return swept == 100 or 100 in (late, forgotten)
