"""A small receiver of webhooks: counts what comes and when, answers at once, or, at `/hang`, never."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime

_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_STAMP = re.compile(rb'"timestamp":"([^"]+)"')
_ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


@dataclass
class Receiver:
    """What was received. Delays are seconds from the end of a job to the arrival of its webhook."""

    port: int = 0
    count: int = 0
    hanging: int = 0
    first: float = 0.0
    delays: list[float] = field(default_factory=list)

    def url(self, path: str) -> str:
        """Where to send."""
        return f"http://127.0.0.1:{self.port}{path}"

    def took(self, request: bytes, body: bytes) -> bool:
        """Note a request; whether to answer it."""
        if request.startswith(b"POST /hang"):
            self.hanging += 1
            return False
        self.first, self.count = self.first or time.perf_counter(), self.count + 1
        if stamp := _STAMP.search(body):
            ended = datetime.fromisoformat(stamp[1].decode()).timestamp()
            self.delays.append(time.time() - ended)
        return True


class _Line(asyncio.Protocol):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver, self._buffer = receiver, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head = self._buffer.find(b"\r\n\r\n")
        found = _LENGTH.search(self._buffer, 0, head) if head >= 0 else None
        if found is None or len(self._buffer) < head + 4 + int(found[1]):
            return
        whole, self._buffer = self._buffer, b""
        if self._receiver.took(whole[:head], whole[head + 4 :]):
            self._transport.write(_ANSWER)  # type: ignore[attr-defined]


@contextlib.asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver that listens until the block ends."""
    receiver = Receiver()
    server = await asyncio.get_running_loop().create_server(lambda: _Line(receiver), "127.0.0.1", 0, backlog=1024)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
