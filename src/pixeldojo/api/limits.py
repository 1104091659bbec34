"""The gate of the API: who a request is counted as, whether it may pass, and the headers that say so.

Counted by key where there is one that works, otherwise by address: so guessing keys uses up the guesser's address.
Downloads by signed URL, health checks and metrics are not counted.
"""

import hashlib
from collections import OrderedDict
from typing import Any, NamedTuple

from pixeldojo import clock, errors, limits, metrics
from pixeldojo.accounts import service as accounts
from pixeldojo.api import callers
from pixeldojo.house import House
from pixeldojo.limits import Rate

_FREE = frozenset(("/healthz", "/readyz", "/metrics"))
_FREE_UNDER = "/api/v1/assets/"
_FRESH_MS = 5_000
_MOST = 10_000

Headers = list[tuple[bytes, bytes]]


class _Known(NamedTuple):
    """What was found out about an Authorization header: as what it counts (None: by address), and its rate."""

    subject: str | None
    rate: Rate | None
    until_ms: int


class Gate:
    """Counts requests of one process, before they reach a route.

    A key's own rate is looked up in the database, and kept for five seconds: a new override holds after that. This
    never decides whether a key works, only as what its calls count.
    """

    def __init__(self, house: House) -> None:
        self._house = house
        self._rate = limits.parse(house.settings.rate_limit)
        self._trusted = house.settings.trusted_proxies
        # two of them, so that a flood of guesses doesn't push out the keys that work
        self._working: OrderedDict[bytes, _Known] = OrderedDict()
        self._others: OrderedDict[bytes, _Known] = OrderedDict()

    async def admit(self, scope: Any, headers: Headers) -> errors.RateLimited | None:
        """Count the request and append what its answer says about that; the error when it is one too many."""
        rate, path = self._rate, scope["path"]
        if rate is None or path in _FREE or path.startswith(_FREE_UNDER):
            return None
        subject, counted_as = None, "address"
        for name, value in scope["headers"]:
            if name == b"authorization":
                known = self._fresh(value) or await self._look_up(value)
                if known.subject is not None:
                    subject, rate, counted_as = known.subject, known.rate, "key"
                break
        if rate is None:
            return None
        if subject is None:
            subject = callers.subject(scope, trusted=self._trusted)
        calls, reset_ms = await self._house.counter.hit(subject, rate)
        reset = b"%d" % -(-reset_ms // 1000)
        headers += (
            (b"x-ratelimit-limit", b"%d" % rate.amount),
            (b"x-ratelimit-remaining", b"%d" % max(0, rate.amount - calls)),
            (b"x-ratelimit-reset", reset),
        )
        return _refusal(rate, reset_ms, counted_as) if calls > rate.amount else None

    def _fresh(self, value: bytes) -> _Known | None:
        digest = hashlib.sha256(value).digest()  # no key's text is kept
        known = self._working.get(digest) or self._others.get(digest)
        return known if known and 0 < known.until_ms - clock.now_ms() <= _FRESH_MS else None

    async def _look_up(self, value: bytes) -> _Known:
        digest = hashlib.sha256(value).digest()
        until = clock.now_ms() + _FRESH_MS
        try:
            found = await self._house.db.read(accounts.counted_as, value.decode("latin-1"))
        except errors.DatabaseUnavailable:  # the request itself will say so
            return self._working.get(digest) or _Known(None, None, 0)
        if found is None:
            known = _Known(None, None, until)
            self._working.pop(digest, None)
        else:
            counted_as, own = found
            rate = self._rate if own is None else limits.parse(own)
            # keys of one budget share a window only where they share the rate: a small one must not starve
            known = _Known(f"key:{counted_as}/{rate.amount if rate else 0}", rate, until)
            self._others.pop(digest, None)
        kept = self._working if found else self._others
        kept[digest] = known
        if len(kept) > _MOST:
            kept.popitem(last=False)
        return known


def _refusal(rate: Rate, reset_ms: int, counted_as: str) -> errors.RateLimited:
    metrics.refused(counted_as)
    wait_s = max(1, -(-(reset_ms - clock.now_ms()) // 1000))
    whose = "this API key" if counted_as == "key" else "this address (send a valid API key to have a limit of your own)"
    text = f"Too many requests: {limits.write(rate)} for {whose}. Try again in {wait_s} s."
    return errors.RateLimited(text, headers={"Retry-After": str(wait_s)})
