"""Rate limits: `60/minute` in, and for each call of a subject how many there were in its window. Knows no HTTP.

Windows are fixed: one opens with a subject's first call and closes after its length, so of 61 calls in it exactly
60 pass. A counter counts in this process's memory, or in Redis for all processes together.
"""

import re
from collections import OrderedDict
from typing import Any, NamedTuple, Protocol

from pixeldojo import clock

_UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
_RATE = re.compile(r"(\d{1,9})\s*/\s*(second|minute|hour|day)s?", re.ASCII)
_OFF = ("0", "off", "none")
_MOST_SUBJECTS = 100_000
_REST_MS = 5_000  # how long a Redis that failed is left alone
_REDIS_TIMEOUT_S = 0.5
_CONNECTIONS = 32
_QUEUE_S = 5.0  # for one of them, when very many requests come at once


class Rate(NamedTuple):
    """At most `amount` calls in a window of `window_s` seconds."""

    amount: int
    window_s: int


class Count(NamedTuple):
    """`calls` with this one, in the window that closes at `reset_ms`."""

    calls: int
    reset_ms: int


def parse(text: str) -> Rate | None:
    """The rate written as `60/minute` (second, minute, hour or day); None for `0` or `off`. Raises ValueError."""
    cleaned = text.strip().lower()
    if cleaned in _OFF:
        return None
    found = _RATE.fullmatch(cleaned)
    if not found:
        raise ValueError("write a rate such as 60/minute (second, minute, hour or day), or off")
    amount = int(found[1])
    return Rate(amount, _UNITS[found[2]]) if amount else None


def tidy(text: str) -> str:
    """The one way to write that rate. Raises ValueError."""
    rate = parse(text)
    return write(rate) if rate else "off"


def write(rate: Rate) -> str:
    """The rate as `parse` reads it."""
    return f"{rate.amount}/{next(unit for unit, seconds in _UNITS.items() if seconds == rate.window_s)}"


class Counter(Protocol):
    """Counts calls."""

    async def hit(self, subject: str, rate: Rate) -> Count:
        """Count one call of `subject` in its window of this rate's length."""

    async def close(self) -> None:
        """Let go of connections."""


class MemoryCounter:
    """Counts in this process, on one event loop, for at most `most` subjects a window length.

    When there are more, the window that was opened first is forgotten: its subject begins a new one early.
    """

    def __init__(self, *, most: int = _MOST_SUBJECTS) -> None:
        self._most = most
        self._windows: dict[int, OrderedDict[str, list[int]]] = {}

    async def hit(self, subject: str, rate: Rate) -> Count:
        """See `Counter.hit`."""
        return self.count(subject, rate)

    def count(self, subject: str, rate: Rate) -> Count:
        """The same without waiting, which memory never needs."""
        now, window_ms = clock.now_ms(), rate.window_s * 1000
        lane = self._windows.get(window_ms)
        if lane is None:
            lane = self._windows[window_ms] = OrderedDict()
        seen = lane.get(subject)
        # a window that ends further away than its length was opened before the clock was set back
        if seen is None or not 0 < seen[1] - now <= window_ms:
            seen = self._open(lane, subject, now=now, window_ms=window_ms)
        seen[0] += 1
        return Count(seen[0], seen[1])

    def _open(self, lane: OrderedDict[str, list[int]], subject: str, *, now: int, window_ms: int) -> list[int]:
        lane.pop(subject, None)
        for _ in range(2):  # in the order they were opened: two out for each one in, so what is over goes away
            if lane and (len(lane) >= self._most or next(iter(lane.values()))[1] <= now):
                lane.popitem(last=False)
        seen = lane[subject] = [0, now + window_ms]
        return seen

    def __len__(self) -> int:
        return sum(map(len, self._windows.values()))

    async def close(self) -> None:
        """See `Counter.close`."""


# One round trip: count, and open the window with the first call. The window's clock is the server's.
_HIT = """
local calls = redis.call('INCR', KEYS[1])
local left = redis.call('PTTL', KEYS[1])
if left < 0 then
  left = tonumber(ARGV[1])
  redis.call('PEXPIRE', KEYS[1], left)
end
return {calls, left}
"""


class RedisCounter:
    """Counts in Redis or Valkey at `url`, exact across processes. While it does not answer, counts in memory."""

    def __init__(self, url: str) -> None:
        """Connects with the first call. Raises ImportError when the extra `[redis]` is not installed."""
        import redis  # an extra
        import structlog  # late, like the extra: short commands read the settings, and so this module
        from redis import asyncio as client
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        self._faults: tuple[type[Exception], ...] = (redis.RedisError, OSError)
        # the protocol is the same; the client just knows one name for it
        url = re.sub(r"^valkey", "redis", url)
        pool = client.BlockingConnectionPool.from_url(
            url, max_connections=_CONNECTIONS, timeout=_QUEUE_S, socket_timeout=_REDIS_TIMEOUT_S,
            socket_connect_timeout=_REDIS_TIMEOUT_S,
            retry=Retry(NoBackoff(), 1), retry_on_error=[redis.ConnectionError],  # the server may have hung up
        )  # fmt: skip
        self._client: Any = client.Redis.from_pool(pool)
        self._script: Any = self._client.register_script(_HIT)
        self._meanwhile = MemoryCounter()
        self._log: Any = structlog.get_logger()
        self._rests_until_ms = 0

    async def hit(self, subject: str, rate: Rate) -> Count:
        """See `Counter.hit`."""
        window_ms, now = rate.window_s * 1000, clock.now_ms()
        if now < self._rests_until_ms <= now + _REST_MS:
            return self._meanwhile.count(subject, rate)
        try:
            key = f"pixeldojo:rate:{rate.window_s}:{subject}"
            calls, left_ms = await self._script(keys=[key], args=[window_ms])
        except self._faults as error:
            self._rests_until_ms = now + _REST_MS
            self._log.warning("rate_limit_storage_failed", error=type(error).__name__)
            return self._meanwhile.count(subject, rate)
        return Count(int(calls), clock.now_ms() + int(left_ms))

    async def close(self) -> None:
        """See `Counter.close`."""
        await self._client.aclose()


def open_counter(url: str) -> Counter:
    """The counter at `url`, in memory when that is empty. Raises ImportError, naming the extra that is missing."""
    if not url:
        return MemoryCounter()
    try:
        return RedisCounter(url)
    except ImportError:
        raise ImportError("install pixeldojo[redis] to count in Redis") from None
