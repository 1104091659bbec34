"""`/mcp` beside the API, and the metadata that clients look for: who may come in, and how they learn it.

An ASGI application that gets the requests of its `PATHS`. The SDK is imported with the first call that may come in, on
a thread, so that nobody else waits for it. Refusals are JSON-RPC errors, because clients show their messages.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from pixeldojo import errors
from pixeldojo.accounts import service as accounts
from pixeldojo.assets.uploads import Uploads
from pixeldojo.house import House
from pixeldojo.mcp.backend import Backend, ClosedShelf
from pixeldojo.mcp.wire import InProcess

PATH = "/mcp"
METADATA = "/.well-known/oauth-protected-resource"
PATHS = (PATH, f"{PATH}/", METADATA, f"{METADATA}{PATH}")

_REFUSED = -32000  # JSON-RPC leaves -32000 to -32019 to implementations; `data` tells which refusal it is
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Door:
    """The door over an open house. `api` is the API's application, `address` tells a request's base URL."""

    def __init__(self, house: House, api: Any, *, address: Callable[[Any], str]) -> None:
        self._house, self._api, self._address = house, api, address

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer. `scope["refusal"]` is an error when the request is one too many."""
        scope["path_template"] = scope["path"]
        if scope["path"].startswith(METADATA):
            await self._tell(scope, send)
            return
        try:
            caller = await self._admit(scope)
            body = await _body(receive, most=self._house.settings.max_body_bytes)
        except errors.PixelDojoError as error:
            await _refuse(scope, send, error)
            return
        except errors.DatabaseUnavailable:
            await _refuse(scope, send, errors.InternalError("The database is not available at the moment. Try again."))
            return
        if body is not None:
            server = await asyncio.to_thread(_server)
            await server.answer(self._backend(scope, caller), body=body, scope=scope, receive=receive, send=send)

    def _backend(self, scope: Any, caller: accounts.Caller) -> Backend:
        house = self._house
        may = caller.scopes & {"jobs:write", "admin"}
        shelf = Uploads(house.files, caller.account_id) if may else ClosedShelf()
        return Backend(InProcess(self._api, scope), shelf, leaving=lambda: house.leaving.now)

    async def _admit(self, scope: Any) -> accounts.Caller:
        """The caller. Raises the error that the request is to be answered with."""
        if scope.get("refusal") is not None:
            raise scope["refusal"]
        self._check_origin(_header(scope, b"origin"))
        authorization = _header(scope, b"authorization")
        try:
            caller = await self._house.db.read(accounts.authenticate, authorization)
        except errors.Unauthorized as error:
            error.headers["WWW-Authenticate"] = self._challenge(scope, tried=authorization is not None)
            raise
        if scope["method"] != "POST":
            text = "There is no stream to open and no session to end here: send messages with POST."
            raise _NotAllowed(text, headers={"Allow": "POST"})
        return caller

    def _check_origin(self, origin: str | None) -> None:
        """Refuse pages of other sites, also those that made their name lead here (DNS rebinding): a browser tells the
        page's origin, and the name in it is neither this machine's nor the service's own."""
        if origin is None:
            return
        try:
            host = urlsplit(origin).hostname
        except ValueError:
            host = None
        public = self._house.settings.public_url
        if host not in _LOOPBACK and not (host and public and host == urlsplit(public).hostname):
            text = "Requests from pages of this origin are refused; PIXELDOJO_PUBLIC_URL names the service's own."
            raise _Forbidden(text)

    def _challenge(self, scope: Any, *, tried: bool) -> str:
        """RFC 9728, section 5.1, and RFC 6750."""
        fault = ', error="invalid_token"' if tried else ""
        return f'Bearer realm="pixeldojo"{fault}, resource_metadata="{self._address(scope)}{METADATA}{PATH}"'

    async def _tell(self, scope: Any, send: Any) -> None:
        """The protected resource's metadata (RFC 9728). There is no authorization server: keys are made here."""
        if scope.get("refusal") is not None or scope["method"] not in ("GET", "HEAD"):
            await _refuse(scope, send, scope.get("refusal") or _NotAllowed(headers={"Allow": "GET, HEAD"}))
            return
        base = self._address(scope)
        told = {
            "resource": f"{base}{PATH}",
            "resource_name": "PixelDojo",
            "bearer_methods_supported": ["header"],
            "scopes_supported": list(accounts.DEFAULT_SCOPES),
            "resource_documentation": f"{base}/docs",
        }
        headers = {"Cache-Control": "max-age=3600", "Access-Control-Allow-Origin": "*"}
        await _send(scope, send, 200, told, headers)


class _NotAllowed(errors.NotFound):
    """Use the method that Allow names."""

    status = 405


class _Forbidden(errors.Unauthorized):
    """The origin is refused."""

    status = 403


class _TooLarge(errors.ValidationError):
    """The body is too large."""

    status = 413


def _header(scope: Any, name: bytes) -> str | None:
    """A header; one that is sent several times is a list, so of two keys none is taken for the caller's."""
    found = [value for each, value in scope["headers"] if each == name]
    return b", ".join(found).decode("latin-1") if found else None


def _server() -> Any:
    """The module over the SDK. Python's import lock makes it once, whoever asks at the same time."""
    from pixeldojo.mcp import server

    return server


async def _body(receive: Any, *, most: int) -> bytes | None:
    """The request's body; None when the client has gone. Raises `_TooLarge` as soon as it is more than `most` bytes."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > most:
            raise _TooLarge(f"The request body is larger than {most} bytes.")
        if not message.get("more_body"):
            return bytes(body)


async def _refuse(scope: Any, send: Any, error: errors.PixelDojoError) -> None:
    wait = error.headers.get("Retry-After")
    data = {"code": error.code, "status": error.status, "requestId": scope["request_id"]}
    if wait is not None:
        data["retryAfterSeconds"] = int(wait)
    body = {"jsonrpc": "2.0", "id": None, "error": {"code": _REFUSED, "message": error.message, "data": data}}
    await _send(scope, send, error.status, body, error.headers)


async def _send(scope: Any, send: Any, status: int, body: object, headers: Mapping[str, str]) -> None:
    raw = msgspec.json.encode(body)
    pairs = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(raw))]
    pairs += [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else raw, "more_body": False})
