"""The only place that reads the wall clock. Times are integers: milliseconds since 1970, UTC.

Callers write `clock.now_ms()`, so that a test moves the time by replacing one name.
"""

import functools
import time
from datetime import UTC, datetime


def now_ms() -> int:
    """The wall clock in milliseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1_000_000


def rfc3339(time_ms: int) -> str:
    """`time_ms` as RFC 3339 in UTC with milliseconds and `Z`: `2025-01-23T12:00:00.000Z`."""
    seconds, ms = divmod(time_ms, 1000)
    return f"{_to_second(seconds)}.{ms:03d}Z"


@functools.lru_cache(4096)  # a job is rendered again and again while it is polled
def _to_second(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"
