"""Chromium, where there is one, and a live service to look at.

`PIXELDOJO_TEST_CHROMIUM` names the program; otherwise it is looked for on the path. Without one the tests are skipped.
"""

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from live import Live, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_QUIET = [  # no calls of its own, so that every request is the page's
    "--disable-background-networking", "--disable-component-update", "--disable-gpu", "--disable-quic",
    "--disable-sync", "--no-first-run", "--no-sandbox",
]  # fmt: skip


def _chromium() -> str | None:
    names = (os.environ.get("PIXELDOJO_TEST_CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if name and (found := shutil.which(name))), None)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with serving(tmp_path_factory.mktemp("live"), PIXELDOJO_TESTCARD="1") as running:
        yield running


# While Playwright runs, its event loop counts as this thread's: it must be gone before the next module's tests.
@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    program = _chromium()
    if program is None:
        pytest.skip("there is no Chromium on the path, nor does PIXELDOJO_TEST_CHROMIUM name one")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=program, args=_QUIET)
        yield opened
        opened.close()
