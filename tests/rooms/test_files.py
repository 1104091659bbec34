"""Keeping results in the local folder: whole, and on the disk before anybody is told of them."""

import asyncio
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
def test_a_kept_file_its_name_and_its_folder_are_on_the_disk(
    files: Files, tmp_path: Path, run: Run, synced: list[str]
) -> None:
    assert run(files.put("job_1/0.png", _made(tmp_path, "a"))) == 1
    assert synced == ["0.png", "job_1", "assets"]
    assert (tmp_path / "assets/job_1/0.png").read_bytes() == b"a"
    assert not (tmp_path / "a").exists()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads names of open files in /proc")
def test_files_at_once_share_their_rounds(files: Files, tmp_path: Path, run: Run, synced: list[str]) -> None:
    async def many() -> None:
        await asyncio.gather(*(files.put(f"job_{n}/0.png", _made(tmp_path, str(n))) for n in range(20)))

    run(many())
    assert synced.count("0.png") == 20
    assert synced.count("assets") <= 2


def test_a_disk_that_fails_is_told_to_all_it_concerns_and_to_no_other(
    files: Files, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(handle: int) -> None:
        raise OSError(errno.EIO, "the disk is broken")

    async def two() -> list[Any]:
        puts = (files.put(f"job_{n}/0.png", _made(tmp_path, str(n))) for n in range(2))
        return await asyncio.gather(*puts, return_exceptions=True)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken)
        faults = run(two())
    assert [type(fault) for fault in faults] == [FilesUnavailable] * 2
    assert "job_1/0.png" in str(faults[1])
    assert run(files.put("job_2/0.png", _made(tmp_path, "2"))) == 1


def test_who_stops_waiting_holds_up_nobody(files: Files, tmp_path: Path, run: Run) -> None:
    async def one_leaves() -> int:
        leaving = asyncio.create_task(files.put("job_1/0.png", _made(tmp_path, "1")))
        staying = asyncio.create_task(files.put("job_2/0.png", _made(tmp_path, "2")))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        assert leaving.cancelled()
        return await staying

    assert run(one_leaves()) == 1
