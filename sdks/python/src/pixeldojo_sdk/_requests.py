"""Requests as operations: attempts and retries, and every bad answer as one of this package's errors. No IO here."""

import email.utils
import json
import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypeVar
from urllib.parse import quote, urlencode

from pixeldojo_sdk import _decode, errors
from pixeldojo_sdk._effects import Close, Open, Operation, Read, Request, Sleep, Stream
from pixeldojo_sdk._version import VERSION

R = TypeVar("R")
T = TypeVar("T")

_LONGEST_BACKOFF = 8.0
_MOST_BYTES = 64 * 2**20  # no answer of the API is as long; a broken one could go on for ever
_MOST_ERROR_BYTES = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the client was made with. Times in seconds."""

    api_key: str | None
    root: str
    timeout: float
    max_retries: int
    retry_base: float
    max_retry_after: float
    poll_interval: float
    max_poll_interval: float
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A request to the API, or with `url` to an address outside of it: then without the key, and with redirects."""

    path: str = ""
    url: str = ""
    method: Literal["GET", "POST", "DELETE"] = "GET"
    query: Mapping[str, object] = field(default_factory=dict)
    json: object = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: float | None = None
    #: `refused`: only when the service says that it did nothing, because a second time would do it twice.
    retry: Literal["always", "refused", "never"] = "always"


def segment(value: str, what: str) -> str:
    """An id as a part of a path."""
    if value in ("", ".", ".."):
        raise ValueError(f"{what} must be the id of one, not {value!r}")
    return quote(value, safe="", errors="replace")


def is_transient(error: Exception) -> bool:
    """Whether the same request may do better in a moment."""
    if isinstance(error, errors.ConnectionError | errors.TimeoutError | errors.RateLimitError):
        return True
    return isinstance(error, errors.PixelDojoError) and (error.status or 0) >= 500


