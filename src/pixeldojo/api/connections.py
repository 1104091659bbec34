"""One client's connection: uvicorn's HTTP protocol, with an end to clients that never get on.

A request's head has a size and a time, its body a least pace, and an answer somebody who takes it; and of requests
that are half sent only so many are kept. Knows bytes and time, nothing of what is asked.
"""

import asyncio
import random
from typing import Any, ClassVar

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pixeldojo import errors
from pixeldojo.api import respond

HEAD_BYTES = 64 * 1024
BODY_PACE = 16 * 1024  # bytes a second: a body that falls behind it has used up its time
MOST_WAITING = 1000
_YOUNG_S = 1.0  # who came just now is never put out: its request is probably on its way


class Connection(HttpToolsProtocol):
    """The connections of one server; `bounded` makes the class."""

    timeout_s: ClassVar[float]
    waiting: ClassVar[dict["Connection", None]]  # whose request is not whole yet, the longest first

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._began = 0.0
        self._head_bytes = self._body_bytes = 0
        self._in_head, self._whole = True, False
        self._timer: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come: its time begins."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._wait_no_more()
        self._resumed()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some of a request has come, or the end of one and the beginning of others."""
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
                self._refuse(f"The head of the request is larger than {HEAD_BYTES} bytes.")
                return
        # Without a whole request that we are about to answer, it is the client's turn, whatever bytes it sent.
        if self._whole and not self.cycle.response_complete:
            self._wait_no_more()
        elif self._timer is None:
            self._wait()

    def on_message_begin(self) -> None:
        """See the parser."""
        self._in_head, self._whole = True, False
        self._head_bytes = self._body_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """See the parser."""
        self._in_head = False
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """See the parser."""
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """See the parser."""
        self._whole = True
        super().on_message_complete()

    def pause_writing(self) -> None:
        """The client does not take what we send."""
        super().pause_writing()
        self._stalled = self.loop.call_later(self.timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        """It takes some again."""
        self._resumed()
        super().resume_writing()

    def _resumed(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is answered in the envelope too."""
        self._refuse("The request is not valid HTTP.")

    def _refuse(self, message: str) -> None:
        request_id = f"req_{random.getrandbits(80):020x}"
        body = msgspec.json.encode(respond.envelope(errors.ValidationError(message), request_id=request_id))
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
            f"x-request-id: {request_id}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _wait(self) -> None:
        """From now on the client has to get on."""
        self._began = self.loop.time()
        self.waiting[self] = None
        self._timer = self.loop.call_later(self.timeout_s, self._look)
        if len(self.waiting) > MOST_WAITING:
            longest = next(iter(self.waiting))
            if self._began - longest._began > _YOUNG_S:
                longest._hang_up()

    def _wait_no_more(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self.waiting.pop(self, None)

    def _look(self) -> None:
        """Its time is over, but for a body that comes quickly enough, or that we do not read at the moment."""
        self._timer = None
        left_s = 0.0
        if not self._in_head and not self.cycle.response_complete:
            left_s = self._began + self.timeout_s + self._body_bytes / BODY_PACE - self.loop.time()
            if self.flow.read_paused:
                left_s = self.timeout_s
        if left_s > 0:
            self._timer = self.loop.call_later(left_s, self._look)
        else:
            self._hang_up()

    def _hang_up(self) -> None:
        self.waiting.pop(self, None)
        self.transport.close()


def bounded(*, timeout_s: float) -> type[Connection]:
    """The protocol of a server whose clients may stall for so many seconds."""
    return type("Connection", (Connection,), {"timeout_s": timeout_s, "waiting": {}})
