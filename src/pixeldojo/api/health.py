"""`/healthz`: the process answers. `/readyz`: it can do its work."""

from litestar import Response, get

from pixeldojo import __version__, errors
from pixeldojo.accounts import service as accounts
from pixeldojo.api.respond import ApiRequest, reply
from pixeldojo.house import House


@get("/healthz", sync_to_thread=False)
def healthz() -> Response[bytes]:
    """Always 200 while the process lives."""
    return reply({"status": "ok", "version": __version__})


@get("/readyz")
async def readyz(request: ApiRequest) -> Response[bytes]:
    """200 when the database takes writes: one that only reads could accept no job."""
    house: House = request.app.state.house
    try:
        await house.db.write(accounts.touch)
    except errors.DatabaseUnavailable as error:
        raise errors.InternalError("The database takes no writes at the moment.") from error
    return reply({"status": "ready", "models": len(house.catalogue.cards)})
