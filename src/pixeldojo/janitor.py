"""The janitor's loop: removes what has expired and rescues jobs whose worker has gone silent."""

import asyncio

import structlog

from pixeldojo.db import DatabaseUnavailable
from pixeldojo.house import House
from pixeldojo.jobs import service as jobs

_RESCUE_EVERY_S = 2.0
_log = structlog.get_logger()


class Janitor:
    """Sweeps one house."""

    def __init__(self, house: House) -> None:
        self._house = house

    async def run(self) -> None:
        """Rescue every two seconds, sweep every `janitor_interval_s`, until cancelled."""
        interval = self._house.settings.janitor_interval_s
        loop = asyncio.get_running_loop()
        next_sweep = loop.time() + interval
        while True:
            try:
                await self.rescue()
                if loop.time() >= next_sweep:
                    next_sweep = loop.time() + interval
                    while await self.step():
                        pass
            except DatabaseUnavailable as error:
                _log.error("janitor_failed", error=str(error))
            except OSError as error:
                _log.error("janitor_failed", error=str(error))
            await asyncio.sleep(min(_RESCUE_EVERY_S, interval))

    async def rescue(self) -> int:
        """Put stale jobs back into the queue, or fail and refund them; how many."""
        settings = self._house.settings
        rescued = await self._house.db.write(
            jobs.rescue_stale, max_attempts=settings.max_attempts, retention_s=settings.retention_s
        )
        if rescued:
            _log.warning("jobs_rescued", count=rescued)
        return rescued

    async def step(self) -> bool:
        """Sweep one batch of expired jobs: files first, then the row, so that a crash between loses nothing.

        True when there may be more.
        """
        house = self._house
        overdue = await house.db.scan(jobs.overdue, limit=100)
        for job in overdue:
            await house.files.remove_job(job.id)
            await house.db.write(jobs.mark_swept, job_id=job.id)
        late = await house.db.write(jobs.expire_pending, retention_s=house.settings.retention_s)
        await house.db.write(jobs.forget_idempotency)
        return 100 in (len(overdue), late)
