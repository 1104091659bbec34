"""Whose job is next, where a job stands, and how long it will probably take.

Turns are shared by account: of the accounts with pending jobs of a model, the one with the fewest jobs at work is
next, so a thousand queued jobs of one account hold up nobody else. Within an account, priority decides, then age.
"""

import time
from collections.abc import Mapping

from pixeldojo import clock, ids
from pixeldojo.db import Tx
from pixeldojo.jobs import hooks, news, store
from pixeldojo.jobs.store import Job

_ACCOUNTS = 200  # accounts looked at for one claim; with more waiting, the rest get their turn as these finish
_COUNTED = 1_000  # a place in the queue is counted this far
_FRESH_S = 2.0
_COUNTING_SHARE = 0.05  # of the time may go into counting other accounts' jobs
_SAMPLE = 200


def claim(tx: Tx, *, free: Mapping[str, int], lease_s: float, account_concurrency: int = 0) -> tuple[str, list[Job]]:
    """Take up to `free[model]` pending jobs of each model, fairly: the lease, and the jobs it holds.

    `account_concurrency` bounds the jobs of one account at work at once (0: no bound) where the account has no
    bound of its own.
    """
    lease, now = ids.new("lease"), clock.now_ms()
    until = now + int(lease_s * 1000)
    jobs: list[Job] = []
    for model, seats in free.items():
        shares = _shares(tx, model, seats=seats, account_concurrency=account_concurrency, now_ms=now)
        for account_id, share in shares.items():
            jobs += store.claim(tx, model, account_id, limit=share, lease=lease, until_ms=until, now_ms=now)
    for job in jobs:
        tx.wake(news.of_job(job.id))
    hooks.started(tx, jobs)
    return lease, sorted(jobs, key=lambda job: (job.rank, job.id))


def _shares(tx: Tx, model: str, *, seats: int, account_concurrency: int, now_ms: int) -> dict[str, int]:
    """How many jobs of the model each waiting account may start now; the sum is at most `seats`."""
    waiting = store.waiting_accounts(tx, model, limit=_ACCOUNTS)
    if not waiting:
        return {}
    room = {account: _room(tx, account, account_concurrency) for account in waiting}
    waiting = [account for account in waiting if room[account] > 0]
    if len(waiting) == 1:
        return {waiting[0]: min(seats, room[waiting[0]])}
    at_work = store.running(tx, model)
    left = {
        account: min(store.count_ready(tx, model, account, most=seats, now_ms=now_ms), room[account])
        for account in waiting
    }
    shares: dict[str, int] = {}
    for _ in range(seats):
        open_accounts = [account for account in waiting if left[account] > shares.get(account, 0)]
        if not open_accounts:
            break
        turn = min(open_accounts, key=lambda account: at_work.get(account, 0) + shares.get(account, 0))
        shares[turn] = shares.get(turn, 0) + 1
    return shares


def _room(tx: Tx, account_id: str, account_concurrency: int) -> int:
    most = store.concurrency(tx, account_id) or account_concurrency
    return most - store.running_everywhere(tx, account_id) if most else _COUNTED


class Outlook:
    """Where a job stands and how long it will wait. Every poll of a waiting job asks, so what is the same for all of
    them is kept for a while: other accounts' jobs for twenty times as long as it took to count them, timings for two
    seconds."""

    def __init__(self, seats: Mapping[str, int]) -> None:
        """`seats`: how many jobs of each model run at once."""
        self._seats = seats
        self._until = 0.0
        self._means: dict[str, float] = {}
        self._waiting: dict[str, tuple[float, Mapping[str, int]]] = {}  # by model: until when, and jobs by account

    def place(self, tx: Tx, job: Job) -> int:
        """The pending job's place among those of its model, 1 being next. Exact for one account; with several it
        assumes that they take turns. Counted to about a thousand."""
        ahead = store.count_ahead(tx, job, most=_COUNTED)
        return ahead + 1 + self._others(tx, job.model, job.account_id, most=ahead + 1)

    def place_of_next(self, tx: Tx, *, model: str, account_id: str) -> int:
        """The place that a job submitted now would get."""
        mine = store.count_pending(tx, model, account_id, most=_COUNTED)
        return mine + 1 + self._others(tx, model, account_id, most=mine + 1)

    def _others(self, tx: Tx, model: str, account_id: str, *, most: int) -> int:
        """Pending jobs of other accounts, at most `most` of each."""
        until, waiting = self._waiting.get(model, (0.0, {}))
        started = time.monotonic()
        if started >= until:
            accounts = store.waiting_accounts(tx, model, limit=_ACCOUNTS)
            waiting = {account: store.count_pending(tx, model, account, most=_COUNTED) for account in accounts}
            took = time.monotonic() - started
            self._waiting[model] = started + took / _COUNTING_SHARE, waiting
        return sum(min(count, most) for account, count in waiting.items() if account != account_id)

    def eta_s(self, tx: Tx, *, model: str, place: int) -> float | None:
        """Seconds until the job at `place` has probably ended; None before any job of the model has."""
        if time.monotonic() >= self._until:
            self._read(tx)
        mean, seats = self._means.get(model), max(1, self._seats.get(model, 1))
        return None if mean is None else round(mean * (place + seats - 1) / seats, 3)

    def _read(self, tx: Tx) -> None:
        times: dict[str, list[float]] = {}
        for model, seconds in store.recent_seconds(tx, limit=_SAMPLE):
            times.setdefault(model, []).append(seconds)
        self._means = {model: sum(seconds) / len(seconds) for model, seconds in times.items()}
        self._until = time.monotonic() + _FRESH_S
