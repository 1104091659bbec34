"""A real service inside the test's process, on each database in turn, and people who call it.

    def test_something(service):                       # runs twice: SQLite, PostgreSQL
        ana = service.person(credits=3)
        job = ana.done("a house", num_outputs=2)       # submitted through the app, made by the worker
        assert fault(ana.ask("POST", RUN, json=…), 402, "insufficient_credits")

The worker and the janitor work while the test waits for an answer. Accounts are fresh in every test, so one
service serves them all.
"""

import asyncio
import contextlib
import dataclasses
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2
import msgspec
import pytest
import structlog

from pixeldojo import app, clock
from pixeldojo.accounts import service as accounts
from pixeldojo.api import app as api
from pixeldojo.catalogue import card as cards
from pixeldojo.catalogue.card import Card
from pixeldojo.catalogue.service import Catalogue
from pixeldojo.db import Tx
from pixeldojo.house import House
from pixeldojo.ledger import service as ledger
from pixeldojo.settings import Settings

T = TypeVar("T")

BASE = "http://dojo.test:8787"
API = "/api/v1"
RUN = f"{API}/models/testcard/run"
DAY_MS = 24 * 3600 * 1000


def fault(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """The error in this answer, once all of its envelope is as it must be."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert list(body) == ["error"]
    error: dict[str, Any] = body["error"]
    assert set(error) - {"details"} == {"code", "message", "status", "requestId"}
    assert (error["code"], error["status"]) == (code, status)
    assert error["requestId"] == response.headers["x-request-id"]
    assert isinstance(error["message"], str)
    assert error["message"].strip()
    assert "details" not in error or (code == "validation_error" and error["details"])
    for detail in error.get("details", []):
        assert set(detail) == {"path", "message"}
        assert all(isinstance(text, str) for text in detail.values())
        assert detail["message"]
    return error


def faults(response: httpx2.Response) -> dict[str, str]:
    """Path → message of every fault in the input that this answer names."""
    return {each["path"]: each["message"] for each in fault(response, 400, "validation_error")["details"]}


class Person:
    """An account's holder with one of its keys."""

    def __init__(self, service: "Service", *, account_id: str, key_id: str, key: str) -> None:
        self.service, self.account_id, self.key_id, self.key = service, account_id, key_id, key
        self.headers = {"authorization": f"Bearer {key}"}

    def ask(self, method: str, url: str, *, headers: dict[str, str] | None = None, **more: Any) -> httpx2.Response:
        return self.service.ask(method, url, headers=self.headers | (headers or {}), **more)

    def run(self, prompt: str = "bars", *, model: str = "testcard", key: str | None = None, **more: Any) -> Any:
        """The answer to a submit; `key` is its idempotency key."""
        headers = {"idempotency-key": key} if key is not None else None
        return self.ask("POST", f"{API}/models/{model}/run", json={"prompt": prompt, **more}, headers=headers)

    def submit(self, prompt: str = "bars", **more: Any) -> Any:
        """The body of a submit that is accepted."""
        response = self.run(prompt, **more)
        assert response.status_code == 202, response.text
        return response.json()

    def job(self, job_id: str) -> Any:
        response = self.ask("GET", f"{API}/jobs/{job_id}")
        assert response.status_code == 200, response.text
        return response.json()

    def wait(self, job_id: str) -> Any:
        """The job once it has ended."""
        return self.service.until(lambda: self.job(job_id), lambda job: job["completedAt"] is not None)

    def done(self, prompt: str = "bars", **more: Any) -> Any:
        """A job from submit to its end."""
        return self.wait(self.submit(prompt, **more)["jobId"])

    def jobs(self, query: str = "") -> Any:
        response = self.ask("GET", f"{API}/jobs{query}")
        assert response.status_code == 200, response.text
        return response.json()

    def balance(self) -> int:
        """In milli-credits."""
        return self.service.read(ledger.balance, account_id=self.account_id)

    def entries(self) -> list[tuple[str, int]]:
        """(kind, milli-credits) of all that ever came or went, oldest first."""
        found = self.service.read(ledger.list_entries, account_id=self.account_id, limit=1000)
        return [(entry.kind, entry.amount_milli) for entry in reversed(found)]

    def another_key(self, **limits: Any) -> "Person":
        """The same account through another key."""
        key, text = self.service.write(accounts.create_key, account_id=self.account_id, name="another", **limits)
        return Person(self.service, account_id=self.account_id, key_id=key.id, key=text)


def _open_account(tx: Tx, *, name: str, milli: int, **limits: Any) -> tuple[str, str, str]:
    account = accounts.create_account(tx, name=name)
    if milli:
        ledger.grant(tx, account_id=account.id, amount_milli=milli)
    key, text = accounts.create_key(tx, account_id=account.id, name="test", **limits)
    return account.id, key.id, text


class Service:
    """An open house, the app over it, and a loop to run both on."""

    def __init__(self, house: House, runner: asyncio.Runner) -> None:
        self.house, self.runner = house, runner
        self.app: Any = api.build(house)

    def do(self, awaitable: Awaitable[T]) -> T:
        async def wait() -> T:
            return await awaitable

        return self.runner.run(wait())

    def read(self, fn: Callable[..., T], /, **more: Any) -> T:
        return self.do(self.house.db.read(fn, **more))

    def write(self, fn: Callable[..., T], /, **more: Any) -> T:
        return self.do(self.house.db.write(fn, **more))

    async def asking(self, method: str, url: str, *, at: Any = None, **more: Any) -> httpx2.Response:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(at or self.app), base_url=BASE) as client:
            return await client.request(method, url, **more)

    def ask(self, method: str, url: str, *, at: Any = None, **more: Any) -> httpx2.Response:
        """The app's answer, `at` another app if given."""
        return self.do(self.asking(method, url, at=at, **more))

    def ask_at_once(self, *requests: tuple[str, str, dict[str, Any]]) -> list[httpx2.Response]:
        """The answers to requests (method, URL, the rest) that are under way together."""

        async def ask() -> list[httpx2.Response]:
            return await asyncio.gather(*(self.asking(method, url, **more) for method, url, more in requests))

        return self.do(ask())

    def person(self, credits: float = 100, **limits: Any) -> Person:  # noqa: A002
        name = f"person {secrets.token_hex(6)}"
        opened = self.write(_open_account, name=name, milli=round(credits * 1000), **limits)
        return Person(self, account_id=opened[0], key_id=opened[1], key=opened[2])

    def until(self, ask: Callable[[], T], ready: Callable[[T], bool], *, within_s: float = 20) -> T:
        """What `ask` returns once it is `ready`; the loops work meanwhile."""
        limit = clock.now_ms() + within_s * 1000
        while not ready(found := ask()):
            assert clock.now_ms() < limit, found
            self.do(asyncio.sleep(0.01))
        return found

    def audit(self) -> None:
        """Every balance is the sum of its entries."""
        assert self.read(ledger.audit) == []

    def files(self, job_id: str) -> list[str]:
        """The names of the job's files on disk."""
        return sorted(path.name for path in (self.house.settings.data_dir / "assets").glob(f"{job_id}/*"))

    @contextlib.contextmanager
    def wire(self, **options: float) -> Iterator["Wire"]:
        """The service behind a real HTTP server; `options` are those of `app.server_config`."""
        up = asyncio.Event()
        with socket.create_server(("127.0.0.1", 0)) as listening:
            server = app._Server(app.server_config(self.app, **options), on_up=up.set, on_leave=lambda: None)
            task = self.runner.get_loop().create_task(server.serve(sockets=[listening]))
            self.do(up.wait())
            try:
                yield Wire(self, listening.getsockname()[1])
            finally:
                server.should_exit = True
                self.do(task)


