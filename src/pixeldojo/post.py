"""POSTs to callers' URLs, thousands a second: a URL, headers and bytes in, the head of the answer out.

The general client of `outbound.py` spends more time on a request than the whole delivery of a webhook may take.
This one does only what a webhook needs; where connections may go is decided by `outbound.Guard` here as there.
"""

import asyncio
import contextlib
import ssl
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import httptools

from pixeldojo import __version__, outbound
from pixeldojo.outbound import Guard, Network, OutboundError, Target

_IDLE_S = 15.0
_IDLE_MOST = 128
_HEAD_BYTES = 64 * 1024
_BODY_S = 2.0  # the status is what counts: a body that comes slower than this is not waited for
_AGENT = f"PixelDojo/{__version__} (webhooks)"


class Answer(NamedTuple):
    """What a receiver answered; `body` is its beginning."""

    status: int
    retry_after: str | None
    body: bytes


class _Broken(Exception):
    """The connection ended before an answer. `silent`: not a byte of one had come."""

    def __init__(self, *, silent: bool) -> None:
        self.silent = silent


class _Connection(asyncio.Protocol):
    """One connection, used for one request at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._most = self._heard = 0
        self.reusable = False
        self.timer: asyncio.TimerHandle | None = None

    async def exchange(self, request: bytes, *, most: int) -> Answer:
        """Send a request and hear the answer, of its body about the first `most` bytes. Raises `_Broken`."""
        assert self._transport is not None
        self._parser = httptools.HttpResponseParser(self)
        self._most, self._heard, self._body = most, 0, b""
        self._head_done = self._complete = self.reusable = False
        self._retry_after: str | None = None
        self._answer = self._loop.create_future()
        self._transport.write(request)
        try:
            return await self._answer
        finally:
            self._stop_timer()
            self._answer = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():  # nobody asked: a connection in disorder
            self.close()
            return
        self._heard += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._head_done = True
        except httptools.HttpParserError:
            self._fail(OutboundError("the host's answer is not HTTP", permanent=False))
            return
        if self._complete:
            self.reusable = self._parser.should_keep_alive()
            self._succeed()
        elif self._head_done and len(self._body) >= self._most:
            self._succeed()
        elif self._head_done and self.timer is None:
            self.timer = self._loop.call_later(_BODY_S, self._succeed)
        elif not self._head_done and self._heard > _HEAD_BYTES:
            self._fail(OutboundError("the head of the host's answer is too long", permanent=False))

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"retry-after":
            self._retry_after = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._head_done = self._parser.get_status_code() >= 200  # below: "103 Early Hints" and the like

    def on_body(self, body: bytes) -> None:
        if len(self._body) < self._most:
            self._body += body[: self._most - len(self._body)]

    def on_message_complete(self) -> None:
        self._complete = self._head_done

    def connection_lost(self, exc: Exception | None) -> None:
        self.reusable = False
        self._transport = None
        if self._answer is None or self._answer.done():
            self._stop_timer()
        elif self._head_done:  # a body without a length ends with the connection
            self._succeed()
        else:
            self._fail(_Broken(silent=self._heard == 0))

    def _succeed(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(Answer(self._parser.get_status_code(), self._retry_after, self._body))

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)

    def _stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def idle(self, *, for_s: float) -> None:
        """Wait for another request, but not for longer than this."""
        self.timer = self._loop.call_later(for_s, self.close)

    def resume(self) -> bool:
        """Whether the idle connection can take a request; then it waits no longer."""
        self._stop_timer()
        return self.reusable and self._transport is not None and not self._transport.is_closing()

    def close(self) -> None:
        """Hang up, without waiting for anything."""
        self.reusable = False
        self._stop_timer()
        if self._transport is not None:
            self._transport.abort()


class Poster:
    """Posts, guarded, over connections that are kept for a while. No redirects, no proxies, no cookies."""

    def __init__(self, allow: Sequence[Network]) -> None:
        self._allow = tuple(allow)
        self._guards = {scheme: Guard(allow, public=scheme == "https") for scheme in ("http", "https")}
        self._idle: OrderedDict[_Connection, Target] = OrderedDict()
        self._by_target: dict[tuple[str, str, int], list[_Connection]] = {}

    async def post(self, url: str, *, headers: Mapping[str, str], body: bytes, timeout_s: float, most: int) -> Answer:
        """The answer to `body`, of its own body about the first `most` bytes. Raises `OutboundError`."""
        target = outbound.target(url, self._allow)
        lines = [f"POST {target.path} HTTP/1.1", f"host: {target.authority}", f"user-agent: {_AGENT}", "accept: */*"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += [f"content-length: {len(body)}", "", ""]
        request = "\r\n".join(lines).encode("ascii") + body
        try:
            async with asyncio.timeout(timeout_s):
                return await self._ask(target, request, timeout_s=timeout_s, most=most)
        except TimeoutError:
            raise OutboundError(f"no answer within {timeout_s:g} s", permanent=False) from None
        except _Broken:
            raise OutboundError("the connection broke off before an answer", permanent=False) from None

    async def _ask(self, target: Target, request: bytes, *, timeout_s: float, most: int) -> Answer:
        kept = self._take(target)
        if kept is not None:
            try:
                return await self._exchange(kept, target, request, most=most)
            except _Broken as broken:
                if not broken.silent:
                    raise
                # hung up while it was idle, as servers do: that says nothing about the receiver
        return await self._exchange(await self._connect(target, timeout_s), target, request, most=most)

    async def _exchange(self, connection: _Connection, target: Target, request: bytes, *, most: int) -> Answer:
        try:
            answer = await connection.exchange(request, most=most)
        except BaseException:
            connection.close()
            raise
        self._keep(connection, target)
        return answer

    def _take(self, target: Target) -> _Connection | None:
        kept = self._by_target.get(target[:3])
        while kept:
            connection = kept.pop()
            del self._idle[connection]
            if not kept:
                del self._by_target[target[:3]]
            if connection.resume():
                return connection
        return None

    def _keep(self, connection: _Connection, target: Target) -> None:
        if not connection.reusable:
            connection.close()
            return
        connection.idle(for_s=_IDLE_S)
        self._idle[connection] = target
        self._by_target.setdefault(target[:3], []).append(connection)
        if len(self._idle) > _IDLE_MOST:
            oldest, origin = self._idle.popitem(last=False)
            kept = self._by_target[origin[:3]]
            kept.remove(oldest)
            if not kept:
                del self._by_target[origin[:3]]
            oldest.close()

    async def _connect(self, target: Target, timeout_s: float) -> _Connection:
        addresses = await self._guards[target.scheme].addresses(target.host, timeout=None)
        secure = outbound.tls_context() if target.scheme == "https" else None
        name = target.host if secure else None
        failure: OutboundError | None = None
        for tried, address in enumerate(addresses):
            try:
                # each address gets a share of the time, so that a dead IPv6 route leaves some for IPv4
                async with asyncio.timeout(timeout_s / 2 if tried < len(addresses) - 1 else None):
                    _, connection = await asyncio.get_running_loop().create_connection(
                        _Connection, address, target.port, ssl=secure, server_hostname=name
                    )
                return connection
            except ssl.SSLCertVerificationError:
                failure = OutboundError("the host's TLS certificate is not valid", permanent=True)
            except ssl.SSLError:
                failure = OutboundError("no TLS connection could be made to the host", permanent=False)
            except OSError:  # TimeoutError is one
                failure = OutboundError("no connection could be made to the host", permanent=False)
        assert failure is not None
        raise failure

    def close(self) -> None:
        """Hang up on every connection that is idle."""
        for connection in list(self._idle):
            with contextlib.suppress(RuntimeError):  # the loop is closing too
                connection.close()
        self._idle.clear()
        self._by_target.clear()
