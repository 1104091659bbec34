"""Puts the house together: settings in, open rooms and running loops out. Nothing imports this but the doors' mains."""

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Callable

import msgspec
import structlog
import uvicorn
from litestar.types import ASGIApp

from pixeldojo import ids, limits, traces
from pixeldojo.api import app as api
from pixeldojo.api import connections
from pixeldojo.assets import store as assets_store
from pixeldojo.assets.files import Files
from pixeldojo.assets.signing import Signer
from pixeldojo.catalogue.service import Catalogue
from pixeldojo.courier import Courier
from pixeldojo.house import House
from pixeldojo.janitor import Janitor
from pixeldojo.jobs.queue import Outlook
from pixeldojo.opening import listed_cards as listed_cards
from pixeldojo.opening import open_database_for as open_database_for
from pixeldojo.settings import Settings, SettingsError
from pixeldojo.worker.worker import Worker

_OPEN_FILES = 65_536
if sys.platform != "win32":
    import resource

_FILES = 65_536
_log = structlog.get_logger()


@contextlib.asynccontextmanager
async def open_house(settings: Settings) -> AsyncIterator[House]:
    """Every room of the service, closed at the end."""
    async with open_database_for(settings) as db, _counter(settings) as counter:
        secret = await db.write(assets_store.signing_secret, fresh=ids.new_secret())
        cards = listed_cards(settings)
        yield House(
            settings=settings,
            db=db,
            catalogue=Catalogue(cards),
            files=Files(url=settings.storage_url, folder=settings.data_dir / "assets"),
            signer=Signer(secret),
            outlook=Outlook({card.api_id: card.engine.instances for card in cards}),
            counter=counter,
        )


@contextlib.asynccontextmanager
async def _counter(settings: Settings) -> AsyncIterator[limits.Counter]:
    try:
        counter = limits.open_counter(settings.rate_limit_storage)
    except (ImportError, ValueError) as error:
        raise SettingsError(f"PIXELDOJO_RATE_LIMIT_STORAGE: {error}") from None
    try:
        yield counter
    finally:
        await counter.close()


@contextlib.asynccontextmanager
async def running_loops(house: House) -> AsyncIterator[None]:
    """The worker, the courier and the janitor (those that the settings' roles name), working until the block ends."""
    tasks = []
    if "worker" in house.settings.roles:
        tasks.append(asyncio.create_task(Worker(house, house.catalogue.cards).run(), name="worker"))
    if "courier" in house.settings.roles:
        tasks.append(asyncio.create_task(Courier(house).run(), name="courier"))
    if "janitor" in house.settings.roles:
        tasks.append(asyncio.create_task(Janitor(house).run(), name="janitor"))
    for task in tasks:
        task.add_done_callback(_report)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        _log.critical("loop_ended", loop=task.get_name(), exc_info=task.exception())


def _allow_connections() -> None:
    """Every connection is a file: the usual 1024 are fewer than listeners and slow clients may be."""
    if sys.platform != "win32":
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def listen(settings: Settings) -> socket.socket:
    """A listening socket on the settings' host and port. Raises OSError."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((settings.host, settings.port))
        sock.listen(2048)
    except BaseException:
        sock.close()
        raise
    return sock


def allow_many_files() -> None:
    """Raise this process's limit of open files: a thousand listeners and some hundred deliveries each hold one."""
    try:
        import resource
    except ImportError:  # not on Windows, which has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # macOS has a lower bound of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Server(uvicorn.Server):
    """A uvicorn server that says when it is up, and when it begins to close."""

    def __init__(self, config: uvicorn.Config, *, on_up: Callable[[], None], on_leave: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_up, self._on_leave = on_up, on_leave

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._on_up()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_leave()
        await super().shutdown(sockets=sockets)


def application(house: House) -> ASGIApp:
    """The ASGI application over an open house."""
    return api.build(house)


def server_config(application: ASGIApp, *, client_timeout_s: float = 30.0) -> uvicorn.Config:
    """How the HTTP server is run."""
    return uvicorn.Config(
        application,
        http=connections.bounded(timeout_s=client_timeout_s),
        ws="none",
        log_config=None,  # ours: see logs.py
        log_level="error",  # its warnings tell of bytes that are no HTTP: anybody could write them for ever
        access_log=False,
        lifespan="off",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=5,
    )


async def serve(settings: Settings, *, on_up: Callable[[str], None]) -> None:
    """Run the whole service until a signal ends it. `on_up` gets the address once it answers."""
    allow_many_files()
    _allow_connections()
    sock = listen(settings)
    host, port = sock.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    notice, told = settings.data_dir / "service.json", msgspec.json.encode({"address": address})
    traces.set_up(settings.otlp_endpoint)
    async with open_house(settings) as house:
        config = server_config(api.build(house), client_timeout_s=settings.client_timeout_s)

        def up() -> None:
            notice.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            notice.write_bytes(told)
            on_up(address)

        async with running_loops(house):
            try:
                await _Server(config, on_up=up, on_leave=house.leaving.tell).serve(sockets=[sock])
            finally:
                with contextlib.suppress(FileNotFoundError):
                    if notice.read_bytes() == told:  # not that of another process on the same folder
                        notice.unlink()
                await asyncio.to_thread(traces.close)  # it sends what is left