def backoff(error: Exception, tried: int, options: Options, retry: str = "always") -> float | None:
    """How many seconds to wait before attempt number `tried` + 1; None to give up."""
    if not is_transient(error) or tried > options.max_retries or retry == "never":
        return None
    if retry == "refused" and not isinstance(error, errors.RateLimitError):
        return None
    told = getattr(error, "retry_after", None) or 0.0
    if told > options.max_retry_after:
        return None
    most = min(_LONGEST_BACKOFF, options.retry_base * 2.0 ** min(tried - 1, 30))
    jitter = random.uniform(0, most)  # noqa: S311 - it spreads load, it guards nothing
    return told + min(jitter, told / 4) if told > 0 else jitter


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that `Retry-After` asks for: a number, or a date by the clock of the server that wrote it."""
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        return float(text)
    until = _date(text)
    if until is None:
        return None
    now = _date(headers.get("date", ""))
    return max(0.0, until - (time.time() if now is None else now))


def _date(text: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


def request(ask: Ask, options: Options) -> Request:
    """The request as it goes over the wire."""
    ours = not ask.url
    headers = {"accept": "application/json" if ours else "*/*", "user-agent": f"pixeldojo-python/{VERSION}"}
    if ours:
        headers |= {name.lower(): value for name, value in options.headers.items()}
        if options.api_key:
            headers["authorization"] = f"Bearer {options.api_key}"
    content = None
    if ask.json is not None:
        content = json.dumps(ask.json, allow_nan=False, separators=(",", ":")).encode()
        headers["content-type"] = "application/json"
    headers |= ask.headers
    for name, value in headers.items():
        if not (name.isascii() and name.isprintable() and value.isprintable()):
            raise ValueError(f"the header {name!r} contains something that no header contains")
    url = ask.url or options.root + ask.path
    query = {name: _query_text(value) for name, value in ask.query.items() if value is not None}
    if query:
        url += "?" + urlencode(query)
    return Request(ask.method, url, headers, content, follow_redirects=not ours)


def _query_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def time_text(given: datetime | str | None) -> str | None:
    """A time as the API reads it. Raises ValueError for a datetime without a zone."""
    if isinstance(given, datetime):
        if given.tzinfo is None:
            raise ValueError("the time has no zone: write datetime(…, tzinfo=UTC)")
        return given.isoformat()
    return given


def attempts(ask: Ask, options: Options, attempt: Callable[[], Operation[T]]) -> Operation[T]:
    """The result of `attempt`, made again while that may help."""
    tried = 0
    while True:
        tried += 1
        try:
            return (yield from attempt())
        except errors.PixelDojoError as error:
            wait = backoff(error, tried, options, ask.retry)
            if wait is None:
                raise
        yield Sleep(wait)


def fetch(ask: Ask, options: Options, kind: type[R], check: Callable[[R], object] | None = None) -> Operation[R]:
    """The answer as an object of this dataclass. `check` may raise `ShapeError`."""
    sent = request(ask, options)

    def attempt() -> Operation[R]:
        limit = options.timeout if ask.timeout is None else ask.timeout
        until = time.monotonic() + limit
        stream = yield from _open(sent, until=until, pause=limit)
        body = yield from _read_all(stream, sent, until=until, most=_MOST_BYTES)
        try:
            found = _decode.record(kind, _decode.parse(body))
            if check is not None:
                check(found)
            return found
        except _decode.ShapeError as fault:
            text = f"{sent.place} answered with something else than was asked for: {fault}"
            raise unreadable(text, stream, body) from None

    return (yield from attempts(ask, options, attempt))


def opened(ask: Ask, options: Options, pause: float) -> Operation[Stream]:
    """A good answer whose body is still to come, at one attempt."""
    sent = request(ask, options)
    limit = options.timeout if ask.timeout is None else ask.timeout
    return (yield from _open(sent, until=time.monotonic() + limit, pause=pause))


def _open(sent: Request, *, until: float, pause: float) -> Operation[Stream]:
    stream: Stream = yield Open(sent, until, pause)
    if 200 <= stream.status < 300:
        return stream
    if 300 <= stream.status < 400:
        yield Close(stream)
        to = stream.headers.get("location", "")
        text = f"{sent.place} redirects{f' to {to[:200]}' if to else ''}; set `base_url` to the service's own address"
        raise unreadable(text, stream)
    body = yield from _read_all(stream, sent, until=until, most=_MOST_ERROR_BYTES)
    raise _refusal(sent, stream, body)


def _read_all(stream: Stream, sent: Request, *, until: float, most: int) -> Operation[bytes]:
    body = bytearray()
    try:
        while (piece := (yield Read(stream, until))) is not None:
            body += piece
            if len(body) > most:
                raise unreadable(f"{sent.place} answered with more than {most >> 20} MiB", stream, bytes(body[:1000]))
    except Exception:
        yield Close(stream)
        raise
    yield Close(stream)
    return bytes(body)


def unreadable(message: str, stream: Stream, body: bytes = b"") -> errors.InvalidResponseError:
    """The error for an answer that PixelDojo does not give."""
    request_id = stream.headers.get("x-request-id")
    text = body[:1000].decode("utf-8", "replace")
    return errors.InvalidResponseError(
        message, status=stream.status, request_id=request_id, body=text, retry_after=retry_after(stream.headers)
    )


def _refusal(sent: Request, stream: Stream, body: bytes) -> errors.PixelDojoError:
    try:
        value = _decode.parse(body)
    except _decode.ShapeError:
        value = None
    fault = value.get("error") if isinstance(value, dict) else None
    if not isinstance(fault, dict) or not isinstance(fault.get("code"), str):
        fault = {}
    code, message, request_id = fault.get("code"), fault.get("message"), fault.get("requestId")
    if not isinstance(code, str) or not isinstance(message, str):
        return unreadable(f"{sent.place} answered {stream.status} without an error that PixelDojo gives", stream, body)
    return errors.by_code(
        code,
        message,
        status=stream.status,
        request_id=request_id if isinstance(request_id, str) else stream.headers.get("x-request-id"),
        retry_after=retry_after(stream.headers),
        details=_details(fault.get("details")),
    )


def _details(value: object) -> list[errors.ErrorDetail]:
    found = []
    for each in value if isinstance(value, list) else []:
        if isinstance(each, dict):
            path, message = each.get("path"), each.get("message")
            if isinstance(path, str) and isinstance(message, str):
                found.append(errors.ErrorDetail(path, message))
    return found
