"""Figures about jobs for whoever watches the service: what waits, and what ended. Read only, for `db.scan`."""

from collections.abc import Sequence
from dataclasses import dataclass

from pixeldojo import clock, ids
from pixeldojo.db import Tx
from pixeldojo.jobs import store

_LATE_MS = 2_000  # a job's end is visible only after its commit
_SLICE_MS = 60_000
_MOST_SLICES = 60


@dataclass(frozen=True, slots=True)
class Queue:
    """The jobs of one model that have not ended; the age is the oldest pending one's."""

    model: str
    pending: int
    oldest_s: float
    processing: int


@dataclass(frozen=True, slots=True)
class Ended:
    """Jobs of one model that ended in the same way. Cumulative counts by bound; the engine's are of `made` jobs."""

    model: str
    status: str
    code: str
    count: int
    made: int
    total_ms: int
    engine_ms: int
    total_at_most: tuple[int, ...]
    engine_at_most: tuple[int, ...]


def queues(tx: Tx) -> list[Queue]:
    """Every model with jobs that have not ended."""
    now, working = clock.now_ms(), dict(store.at_work(tx))
    waiting = {model: (count, max(0, now - ids.made_ms(oldest)) / 1000) for model, count, oldest in store.queued(tx)}
    return [
        Queue(model, *waiting.get(model, (0, 0.0)), processing=working.get(model, 0))
        for model in sorted({*waiting, *working})
    ]


def ended(tx: Tx, *, after_ms: int, bounds_ms: Sequence[int]) -> tuple[int, list[Ended]]:
    """What ended after `after_ms`, and until when that is known: pass it as `after_ms` the next time.

    Looks back an hour at most.
    """
    until = clock.now_ms() - _LATE_MS
    after = max(after_ms, until - _SLICE_MS * _MOST_SLICES)
    found: list[Ended] = []
    while after < until:
        end = min(after + _SLICE_MS, until)
        for row in store.ended(tx, after_ms=after, until_ms=end, bounds_ms=bounds_ms):
            model, status, code, *numbers = row
            count, made, total, engine, *at_most = map(int, numbers)
            middle = len(bounds_ms)
            split = tuple(at_most[:middle]), tuple(at_most[middle:])
            found.append(Ended(model, status, code, count, made, total, engine, *split))
        after = end
    return max(after, after_ms), found
