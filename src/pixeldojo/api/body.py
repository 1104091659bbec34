"""A request's body: its media type looked at, its bytes read up to a bound. What they mean is for the caller."""

from typing import Any

from pixeldojo import errors
from pixeldojo.api.respond import JSON, ApiRequest, header


def require_json(request: ApiRequest) -> None:
    """Raises `InvalidJSON` when the body is declared to be something else; undeclared passes."""
    kind = (header(request, b"content-type") or JSON).partition(";")[0].strip().lower()
    if kind != JSON and not kind.endswith("+json"):
        raise errors.InvalidJSON(f"Send the body as JSON with `Content-Type: application/json`, not {kind[:60]!r}.")


async def read(request: ApiRequest, *, most: int) -> bytes:
    """The whole body. Raises `ValidationError` as soon as it is longer than `most` bytes."""
    parts, size = [], 0
    while True:
        message: Any = await request.receive()
        if message["type"] == "http.disconnect":  # what has come may be valid, but nobody meant it
            raise errors.InvalidJSON("The request body broke off.")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise errors.ValidationError.at("", f"the request body is larger than {most} bytes")
        if not message.get("more_body"):
            return parts[0] if len(parts) == 1 else b"".join(parts)
