"""How a request of ours reaches the HTTP API: straight into an ASGI application, or over the network.

    async with wire.open("GET", "/jobs/job_…", headers={…}) as answer:     # paths lie under /api/v1
        async for part in answer.parts: ...

Nothing here knows what is asked for. Answers arrive in parts as the service sends them, so events can be followed.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import unquote

import structlog

from pixeldojo import outbound

_log = structlog.get_logger()

API = "/api/v1"


class Unreachable(Exception):
    """No answer came, or it broke off. The message says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer whose body is still arriving. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    parts: AsyncIterator[bytes]


class Wire(Protocol):
    """A way to the API, with its caller's key on every request."""

    def open(
        self, method: str, path: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> contextlib.AbstractAsyncContextManager[Answer]:
        """The answer, open until the block ends. Raises `Unreachable`."""


class InProcess:
    """Calls the application of this very process on behalf of one request, which it takes key, host and id from."""

    _TAKEN = (b"host", b"authorization", b"traceparent")

    def __init__(self, app: Any, scope: Mapping[str, Any]) -> None:
        self._app = app
        self._headers = [pair for pair in scope["headers"] if pair[0] in self._TAKEN]
        self._kept = {name: scope.get(name) for name in ("scheme", "server", "client", "request_id", "http_version")}

    @contextlib.asynccontextmanager
    async def open(
        self, method: str, path: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[Answer]:
        """Run the application as a task that ends with the block."""
        messages: asyncio.Queue[Any] = asyncio.Queue(16)
        asked, gone = False, asyncio.Event()

        async def receive() -> Any:
            nonlocal asked
            if asked:
                await gone.wait()
                return {"type": "http.disconnect"}
            asked = True
            return {"type": "http.request", "body": body or b"", "more_body": False}

        async def run() -> None:
            try:
                await self._app(self._scope(method, path, body, headers or {}), receive, messages.put)
            except Exception:
                _log.exception("request_crashed", path=path[:200])
            await messages.put(None)  # who still reads now learns that nothing follows

        task = asyncio.create_task(run())
        try:
            start = await messages.get()
            if start is None:
                raise Unreachable("the service failed to answer")
            named = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in start["headers"]}
            yield Answer(start["status"], named, self._parts(messages))
        finally:
            gone.set()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _parts(self, messages: "asyncio.Queue[Any]") -> AsyncIterator[bytes]:
        while True:
            message = await messages.get()
            if message is None:
                raise Unreachable("the answer broke off")
            yield message.get("body", b"")
            if not message.get("more_body"):
                return

    def _scope(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> dict[str, Any]:
        raw, _, query = (API + path).partition("?")
        sent = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        if body is not None:
            sent += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        return self._kept | {
            "type": "http",
            "asgi": {"version": "3.0"},
            "method": method,
            "path": unquote(raw),
            "raw_path": raw.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": self._headers + sent,
        }


class OverHttp:
    """Asks a service by its address. `client` is one of `outbound.api_client`, which closes it."""

    def __init__(self, client: Any) -> None:
        self._client = client

    @contextlib.asynccontextmanager
    async def open(
        self, method: str, path: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[Answer]:
        """Send the request; what fails on the way raises `Unreachable`."""
        sent = dict(headers or {}) | ({} if body is None else {"content-type": "application/json"})
        try:
            async with outbound.stream(self._client, method, path, content=body, headers=sent) as (status, told, parts):
                yield Answer(status, told, parts)
        except outbound.OutboundError as error:
            raise Unreachable(error.message) from None
