"""`mcp`: the tools of a running service on standard input and output, for agents that start programs."""

import asyncio
import signal

from pixeldojo import logs, outbound, settings
from pixeldojo.cli import show
from pixeldojo.cli.client_commands import BaseUrl, Key
from pixeldojo.cli.connect import Place, running
from pixeldojo.cli.outcome import CommandFailed, Exit
from pixeldojo.mcp import server
from pixeldojo.mcp.backend import Backend, MemoryShelf
from pixeldojo.mcp.wire import OverHttp

_ONE_ANSWER_S = 30.0


async def _serve(place: Place) -> None:
    async with outbound.api_client(place.root, api_key=place.key, timeout_s=_ONE_ANSWER_S) as client:
        await server.over_stdio(Backend(OverHttp(client), MemoryShelf()))


def mcp(*, key: Key = None, base_url: BaseUrl = None) -> None:
    """Serve the tools of a running service to an agent: Model Context Protocol on standard input and output.

    Ends when standard input is closed. Everything but the protocol goes to standard error.
    """
    place = asyncio.run(running(base_url=base_url, key=key))
    if place is None:
        text = "no service runs here: start one with `pixeldojo serve`, or give an address by --base-url or "
        raise CommandFailed(text + "PIXELDOJO_BASE_URL", code="unreachable", ends=Exit.UNREACHABLE)
    logs.set_up(level="warning", form=settings.load().log_format)
    # Ctrl-C ends the process there and then: an orderly end would wait for the thread that reads standard input
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    show.note(f"PixelDojo's tools for {place.root}; waiting for an agent on standard input.")
    asyncio.run(_serve(place))
