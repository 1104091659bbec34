"""A live service for the samples and the shell client."""

from collections.abc import Iterator

import pytest

from live import Live, serving


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with serving(tmp_path_factory.mktemp("live"), PIXELDOJO_TESTCARD="1") as running:
        yield running
