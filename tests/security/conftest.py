"""The services of the doors' tests, for those who attack them."""

from collections.abc import Iterator

import pytest

from doors.conftest import Service, _settings, later, logs, serve, serving, still  # noqa: F401


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A working service on SQLite."""
    with serving(_settings(tmp_path_factory.mktemp("site"))) as made:
        yield made
