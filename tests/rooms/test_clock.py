"""Times as clients see them."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixeldojo import clock


@pytest.mark.parametrize(
    ("time_ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1, "1970-01-01T00:00:00.001Z"),
        (999, "1970-01-01T00:00:00.999Z"),
        (1_737_633_600_000, "2025-01-23T12:00:00.000Z"),
        (951_782_400_500, "2000-02-29T00:00:00.500Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_rfc3339(time_ms: int, text: str) -> None:
    assert clock.rfc3339(time_ms) == text


@given(st.integers(0, 253_402_300_799_999), st.integers(0, 253_402_300_799_999))
def test_later_times_are_greater_texts_and_read_back(first: int, second: int) -> None:
    assert (clock.rfc3339(first) < clock.rfc3339(second)) == (first < second)
    read = datetime.fromisoformat(clock.rfc3339(first))
    assert round((read - datetime.fromtimestamp(0, UTC)).total_seconds() * 1000) == first


def test_now() -> None:
    assert abs(clock.now_ms() - datetime.now(UTC).timestamp() * 1000) < 5000
