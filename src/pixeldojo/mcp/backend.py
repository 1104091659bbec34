"""The HTTP API as the tools see it: objects out, or a `Fault` that tells an agent what to change.

Paths lie under `/api/v1`. What the service answers is not trusted: whatever it is, it becomes an object or a `Fault`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec

from pixeldojo.assets import uploads
from pixeldojo.mcp.wire import Answer, Unreachable, Wire

Object = dict[str, Any]

ENDED = ("completed", "failed")
_MOST_JSON = 32 * 2**20
_MOST_EVENT = 2**20
_ASSETS = "/api/v1/assets/"
_PAUSE_S = 1.0
_TRIES = 3  # of a request that got no answer; a submit carries an idempotency key, so it may be repeated

_REMEDIES = {
    "unauthorized": "Use an API key that works and has the scope named in the message; "
    "`pixeldojo keys create` makes one.",
    "validation_error": "Change the parameters named in details, then call again; model_schema shows what a model "
    "takes.",
    "invalid_json": "Send the arguments as a JSON object.",
    "not_found": "Check the id: list_models shows the models, list_jobs your jobs.",
    "insufficient_credits": "Choose a cheaper model or fewer outputs (estimate tells prices), or ask the account's "
    "owner for credits.",
    "expired": "Results are kept for a limited time and are gone: call generate again, with the same seed for the "
    "same picture.",
    "rate_limit_exceeded": "Wait for the seconds in retryAfterSeconds, then call again.",
    "unreachable": "Check that the service runs at this address, then call again.",
    "bad_answer": "Check that the address is that of a PixelDojo service.",
}
_LATER = "Nothing to change: try again in a few seconds."


class Fault(Exception):
    """A tool can't do what was asked. `more` joins code, message and remedy in what the agent sees."""

    def __init__(self, code: str, message: str, *, remedy: str | None = None, **more: Any) -> None:
        super().__init__(message)
        self.code, self.message, self.more = code, message, more
        self.remedy = remedy or _REMEDIES.get(code, _LATER)

    def shown(self) -> Object:
        """The fault as the agent reads it."""
        more = {name: value for name, value in self.more.items() if value is not None}
        return {"error": {"code": self.code, "message": self.message, "remedy": self.remedy} | more}


def invalid(path: str, message: str, **more: Any) -> Fault:
    """The fault of one argument."""
    return Fault("validation_error", f"{path}: {message}", details=[{"path": path, "message": message}], **more)


class Shelf(Protocol):
    """Where uploaded pictures lie until a job uses them."""

    async def keep(self, data: bytes) -> str:
        """The id of the picture; the same bytes have the same id."""

    async def find(self, upload_id: str) -> bytes | None:
        """The picture, or None when it is not there (any more)."""