@dataclasses.dataclass(frozen=True, slots=True)
class Wire:
    """A service that listens on a port of this machine."""

    service: Service
    port: int

    def send(self, *parts: bytes) -> bytes:
        """All that comes back for these bytes until the connection is closed."""

        async def send(reader: asyncio.StreamReader) -> bytes:
            return await reader.read()

        return self.service.do(self._exchange(parts, send))

    def ask(self, head: str, *, body: bytes = b"") -> httpx2.Response:
        """The answer to a request written by hand; `head` without its last lines."""

        async def hear(reader: asyncio.StreamReader) -> httpx2.Response:
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[:-2]
            pairs = (line.split(b": ", 1) for line in lines)
            headers = httpx2.Headers([(name, value) for name, value in pairs])
            content = await reader.readexactly(int(headers["content-length"]))
            return httpx2.Response(int(first.split()[1]), headers=headers, content=content)

        text = f"{head}\r\nhost: 127.0.0.1:{self.port}\r\n\r\n"
        return self.service.do(self._exchange((text.encode("latin-1"), body), hear))

    async def _exchange(self, parts: Iterable[bytes], hear: Callable[[asyncio.StreamReader], Awaitable[T]]) -> T:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            async with asyncio.timeout(10):
                for part in parts:
                    writer.write(part)
                return await hear(reader)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


