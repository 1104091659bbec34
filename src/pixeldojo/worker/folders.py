"""A worker's own folder for files on their way, and an end to the folders that killed workers left behind.

A living worker holds a lock on its folder, and the system lets go of it however the process ends.
"""

import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

if sys.platform != "win32":
    import fcntl


def open_own(root: Path) -> tuple[Path, int | None]:
    """A fresh folder in `root` and the lock on it, for `close`. Folders that nobody holds are removed."""
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    for folder in root.glob("worker-*"):
        with contextlib.suppress(OSError):
            _remove_if_left(folder)
    while True:
        folder = Path(tempfile.mkdtemp(prefix="worker-", dir=root))
        try:
            lock = _lock(folder)
        except OSError:
            if folder.exists():
                return folder, None  # a file system without locks: nobody else gets one either
            continue  # another worker took it for one that was left
        if folder.exists():
            return folder, lock


def _remove_if_left(folder: Path) -> None:
    lock = _lock(folder)
    if lock is not None:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _lock(folder: Path) -> int | None:
    """Raises OSError when somebody holds the folder, or it is gone."""
    if sys.platform == "win32":
        return None  # folders of killed workers stay
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle


def close(folder: Path, lock: int | None) -> None:
    """Remove the folder with all that is in it."""
    shutil.rmtree(folder, ignore_errors=True)
    if lock is not None:
        os.close(lock)
