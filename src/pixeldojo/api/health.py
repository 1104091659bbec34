"""`/healthz`: the process answers. `/readyz`: it can do its work."""

import asyncio
import time

from litestar import Response, get

from pixeldojo import __version__, errors
from pixeldojo.accounts import service as accounts
from pixeldojo.api.respond import ApiRequest, reply
from pixeldojo.house import House

_FRESH_S = 1.0


class Ready:
    """Whether the database takes writes, found out at most once a second: the question is free, and a write is not."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._asked: asyncio.Future[None] | None = None
        self._until_s = 0.0

    async def check(self) -> None:
        """Raises `DatabaseUnavailable` when it takes none."""
        if self._asked is None or (self._asked.done() and time.monotonic() >= self._until_s):
            self._asked = asyncio.ensure_future(self._ask())
        await asyncio.shield(self._asked)  # all who ask meanwhile share the answer

    async def _ask(self) -> None:
        await self._house.db.write(accounts.touch)
        self._until_s = time.monotonic() + _FRESH_S


@get("/healthz", sync_to_thread=False)
def healthz() -> Response[bytes]:
    """Always 200 while the process lives."""
    return reply({"status": "ok", "version": __version__})


@get("/readyz")
async def readyz(request: ApiRequest) -> Response[bytes]:
    """200 when the database takes writes: one that only reads could accept no job."""
    house: House = request.app.state.house
    ready: Ready = request.app.state.ready
    try:
        await ready.check()
    except errors.DatabaseUnavailable as error:
        raise errors.InternalError("The database takes no writes at the moment.") from error
    return reply({"status": "ready", "models": len(house.catalogue.cards)})