def _cards() -> list[Card]:
    """The test card, and two like it: one with little time and a price in milli-credits, and one for video."""
    test = next(card for card in cards.read_all(None) if card.api_id == "testcard")
    hasty = msgspec.convert({**msgspec.to_builtins(test.engine), "instances": 1, "timeoutS": 0.4}, cards.EngineSpec)
    price = cards.Price(type="per_image", amount=0.375)
    return [
        test,
        msgspec.structs.replace(test, api_id="testcard-hasty", engine=hasty, price=price),
    ]


@contextlib.contextmanager
def serving(settings: Settings, *, works: bool = True, listed: list[Card] | None = None) -> Iterator[Service]:
    """A service with these settings, its loops at work unless told otherwise. Its only models are test cards, or those
    given."""
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        opened = runner.run(stack.enter_async_context(app.open_house(settings)))
        house = dataclasses.replace(opened, catalogue=Catalogue(listed or _cards()))
        if works:
            runner.run(stack.enter_async_context(app.running_loops(house)))
        try:
            yield Service(house, runner)
        finally:
            runner.run(stack.aclose())


def _settings(folder: Path, **more: Any) -> Settings:
    named: dict[str, Any] = {"data_dir": folder, "testcard": True, "max_attempts": 2, "rate_limit": "off"}
    return Settings(**(named | more))


@contextlib.contextmanager
def _postgres_copy(server: str, template: str) -> Iterator[str]:
    import psycopg

    name = f"pixeldojo_test_{secrets.token_hex(8)}"
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
        yield urlsplit(server)._replace(path=f"/{name}").geturl()
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture(scope="session", autouse=True)
def logs() -> Iterator[None]:
    """Plain tracebacks, as the service writes them."""
    console = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[structlog.processors.add_log_level, console])
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session", params=["sqlite", "postgres"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A working service, once on SQLite and once on PostgreSQL."""
    folder = tmp_path_factory.mktemp("house")
    with contextlib.ExitStack() as stack:
        url = ""
        if request.param == "postgres":
            server = request.getfixturevalue("postgres_server")
            url = stack.enter_context(_postgres_copy(server, request.getfixturevalue("postgres_template")))
        yield stack.enter_context(serving(_settings(folder, database_url=url)))


@pytest.fixture(scope="session")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service on SQLite in which nothing works on jobs."""
    with serving(_settings(tmp_path_factory.mktemp("still")), works=False) as made:
        yield made


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Makes working services on SQLite with settings of the test's own."""
    with contextlib.ExitStack() as stack:

        def make(*, works: bool = True, listed: list[Card] | None = None, **more: Any) -> Service:
            folder = tmp_path / secrets.token_hex(4)
            return stack.enter_context(serving(_settings(folder, **more), works=works, listed=listed))

        yield make


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Moves the clock forward by so many milliseconds, for the rest of the test."""
    real, moved = clock.now_ms, 0

    def move(by_ms: int) -> None:
        nonlocal moved
        moved += by_ms
        monkeypatch.setattr(clock, "now_ms", lambda: real() + moved)

    return move
