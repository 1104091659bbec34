"""Keeping results in the local folder: whole, and on the disk before anybody is told of them."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pixeldojo.assets.files import Files, FilesUnavailable

Run = Callable[[Any], Any]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(url="", folder=tmp_path / "assets")


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what was brought to the disk, in order."""
    names: list[str] = []
    real = os.fsync

    def remember(handle: int) -> None:
        names.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        real(handle)

    monkeypatch.setattr(os, "fsync", remember)
    return names


def _made(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(name.encode())
    return path


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads names of open files in /proc")
def test_a_lasting_file_is_on_the_disk_under_its_name(
    files: Files, tmp_path: Path, run: Run, synced: list[str]
) -> None:
    assert run(files.put("job_1/0.png", _made(tmp_path, "a"))) == 1
    assert synced == ["0.png"]
    assert (tmp_path / "assets/job_1/0.png").read_bytes() == b"a"
    assert not (tmp_path / "a").exists()
    assert run(files.put("job_1/1.png", _made(tmp_path, "b"), lasting=False)) == 1
    assert synced == ["0.png"]


def test_a_disk_that_fails_is_told(files: Files, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(handle: int) -> None:
        raise OSError(errno.EIO, "the disk is broken")

    with monkeypatch.context() as patch, pytest.raises(FilesUnavailable, match=r"job_1/0.png.*broken"):
        patch.setattr(os, "fsync", broken)
        run(files.put("job_1/0.png", _made(tmp_path, "1")))
    assert run(files.put("job_2/0.png", _made(tmp_path, "2"))) == 1
