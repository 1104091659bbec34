"""`/healthz`: the process answers. `/readyz`: it can do its work."""

from litestar import Response, get

from pixeldojo import __version__, errors
from pixeldojo.api.respond import ApiRequest, reply
from pixeldojo.db import DatabaseUnavailable, Tx
from pixeldojo.house import House


def _touch(tx: Tx) -> None:
    tx.one("SELECT 1 FROM accounts LIMIT 1")


@get("/healthz", sync_to_thread=False)
def healthz() -> Response[bytes]:
    """Always 200 while the process lives."""
    return reply({"status": "ok", "version": __version__})


@get("/readyz")
async def readyz(request: ApiRequest) -> Response[bytes]:
    """200 when the database answers."""
    house: House = request.app.state.house
    try:
        await house.db.read(_touch)
    except DatabaseUnavailable as error:
        raise errors.InternalError("The database does not answer.") from error
    return reply({"status": "ready", "models": len(house.catalogue.cards)})
