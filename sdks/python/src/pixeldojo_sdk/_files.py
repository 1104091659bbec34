"""Saving to a file, whole or not at all. Bytes come in; the only module here that touches a file system."""

import contextlib
import secrets
from os import PathLike
from pathlib import Path
from typing import BinaryIO


class Part:
    """A file in the making, beside the one it is to become."""

    def __init__(self, path: str | PathLike[str]) -> None:
        self._target = Path(path)
        self._path = self._target.with_name(f"{self._target.name}.{secrets.token_hex(4)}.part")
        self._file: BinaryIO | None = None
        self._unwanted = False
        self.size = 0

    def open(self) -> None:
        """Make it, and the folders it lies in."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("xb")
        if self._unwanted:  # whoever wanted it was cancelled while this ran in its thread
            self.discard()

    def write(self, piece: bytes) -> None:
        """Add bytes."""
        assert self._file is not None
        self._file.write(piece)
        self.size += len(piece)

    def finish(self) -> None:
        """Let it take its place."""
        assert self._file is not None
        self._file.close()
        self._path.replace(self._target)

    def discard(self) -> None:
        """Remove it."""
        self._unwanted = True
        with contextlib.suppress(OSError):
            if self._file is not None:
                self._file.close()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
