"""What goes out over HTTP: JSON bytes, and the one envelope for every error."""

import functools
import re
from collections.abc import Mapping
from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.datastructures import State
from litestar.exceptions import HTTPException

from pixeldojo import errors
from pixeldojo.assets.signing import Signer
from pixeldojo.house import House
from pixeldojo.jobs.view import View

JSON = "application/json"
ApiRequest = Request[Any, Any, State]

_HOST = re.compile(r"[\w.\-]{1,253}(:\d{1,5})?|\[[0-9a-f:.]{2,45}\](:\d{1,5})?", re.ASCII | re.IGNORECASE)
_encode = msgspec.json.Encoder().encode
_log = structlog.get_logger()


def header(request: ApiRequest, name: bytes) -> str | None:
    """One request header (`name` in lower case). Cheaper than the framework's, which decodes all of them.

    One that is sent several times is a list (RFC 9110): so of two keys none is taken for the caller's.
    """
    found = [value for key, value in request.scope["headers"] if key == name]
    return b", ".join(found).decode("latin-1") if found else None


def address(scope: Any, *, public_url: str) -> str:
    """The service's address as the client knows it: the public one if it is set, else where this request came."""
    if public_url:
        return public_url.rstrip("/")
    host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")
    if not _HOST.fullmatch(host):  # HTTP/1.0, or nothing that may stand in a URL, a page or a row
        name, port = scope["server"] or ("localhost", None)
        host = f"{name}:{port}" if port else name
    return f"{scope['scheme']}://{host}"


def base_url(request: ApiRequest) -> str:
    """The service's address as this request's client knows it."""
    return address(request.scope, public_url=request.app.state.house.settings.public_url)


def reply(body: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response[bytes]:
    """`body` as JSON."""
    return Response(_encode(body), status_code=status, media_type=JSON, headers=dict(headers or {}))


def envelope(error: errors.PixelDojoError, *, request_id: str) -> dict[str, Any]:
    """The error as every door of the service shows it."""
    inside: dict[str, Any] = {"code": error.code, "message": error.message, "status": error.status}
    if error.details:
        inside["details"] = [{"path": detail.path, "message": detail.message} for detail in error.details]
    inside["requestId"] = request_id
    return {"error": inside}


def on_error(request: ApiRequest, fault: Exception) -> Response[bytes]:
    """Whatever was raised, in the envelope. The only function that renders errors over HTTP."""
    error = _known(request, fault)
    if error.status >= 500:
        _log.error("request_failed", path=request.url.path[:200], code=error.code, exc_info=fault)
    # JSON can't carry a lone surrogate, and an error must always arrive.
    body = envelope(error, request_id=request.scope["request_id"])  # type: ignore[typeddict-item]
    return reply(body, status=error.status, headers=error.headers)


def _known(request: ApiRequest, fault: Exception) -> errors.PixelDojoError:
    if isinstance(fault, errors.PixelDojoError):
        if isinstance(fault, errors.Unauthorized):
            fault.headers.setdefault("WWW-Authenticate", 'Bearer realm="pixeldojo"')
        return fault
    if isinstance(fault, errors.CommitUnknown):
        message = (
            "The database's connection was lost; it is not known whether anything was changed. Look, then try again."
        )
        return errors.InternalError(message, headers={"Retry-After": "5"})
    if isinstance(fault, errors.DatabaseUnavailable):
        message = "The database is not available at the moment; nothing was changed. Try again."
        return errors.InternalError(message, headers={"Retry-After": "5"})
    if isinstance(fault, HTTPException):
        return _from_framework(request, fault)
    return errors.InternalError()


def _from_framework(request: ApiRequest, fault: HTTPException) -> errors.PixelDojoError:
    where = f"{request.method} {request.url.path[:200]}"
    if fault.status_code == 404:
        return errors.NotFound(f"There is nothing at {where}; the API is described at /api/v1/openapi.json.")
    if fault.status_code == 405:
        allowed = (fault.headers or {}).get("Allow") or (fault.headers or {}).get("allow") or ""
        hint = f"; use {allowed}" if allowed else ""
        return errors.NotFound(f"{where} does not exist{hint}.", headers={"Allow": allowed} if allowed else {})
    if fault.status_code == 413:
        limit = request.app.request_max_body_size if hasattr(request.app, "request_max_body_size") else None
        most = f"{limit} bytes" if isinstance(limit, int) else "the limit"
        return errors.ValidationError.at("", f"The request body is larger than {most}.")
    if fault.status_code < 500:
        return errors.ValidationError(str(fault.detail))
    return errors.InternalError()


def view(request: ApiRequest) -> View:
    """Renders jobs with URLs under the address this request came to."""
    house: House = request.app.state.house
    return _view(house.signer, base_url(request))


@functools.lru_cache(maxsize=16)  # bounded: the address comes from the request's Host header
def _view(signer: Signer, base_url: str) -> View:
    return View(signer=signer, base_url=base_url)
