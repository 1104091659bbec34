"""Waiting for a job without asking the database again and again: it is read when its channel is woken."""

import asyncio
import contextlib
import time

from pixeldojo.house import House
from pixeldojo.jobs import news
from pixeldojo.jobs import service as jobs

# With the worker in another process on SQLite, nothing wakes this one: then the row is looked at now and then.
_BLIND_S = 0.5


class Watch:
    """News on one channel."""

    def __init__(self, house: House, channel: str) -> None:
        self._house = house
        self._event = house.db.event(channel)
        house.leaving.wakes(self._event)

    async def next(self, *, timeout_s: float) -> bool:
        """Wait until there may be news, or `timeout_s` pass (then False). It is also news that the service ends."""
        blind = not self._house.sees_every_change
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(timeout_s, _BLIND_S) if blind else timeout_s):
                await self._event.wait()
        woken = self._event.is_set()
        self._event.clear()
        return woken or blind


async def until_ended(house: House, job_id: str, *, wait_s: float) -> jobs.Job | None:
    """The job once it has ended; None when it has not after `wait_s`, or the service is going down."""
    watch, until = Watch(house, news.of_end(job_id)), time.monotonic() + wait_s
    while True:
        job = await house.db.read(jobs.look, job_id=job_id)
        if job is None or job.completed_ms is not None:
            return job
        left = until - time.monotonic()
        if left <= 0 or house.leaving.now:
            return None
        await watch.next(timeout_s=left)
