"""Rate limits: how they are written, and that of 61 calls in a window exactly 60 pass, in memory and in Redis."""

import asyncio
import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

import pixeldojo
from pixeldojo import clock, limits, settings
from pixeldojo.limits import Count, MemoryCounter, Rate, RedisCounter

MINUTE = Rate(60, 60)
START = 1_700_000_000_123


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ms = START
        monkeypatch.setattr(clock, "now_ms", lambda: self.ms)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.mark.parametrize(
    ("text", "rate", "tidy"),
    [
        ("60/minute", MINUTE, "60/minute"),
        (" 600 / Hours ", Rate(600, 3600), "600/hour"),
        ("1/second", Rate(1, 1), "1/second"),
        ("5/DAY", Rate(5, 86_400), "5/day"),
        ("off", None, "off"),
        ("0", None, "off"),
        ("0/minute", None, "off"),
    ],
)
def test_a_rate_is_written_in_one_way(text: str, rate: Rate | None, tidy: str) -> None:
    assert limits.parse(text) == rate
    assert limits.tidy(text) == tidy
    assert limits.parse(tidy) == rate


@pytest.mark.parametrize(
    "text", ["", "60", "60/", "/minute", "-1/minute", "1.5/minute", "60/week", "6٠/minute", "x" * 99]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="60/minute"):
        limits.parse(text)
    with pytest.raises(settings.SettingsError, match="PIXELDOJO_RATE_LIMIT"):
        settings.load({"PIXELDOJO_RATE_LIMIT": text})


def test_the_settings() -> None:
    assert settings.load({}).rate_limit == "60/minute"
    assert settings.load({"PIXELDOJO_RATE_LIMIT": "0"}).rate_limit == "off"
    assert settings.load({"PIXELDOJO_TRUSTED_PROXIES": "10.0.0.0/8,::1"}).trusted_proxies
    with pytest.raises(settings.SettingsError) as refused:
        settings.load({"PIXELDOJO_RATE_LIMIT_STORAGE": "http://:password@host"})
    assert "password" not in str(refused.value)


def test_sixty_of_sixty_one(time: Clock) -> None:
    counter = MemoryCounter()
    counts = [counter.count("a", MINUTE) for _ in range(61)]
    assert [each.calls for each in counts] == list(range(1, 62))
    assert {each.reset_ms for each in counts} == {START + 60_000}
    assert counter.count("b", MINUTE).calls == 1, "somebody else's window"
    assert counter.count("a", Rate(5, 1)).calls == 1, "another length, another window"
    time.ms += 59_999
    assert counter.count("a", MINUTE).calls == 62
    time.ms += 1
    assert counter.count("a", MINUTE) == Count(1, START + 120_000)


def test_a_clock_that_is_set_back_locks_nobody_out(time: Clock) -> None:
    counter = MemoryCounter()
    for _ in range(61):
        counter.count("a", MINUTE)
    time.ms -= 3_600_000
    assert counter.count("a", MINUTE).calls == 1


def test_memory_is_bounded_and_what_is_over_is_forgotten(time: Clock) -> None:
    counter = MemoryCounter(most=1000)
    for number in range(5000):
        counter.count(f"address:{number}", MINUTE)
        assert len(counter) <= 1000
    assert counter.count("address:4999", MINUTE).calls == 2, "the youngest windows are kept"
    time.ms += 60_000
    for number in range(600):
        counter.count(f"other:{number}", MINUTE)
    assert len(counter) == 600


@hypothesis.given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30_000)), max_size=300), st.integers(1, 9))
def test_no_window_lets_more_through(steps: list[tuple[str, int]], amount: int) -> None:
    counter, now = MemoryCounter(), START
    passed: dict[tuple[str, int], int] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "now_ms", lambda: now)
        for subject, wait_ms in steps:
            now += wait_ms
            count = counter.count(subject, Rate(amount, 60))
            assert now < count.reset_ms <= now + 60_000
            if count.calls <= amount:
                window = subject, count.reset_ms
                passed[window] = passed.get(window, 0) + 1
    assert all(calls <= amount for calls in passed.values())
    for subject in "abc":  # windows of one subject never overlap
        ends = sorted(end for name, end in passed if name == subject)
        assert all(later - earlier >= 60_000 for earlier, later in itertools.pairwise(ends))


_PROCESS = """
import asyncio, sys
from pixeldojo.limits import RedisCounter, Rate

async def main():
    counter = RedisCounter(sys.argv[1])
    await counter.hit("warm", Rate(1, 60))
    print("ready", flush=True)
    sys.stdin.readline()
    counts = await asyncio.gather(*(counter.hit(sys.argv[2], Rate(60, 60)) for _ in range(int(sys.argv[3]))))
    print(*(count.calls for count in counts), flush=True)
    await counter.close()

asyncio.run(main())
"""


def test_redis_is_exact_across_processes(redis_url: str) -> None:
    subject = "key:exact"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _PROCESS, redis_url, subject, str(calls)],
            env={"PYTHONPATH": str(Path(pixeldojo.__file__).parents[1])},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for calls in (21, 20, 20)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:  # all of them are up: now at once
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=20)[0] for process in processes]
    calls = [int(number) for line in said for number in line.split()]
    assert sorted(calls) == list(range(1, 62))
    assert sum(number <= 60 for number in calls) == 60


def test_redis_windows_end(redis_url: str, run: Callable[[Any], Any]) -> None:
    async def ask() -> None:
        counter = RedisCounter(redis_url)
        try:
            first = await counter.hit("key:ends", Rate(2, 1))
            second = await counter.hit("key:ends", Rate(2, 1))
            assert (first.calls, second.calls) == (1, 2)
            assert abs(first.reset_ms - second.reset_ms) < 200
            assert 0 < second.reset_ms - clock.now_ms() <= 1000
            async with asyncio.timeout(5):
                while (await counter.hit("key:ends", Rate(2, 1))).calls != 1:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        finally:
            await counter.close()

    run(ask())


def test_valkey_is_redis(redis_url: str, run: Callable[[Any], Any]) -> None:
    async def ask() -> int:
        counter = RedisCounter(redis_url.replace("redis://", "valkey://"))
        try:
            await counter.hit("key:valkey", MINUTE)
            return (await counter.hit("key:valkey", MINUTE)).calls
        finally:
            await counter.close()

    assert run(ask()) == 2


def test_without_its_redis_it_counts_in_memory(run: Callable[[Any], Any]) -> None:
    pytest.importorskip("redis")

    async def ask() -> list[int]:
        counter = RedisCounter("redis://127.0.0.1:1/0")
        try:
            return [(await counter.hit("a", MINUTE)).calls for _ in range(61)]
        finally:
            await counter.close()

    assert run(ask()) == list(range(1, 62))
