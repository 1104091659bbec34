"""The outermost layer: every request gets an id, is counted and measured, and is answered in the envelope when all
else fails. Unknown routes and errors pass here too, so they carry the same headers.
"""

import random
import time
from collections.abc import Mapping
from typing import Any

import msgspec
import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from pixeldojo import errors, logs, metrics, traces
from pixeldojo.api import callers, respond
from pixeldojo.api.limits import Gate, Headers
from pixeldojo.house import House

_log = structlog.get_logger()


class _Answer:
    """Sends the answer on, with our headers; remembers its status."""

    __slots__ = ("_send", "headers", "status")

    def __init__(self, send: Send, headers: Headers) -> None:
        self._send, self.headers, self.status = send, headers, 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], *self.headers]
        await self._send(message)

    async def refuse(self, error: errors.PixelDojoError, *, request_id: str) -> None:
        """Answer with this error."""
        body = msgspec.json.encode(respond.envelope(error, request_id=request_id))
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        headers += [(name.lower().encode(), value.encode()) for name, value in error.headers.items()]
        await self.send({"type": "http.response.start", "status": error.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body, "more_body": False})


class Edge:
    """Wraps the application, and the `doors` beside it: what answers a path instead of it, refusals included."""

    def __init__(self, app: ASGIApp, house: House, *, doors: Mapping[str, ASGIApp] | None = None) -> None:
        self._app, self._gate, self._doors = app, Gate(house), dict(doors or {})
        self._trusted = house.settings.trusted_proxies
        self._says_all = house.settings.access_log or house.settings.log_level == "debug"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        request_id = f"req_{random.getrandbits(80):020x}"  # a label, not a secret
        scope["request_id"] = request_id  # type: ignore[typeddict-unknown-key]
        logs.begin(request=request_id)
        answer = _Answer(send, [(b"x-request-id", request_id.encode())])
        try:
            with traces.request(scope["method"], scope["headers"]) as span:
                await self._answer(scope, receive, answer, request_id)
                if span is not None:
                    _describe(span, scope, answer.status)
        finally:
            seconds = time.perf_counter() - began
            route = scope.get("path_template") or "none"
            metrics.answered(scope["method"], route, answer.status, seconds=seconds)
            if self._says_all:
                self._say(scope, answer.status, seconds)

    async def _answer(self, scope: Scope, receive: Receive, answer: _Answer, request_id: str) -> None:
        try:
            refusal = await self._gate.admit(scope, answer.headers)
            door = self._doors.get(scope["path"])
            if door is not None:
                scope["refusal"] = refusal  # type: ignore[typeddict-unknown-key]
                await door(scope, receive, answer.send)
            elif refusal is not None:
                await answer.refuse(refusal, request_id=request_id)
            else:
                await self._app(scope, receive, answer.send)
        except Exception:
            _log.exception("request_crashed", path=scope["path"][:200])
            if answer.status:
                raise
            await answer.refuse(errors.InternalError(), request_id=request_id)

    def _say(self, scope: Any, status: int, seconds: float) -> None:
        """The access log's line: no query, which may be signed, and no header."""
        caller = callers.address(scope, trusted=self._trusted)
        _log.info(
            "request_answered", method=scope["method"], path=scope["path"][:200], status=status,
            ms=round(seconds * 1000, 1), caller=str(caller),
        )  # fmt: skip


def _describe(span: Any, scope: Any, status: int) -> None:
    route = scope.get("path_template")
    if route:
        span.update_name(f"{scope['method']} {route}")
        span.set_attribute("http.route", route)
    span.set_attribute("http.response.status_code", status)
    span.set_attribute("pixeldojo.request_id", scope["request_id"])
