"""Where results lie: a local folder by default, or S3, Google Cloud Storage or Azure by one URL.

Keys are `<job id>/<index>.<extension>`: the same job always writes the same keys, so an attempt that is
repeated replaces its own files and nothing else.
"""

import asyncio
import errno
import os
import shutil
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import obstore
from obstore.store import LocalStore, ObjectStore, from_url

CONTENT_TYPES = {
    "png": "image/png", "jpg": "image/jpeg", "webp": "image/webp", "gif": "image/gif",
    "mp4": "video/mp4", "webm": "video/webm",
}  # fmt: skip
EXTENSIONS = {content_type: extension for extension, content_type in CONTENT_TYPES.items()}
_CHUNK = 256 * 1024


class FilesUnavailable(Exception):
    """The storage could not do it (a full disk, say). Trying again later may help."""


def key(job_id: str, *, index: int, content_type: str) -> str:
    """The key of a job's file number `index`."""
    return f"{job_id}/{index}.{EXTENSIONS[content_type]}"


class Stored(NamedTuple):
    """A file in a listing."""

    name: str
    size: int
    made: datetime


class Files:
    """The storage of results, and of pictures that wait to be used."""

    def __init__(self, *, url: str, folder: Path) -> None:
        self._store: ObjectStore
        self._folder = None if url else folder
        if url:
            self._store = from_url(url)
        else:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._store = LocalStore(folder, automatic_cleanup=True)

    async def put(self, name: str, path: Path, *, lasting: bool = True) -> int:
        """Keep the file at `path`, which is moved, under `name`; its size in bytes. Raises `FilesUnavailable`.

        When this returns, a `lasting` file outlasts a power cut: ext4, XFS and Btrfs bring its name to the disk too.
        """
        try:
            if self._folder is not None:
                size = _move(path, self._folder / name)
                if lasting:
                    await asyncio.to_thread(_sync, self._folder / name)
                return size
            data = path.read_bytes()
            await obstore.put_async(self._store, name, data, use_multipart=len(data) > 8 * 2**20)
        except (OSError, obstore.exceptions.BaseError) as error:
            raise FilesUnavailable(f"can't store {name}: {error}") from error
        return len(data)

    async def write(self, name: str, data: bytes) -> None:
        """Keep these bytes under `name`. Raises `FilesUnavailable`."""
        try:
            await obstore.put_async(self._store, name, data)
        except (OSError, obstore.exceptions.BaseError) as error:
            raise FilesUnavailable(f"can't store {name}: {error}") from error

    async def under(self, folder: str) -> list[Stored]:
        """Every file below a folder, whose name has no slash at its end. Raises `FilesUnavailable`."""
        try:
            found = await obstore.list(self._store, prefix=f"{folder}/").collect_async()
        except (OSError, obstore.exceptions.BaseError) as error:
            raise FilesUnavailable(f"can't list {folder}: {error}") from error
        return [Stored(entry["path"], entry["size"], entry["last_modified"]) for entry in found]

    async def remove(self, names: list[str]) -> None:
        """Remove these files; one that is gone already is no error. Raises `FilesUnavailable`."""
        for name in names:
            try:
                await obstore.delete_async(self._store, name)
            except FileNotFoundError:
                pass
            except (OSError, obstore.exceptions.BaseError) as error:
                raise FilesUnavailable(f"can't remove {name}: {error}") from error

    async def size(self, name: str) -> int | None:
        """The file's size in bytes; None when there is no such file."""
        try:
            return int((await obstore.head_async(self._store, name))["size"])
        except FileNotFoundError:
            return None

    async def read(self, name: str, *, start: int, end: int) -> AsyncIterator[bytes]:
        """Bytes `start` … `end`−1, in chunks."""
        while start < end:
            stop = min(end, start + _CHUNK)
            yield bytes(await obstore.get_range_async(self._store, name, start=start, end=stop))
            start = stop

    async def remove_job(self, job_id: str) -> int:
        """Remove every file of a job, whatever it is called; how many there were. Raises `FilesUnavailable`."""
        try:
            found = await obstore.list(self._store, prefix=f"{job_id}/").collect_async()
            names = [entry["path"] for entry in found]
            if names:
                await obstore.delete_async(self._store, names)
        except (OSError, obstore.exceptions.BaseError) as error:
            raise FilesUnavailable(f"can't remove the files of {job_id}: {error}") from error
        if self._folder is not None:  # what a killed service left half-done is in no list
            shutil.rmtree(self._folder / job_id, ignore_errors=True)
        return len(names)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _move(path: Path, target: Path) -> int:
    """Rename within the data folder: no copy, and readers see the whole file or none."""
    size = path.stat().st_size
    target.parent.mkdir(exist_ok=True, mode=0o700)
    try:
        path.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        part = target.with_name(f"{target.name}#part")  # the folder of results is a volume of its own
        try:
            shutil.copyfile(path, part)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    return size
