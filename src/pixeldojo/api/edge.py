"""The outermost layer: gives each request an id and answers in the envelope when all else fails."""

import random

import msgspec
import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from pixeldojo import errors
from pixeldojo.api import respond

_log = structlog.get_logger()


class Edge:
    """Wraps the application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        request_id = f"req_{random.getrandbits(80):020x}"  # a label, not a secret
        scope["request_id"] = request_id  # type: ignore[typeddict-unknown-key]
        header = (b"x-request-id", request_id.encode())
        begun = False

        async def send_with_id(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message["headers"] = [*message["headers"], header]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            _log.exception("request_crashed", path=scope["path"], request_id=request_id)
            if begun:
                raise
            body = msgspec.json.encode(respond.envelope(errors.InternalError(), request_id=request_id))
            headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
            await send_with_id({"type": "http.response.start", "status": 500, "headers": headers})
            await send_with_id({"type": "http.response.body", "body": body, "more_body": False})
