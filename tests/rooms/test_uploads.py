"""Uploaded pictures: whose they are, how many are kept, and that they go."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pixeldojo import clock
from pixeldojo.assets import uploads
from pixeldojo.assets.files import Files, FilesUnavailable
from pixeldojo.assets.uploads import Uploads

Run = Callable[[Any], Any]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(url="", folder=tmp_path / "assets")


def test_an_account_finds_its_own(run: Run, files: Files) -> None:
    ana, bob = Uploads(files, "acct_ana"), Uploads(files, "acct_bob")
    upload_id = run(ana.keep(b"a picture"))
    assert run(ana.keep(b"a picture")) == upload_id, "the same bytes are the same upload"
    assert run(ana.find(upload_id)) == b"a picture"
    assert run(bob.find(upload_id)) is None
    for other in ("upload_" + "0" * 32, "../acct_ana/" + upload_id, "", "upload_x"):
        assert run(ana.find(other)) is None
    large = bytes(range(256)) * 4096
    assert run(ana.find(run(ana.keep(large)))) == large


def test_a_new_one_pushes_out_the_oldest(run: Run, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    ana, bob = Uploads(files, "acct_ana"), Uploads(files, "acct_bob")
    theirs = run(bob.keep(b"theirs"))

    async def keep(count: int, size: int) -> list[str]:
        kept = []
        for number in range(count):
            kept.append(await ana.keep(b"%d" % number * size))
            await asyncio.sleep(0.002)  # files are told apart by when they were written
        return kept

    ids = run(keep(uploads.MOST + 3, 1))
    found = [run(ana.find(each)) is not None for each in ids]
    assert found == [False] * 3 + [True] * uploads.MOST
    monkeypatch.setattr(uploads, "MOST_BYTES", 2500)
    ids = run(keep(3, 1000))
    assert [run(ana.find(each)) is not None for each in ids] == [False, True, True]
    assert run(bob.find(theirs)) == b"theirs"


def test_after_a_day_they_are_swept(run: Run, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    ana = Uploads(files, "acct_ana")
    upload_id = run(ana.keep(b"a picture"))
    assert run(uploads.sweep(files)) == 0
    real = clock.now_ms
    monkeypatch.setattr(clock, "now_ms", lambda: real() + (uploads.KEPT_S + 5) * 1000)
    assert run(uploads.sweep(files)) == 1
    assert run(ana.find(upload_id)) is None
    assert run(uploads.sweep(files)) == 0
    run(files.remove(["uploads/acct_ana/gone"]))  # somebody else swept it: no error


def test_a_storage_that_takes_nothing(run: Run, tmp_path: Path) -> None:
    files = Files(url="", folder=tmp_path / "assets")
    (tmp_path / "assets" / "uploads").write_text("a file where the folder should be")
    with pytest.raises(FilesUnavailable):
        run(Uploads(files, "acct_ana").keep(b"a picture"))
