"""A server on this machine that answers one request after the other as told, and remembers what it was asked.

What it is told are the responses of `sdks/fixtures`; what it speaks is real HTTP, its faults included.
"""

import base64
import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl

Told = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Fake"

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        path, _, query = self.path.partition("?")
        headers = {name.lower(): value for name, value in self.headers.items()}
        seen = Seen(self.command, path, dict(parse_qsl(query)), headers, body)
        with self.server.lock:
            number = len(self.server.seen)
            self.server.seen.append(seen)
        self._send(self.server.answer(seen, number))

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def _send(self, told: Told) -> None:
        if told.get("close") == "before":
            self._cut()
            return
        if told.get("hang") == "before":
            self._hang()
            return
        headers = dict(told.get("headers", {}))
        text = told.get("text", "")
        if "json" in told:
            headers.setdefault("content-type", "application/json")
            text = json.dumps(told["json"])
        self.send_response_only(told.get("status", 200))
        for name, value in headers.items():
            self.send_header(name, value)
        fault = told.get("close") or told.get("hang")
        if isinstance(text, list):
            self._send_parts(text, ends=not fault)
        else:
            body = base64.b64decode(told["bytes"]) if "bytes" in told else text.encode()
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if fault else body)
        if told.get("hang"):
            self._hang()
        elif told.get("close"):
            time.sleep(0.02)  # so that what was written is read before the connection is gone
            self._cut()

    def _send_parts(self, parts: list[str], *, ends: bool) -> None:
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for part in [*parts, ""] if ends else parts:
            data = part.encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()
            time.sleep(0.005)

    def _cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _hang(self) -> None:
        self.close_connection = True
        self.server.ending.wait(20)

    def log_message(self, *_: object) -> None:
        pass


class Fake(ThreadingHTTPServer):
    """Answers with `answer(request, its number)`, until the end of the `with`."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, answer: Callable[[Seen, int], Told]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.seen: list[Seen] = []
        self.lock = threading.Lock()
        self.ending = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, *_: object) -> None:
        pass  # clients that leave early are what some tests are about
