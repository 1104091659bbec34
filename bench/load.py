"""A small HTTP/1.1 load generator: keep-alive connections, one request at a time on each, bytes prepared ahead.

It does as little as a client can, so that the figure is the server's and not its own.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast


@dataclass
class Tally:
    """What came back: seconds each answer took, and how many had another status than expected."""

    seconds: list[float] = field(default_factory=list)
    wrong: int = 0
    elapsed_s: float = 0.0

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.seconds) / self.elapsed_s

    def quantile_ms(self, q: float) -> float:
        """The q-quantile of the answers' times, in milliseconds."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))] * 1000


class Connection(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self) -> None:
        self._buffer = b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer and not self._answer.done():
            self._answer.set_exception(exc or ConnectionError("closed by the server"))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        at = self._buffer.find(b"content-length: ", 0, head)
        length = int(self._buffer[at + 16 : self._buffer.find(b"\r", at)]) if at >= 0 else 0
        if len(self._buffer) < head + 4 + length:
            return
        body, status = self._buffer[head + 4 : head + 4 + length], int(self._buffer[9:12])
        self._buffer = b""
        if self._answer and not self._answer.done():
            self._answer.set_result((status, body))

    async def send(self, request: bytes) -> tuple[int, bytes]:
        """Send prepared bytes; (status, body) of the answer."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """Hang up."""
        if self._transport:
            self._transport.close()


async def connect(host: str, port: int) -> Connection:
    """An open connection."""
    _, protocol = await asyncio.get_running_loop().create_connection(Connection, host, port)
    return protocol


def request(method: str, path: str, *, key: str = "", body: bytes = b"", headers: str = "") -> bytes:
    """A whole request as bytes; `headers` are more lines of its head, each with its end."""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}"
    if key:
        head += f"Authorization: Bearer {key}\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


async def hammer(
    address: tuple[str, int], make: Callable[[int], bytes], *, connections: int, total: int, expect: int
) -> Tally:
    """Send `total` requests over `connections` connections as fast as the answers come."""
    tally, sent = Tally(), 0
    lines = [await connect(*address) for _ in range(connections)]

    async def work(line: Connection) -> None:
        nonlocal sent
        while sent < total:
            number, sent = sent, sent + 1
            started = time.perf_counter()
            status, _ = await line.send(make(number))
            tally.seconds.append(time.perf_counter() - started)
            tally.wrong += status != expect

    started = time.perf_counter()
    await asyncio.gather(*map(work, lines))
    tally.elapsed_s = time.perf_counter() - started
    for line in lines:
        line.close()
    return tally
