"""Server-sent events out of pieces of bytes, as the HTML standard reads them."""

import re
from collections.abc import Iterator
from typing import NamedTuple

_LINE_END = re.compile(rb"\r\n|\r|\n")
_LONGEST = 16 * 2**20


class Message(NamedTuple):
    """One event. `id` is the last one that the stream gave."""

    event: str
    data: str
    id: str


class TooLong(Exception):
    """A message is longer than 16 MiB, which none is."""


class Parser:
    """Takes the pieces of one connection. `last_id` and `retry` outlive it: keep them for the next one."""

    def __init__(self, *, last_id: str, retry: float = 0.0) -> None:
        self.last_id = last_id
        #: Seconds to wait before connecting again, as the stream said.
        self.retry = retry
        self._rest = bytearray()
        self._after_cr = False
        self._event = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, piece: bytes) -> Iterator[Message]:
        """The messages that are whole with this piece."""
        if self._after_cr and piece:
            piece = piece.removeprefix(b"\n")
            self._after_cr = False
        at = len(self._rest)
        self._rest += piece
        start = 0
        while found := _LINE_END.search(self._rest, at):
            self._after_cr = found.group() == b"\r" and found.end() == len(self._rest)
            line = self._rest[start : found.start()].decode("utf-8", "replace")
            start = at = found.end()
            if message := self._line(line):
                yield message
        del self._rest[:start]
        if self._size + len(self._rest) > _LONGEST:
            raise TooLong("a message is longer than 16 MiB")

    def _line(self, line: str) -> Message | None:
        if not line:
            message = Message(self._event or "message", "\n".join(self._data), self.last_id) if self._data else None
            self._event, self._data, self._size = "", [], 0
            return message
        self._size += len(line)
        name, _, text = line.partition(":")
        text = text.removeprefix(" ")
        if name == "event":
            self._event = text
        elif name == "data":
            self._data.append(text)
        elif name == "id" and "\0" not in text:
            self.last_id = text
        elif name == "retry" and re.fullmatch(r"[0-9]{1,8}", text):
            self.retry = int(text) / 1000
        return None
