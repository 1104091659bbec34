"""`serve`: the whole service in this process, until a signal ends it."""

import asyncio
import contextlib
import dataclasses
import errno
import signal
import sys
from collections.abc import Coroutine
from types import FrameType
from typing import Any

from pixeldojo import app, logs, opening, settings
from pixeldojo.accounts import service as accounts
from pixeldojo.cli import show
from pixeldojo.cli.outcome import CommandFailed, Exit, usage
from pixeldojo.db import DatabaseUnavailable
from pixeldojo.settings import Settings


def _first_key(tx: Any) -> str | None:
    """A key for the default account when it never had one."""
    account = accounts.get_account(tx, name=accounts.DEFAULT_ACCOUNT)
    if accounts.list_keys(tx, account_id=account.id):
        return None
    return accounts.create_key(tx, account_id=account.id, name="first")[1]


def _run(work: Coroutine[Any, Any, None]) -> None:
    try:
        import uvloop
    except ImportError:  # there is none for Windows
        asyncio.run(work)
    else:
        uvloop.run(work)


class _Stopped(SystemExit):
    """A signal ended the start-up. No KeyboardInterrupt: when one passes through an `exec`, as imports use it, the
    interpreter kills itself with SIGINT at its end, although the exception was caught."""


class _Stopper:
    """Ends the start-up on a signal. Once the server is up it handles signals itself, and on its way out raises
    them again for us: by then everything is being closed, so they mean nothing more."""

    def __init__(self) -> None:
        self.up = False

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        if not self.up:
            raise _Stopped


async def _serve(wanted: Settings, stopper: _Stopper, *, as_json: bool) -> None:
    told: set[asyncio.Task[None]] = set()

    async def tell(address: str) -> None:
        key = None
        with contextlib.suppress(DatabaseUnavailable):  # just now, of all times: the service is up even so
            async with opening.open_database_for(wanted) as db:
                key = await db.write(_first_key)
        if as_json:
            show.document({"address": address, "key": key})
            return
        show.line(f"PixelDojo listens at {address} (documentation: {address}/docs)")
        if key is not None:
            show.line(f"Your first API key, shown this once: {key}")
            show.line("Next, give yourself credits: pixeldojo credits grant 100")

    def on_up(address: str) -> None:
        stopper.up = True
        told.add(asyncio.get_running_loop().create_task(tell(address)))

    await app.serve(wanted, on_up=on_up)
    for task in told:
        await task


def _refused(error: OSError, wanted: Settings) -> CommandFailed | None:
    """Why the address can't be listened on, when that is what `error` says."""
    where = f"port {wanted.port} at {wanted.host}"
    match error.errno:
        case errno.EADDRINUSE:
            text = f"{where} is in use; end what listens there, or choose another: pixeldojo serve --port 8788"
        case errno.EACCES if error.filename is None:
            text = f"{where} may not be opened by this user; choose a port above 1023: pixeldojo serve --port 8787"
        case errno.EADDRNOTAVAIL:
            text = f"{wanted.host} is no address of this machine; --host 0.0.0.0 listens on all of them"
        case number if number is not None and number < 0:  # the resolver's errors
            text = f"the host {wanted.host!r} can't be found; use an address such as 127.0.0.1"
        case _:
            return None
    return CommandFailed(text, code="cannot_listen", ends=Exit.FAILED)


def serve(*, host: str | None = None, port: int | None = None, json: show.Json = False) -> None:
    """Run the service in the foreground until a signal ends it.

    Parameters
    ----------
    host
        The address to listen on [PIXELDOJO_HOST].
    port
        The port to listen on; 0 takes a free one [PIXELDOJO_PORT].
    """
    wanted = settings.load()
    wanted = dataclasses.replace(
        wanted, host=wanted.host if host is None else host, port=wanted.port if port is None else port
    )
    if not 0 <= wanted.port <= 65535:
        raise usage(f"--port: {wanted.port} is no port; use 0 to 65535")
    if fault := opening.storage_fault(wanted):
        raise usage(f"PIXELDOJO_STORAGE_URL: {fault}")
    logs.set_up(level=wanted.log_level, form=wanted.log_format)
    stopper = _Stopper()
    before = {number: signal.signal(number, stopper) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        _run(_serve(wanted, stopper, as_json=json))
    except _Stopped:
        pass  # a signal during the start: ended as asked
    except OSError as error:
        raise _refused(error, wanted) or error from None
    finally:
        for number, handler in before.items():
            with contextlib.suppress(TypeError):
                signal.signal(number, handler)
    if not json and sys.stderr.isatty():
        show.note("PixelDojo has ended.")
