"""A clock that belongs to the test."""

import pytest

from pixeldojo import clock
from properties.parts import Clock


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The wall clock, standing still until the test moves it."""
    fake = Clock()
    monkeypatch.setattr(clock, "now_ms", fake.now_ms)
    return fake
