"""Pictures that an account has uploaded and a job has not used yet: `uploads/<account>/<id>` in the storage.

The id is made of the bytes, so the same picture lies there once. An account holds a few of them: a new one pushes out
the oldest. They are gone after a day; nothing depends on them, for a job keeps its own copy of its inputs.
"""

import hashlib
import re
from datetime import UTC, datetime

from pixeldojo import clock
from pixeldojo.assets.files import Files

MOST = 20
MOST_BYTES = 64 * 2**20
KEPT_S = 24 * 3600
_FOLDER = "uploads"
_ID = re.compile(r"upload_[0-9a-f]{32}")


def id_of(data: bytes) -> str:
    """The id of these bytes."""
    return f"upload_{hashlib.sha256(data).hexdigest()[:32]}"


class Uploads:
    """One account's uploads."""

    def __init__(self, files: Files, account_id: str) -> None:
        self._files, self._folder = files, f"{_FOLDER}/{account_id}"

    async def keep(self, data: bytes) -> str:
        """The id of the picture, which is kept from now on. Raises `FilesUnavailable`."""
        upload_id = id_of(data)
        name = f"{self._folder}/{upload_id}"
        others = [each for each in await self._files.under(self._folder) if each.name != name]
        others.sort(key=lambda each: each.made, reverse=True)
        room, gone = MOST_BYTES - len(data), []
        for number, each in enumerate(others, 2):
            room -= each.size
            if number > MOST or room < 0:
                gone.append(each.name)
        await self._files.remove(gone)
        await self._files.write(name, data)
        return upload_id

    async def find(self, upload_id: str) -> bytes | None:
        """The picture, or None when it is not there (any more)."""
        if not _ID.fullmatch(upload_id):
            return None
        name = f"{self._folder}/{upload_id}"
        size = await self._files.size(name)
        if size is None:
            return None
        try:
            return b"".join([part async for part in self._files.read(name, start=0, end=size)])
        except FileNotFoundError:  # swept just now
            return None


async def sweep(files: Files) -> int:
    """Remove every account's old uploads; how many there were. Raises `FilesUnavailable`."""
    oldest = datetime.fromtimestamp(clock.now_ms() / 1000 - KEPT_S, UTC)
    old = [each.name for each in await files.under(_FOLDER) if each.made < oldest]
    await files.remove(old)
    return len(old)