class MemoryShelf:
    """The uploads of one agent, in this process: a few of them, a new one pushes out the oldest."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}

    async def keep(self, data: bytes) -> str:
        """The id of the picture."""
        upload_id = uploads.id_of(data)
        self._kept.pop(upload_id, None)
        self._kept[upload_id] = data
        while len(self._kept) > uploads.MOST or sum(map(len, self._kept.values())) > uploads.MOST_BYTES:
            del self._kept[next(iter(self._kept))]
        return upload_id

    async def find(self, upload_id: str) -> bytes | None:
        """The picture, or None when it is not there (any more)."""
        return self._kept.get(upload_id)


class ClosedShelf:
    """For a key that may not submit jobs: it has no use for uploads."""

    async def keep(self, data: bytes) -> str:
        """Raises `Fault`."""
        raise Fault("unauthorized", "This API key lacks the scope jobs:write.")

    async def find(self, upload_id: str) -> bytes | None:
        """Nothing is here."""
        return None


class Backend:
    """One caller's way to one service."""

    def __init__(self, wire: Wire, shelf: Shelf, *, leaving: Callable[[], bool] = lambda: False) -> None:
        """`leaving` tells whether this process is going down, so that nobody should wait any longer."""
        self._wire, self.shelf, self._leaving = wire, shelf, leaving

    async def call(
        self, method: str, path: str, body: Object | None = None, *, headers: Mapping[str, str] | None = None
    ) -> Object:
        """The object of a good answer. Raises `Fault`."""
        told, _ = await self.exchange(method, path, body, headers=headers)
        return told

    async def exchange(
        self, method: str, path: str, body: Object | None = None, *, headers: Mapping[str, str] | None = None
    ) -> tuple[Object, Mapping[str, str]]:
        """The object of a good answer and the answer's headers. Raises `Fault`."""
        sent = None if body is None else msgspec.json.encode(body)
        for tried in range(1, _TRIES + 1):
            try:
                async with self._wire.open(method, path, body=sent, headers=headers) as answer:
                    raw = await _whole(answer, most=_MOST_JSON)
                break
            except _TooLong:
                raise Fault("bad_answer", "The service's answer is too long.") from None
            except Unreachable as error:
                if tried == _TRIES:
                    raise Fault("unreachable", str(error)) from None
                await asyncio.sleep(0.1 * tried)
        if not 200 <= answer.status < 300:
            raise _refused(answer, raw)
        return _object(raw), answer.headers

    async def picture(self, url: str, *, most: int) -> bytes | None:
        """The bytes of one of our own results, None when it has more than `most`. Raises `Fault`.

        Only the path is used: whatever host the address names, nothing but this service is asked.
        """
        parts = urlsplit(url)
        _, found, rest = parts.path.partition(_ASSETS)
        if not found:
            raise invalid("url", "is not the address of one of this service's results")
        try:
            async with self._wire.open("GET", f"/assets/{rest}?{parts.query}") as answer:
                if answer.status != 200:
                    raise _refused(answer, await _whole(answer, most=_MOST_JSON))
                length = answer.headers.get("content-length", "")
                if length.isdecimal() and int(length) > most:
                    return None
                return await _whole(answer, most=most)
        except _TooLong:
            return None
        except Unreachable as error:
            raise Fault("unreachable", str(error)) from None

    async def ends(self, job_id: str, *, within_s: float, watch: "Watch") -> Object:
        """The job once it has ended, or as it is after `within_s` seconds; `watch` hears of it meanwhile.

        Follows the job's events; where they break off the job is asked again, until the time is over.
        """
        until = time.monotonic() + within_s
        while True:
            left = until - time.monotonic()
            if left > 0:
                job = await self._follow(job_id, within_s=left, watch=watch)
                if job is not None:
                    return job
            try:
                job = await self.call("GET", f"/jobs/{job_id}")
            except Fault as fault:
                wait_s = fault.more.get("retryAfterSeconds") or _PAUSE_S
                passing = fault.code in ("rate_limit_exceeded", "unreachable", "internal_error")
                if not passing or time.monotonic() + wait_s > until:
                    raise
                await asyncio.sleep(wait_s)
                continue
            if job.get("status") in ENDED or time.monotonic() + _PAUSE_S > until or self._leaving():
                return job
            await watch(job)
            await asyncio.sleep(_PAUSE_S)

    async def _follow(self, job_id: str, *, within_s: float, watch: "Watch") -> Object | None:
        """The job's last event; None when the stream ended without one, or the time was over."""
        try:
            async with asyncio.timeout(within_s), self._wire.open("GET", f"/jobs/{job_id}/events") as answer:
                if answer.status != 200:
                    return None
                async for job in _events(answer):
                    if job.get("status") in ENDED:
                        return job
                    await watch(job)
        except (TimeoutError, Unreachable, _TooLong):
            pass
        return None


class Watch(Protocol):
    """Hears of a job while it is waited for."""

    async def __call__(self, job: Object) -> None: ...


class _TooLong(Exception):
    """The answer is larger than it may be."""


async def _whole(answer: Answer, *, most: int) -> bytes:
    body = bytearray()
    async for part in answer.parts:
        body += part
        if len(body) > most:
            raise _TooLong
    return bytes(body)


async def _events(answer: Answer) -> AsyncIterator[Object]:
    """The jobs in an event stream; events that hold none, and comments, are passed over."""
    held = b""
    async for part in answer.parts:
        held += part
        if len(held) > _MOST_EVENT:
            raise _TooLong
        *events, held = held.replace(b"\r\n", b"\n").split(b"\n\n")
        for event in events:
            lines = [line[5:].lstrip() for line in event.split(b"\n") if line.startswith(b"data:")]
            try:
                found = msgspec.json.decode(b"\n".join(lines))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                continue
            if isinstance(found, dict) and "status" in found:
                yield found


def _object(raw: bytes) -> Object:
    try:
        return msgspec.json.decode(raw, type=Object)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Fault("bad_answer", "The service's answer is not a JSON object.") from None


def _refused(answer: Answer, raw: bytes) -> Fault:
    """The fault that an answer tells, or that it tells none."""
    try:
        error = msgspec.json.decode(raw)["error"]
        code, message = error["code"], error["message"]
        if not isinstance(code, str) or not isinstance(message, str):
            raise TypeError
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, LookupError, TypeError):
        text = f"The service answered with status {answer.status} and no error that PixelDojo knows."
        return Fault("bad_answer", text, status=answer.status)
    wait = answer.headers.get("retry-after", "")
    return Fault(
        code, message, status=answer.status,
        details=error.get("details") or None,
        retryAfterSeconds=int(wait) if wait.isascii() and wait.isdigit() and len(wait) < 6 else None,
        requestId=error.get("requestId"),
    )  # fmt: skip
