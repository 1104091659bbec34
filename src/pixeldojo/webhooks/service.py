"""The rules of webhooks: what is due when, who may use how many of the courier's slots, what an answer means.

A delivery comes in with the transaction that ends a job; the courier claims it, posts it and settles what came
of it. Bytes and id are frozen from the start, so every attempt sends the same; it is sent at least once.
"""

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pixeldojo import clock, ids
from pixeldojo.db import Tx
from pixeldojo.webhooks import store
from pixeldojo.webhooks.store import Attempt as Attempt
from pixeldojo.webhooks.store import Delivery as Delivery

CHANNEL = "deliveries"  # woken when a delivery becomes due
ROTATION_MS = 24 * 3600 * 1000
RESPONSE_BYTES = 2048
_MOST_WAIT_MS = 24 * 3600 * 1000  # however long a receiver asks to be left alone
_JITTER = 0.1
_LINES = 128  # looked at in one claim
_CLAIM = 64  # taken in one claim: the transaction stays short, for others write too
_SLOW_SLOTS = 4
_SHOWN_DELIVERIES, _SHOWN_ATTEMPTS = 200, 500


@dataclass(frozen=True, slots=True)
class Flight:
    """A claimed delivery: all that is needed to send it."""

    delivery: Delivery
    payload: bytes
    lease: str
    secrets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one attempt. `status` is None where no answer came; then `error` says why."""

    flight: Flight
    at_ms: int
    duration_ms: int
    status: int | None
    error: str | None = None
    response: str | None = None
    retry_after_ms: int = 0


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a claim took, the last line it served, and whether it left something due that found no slot."""

    flights: list[Flight]
    after: str
    more: bool


@dataclass(slots=True)
class Slots:
    """The courier's slots: how many are free, and who holds the others.

    A line may take more while it holds less than a quarter of what is free, an account while it holds less than
    all that is free: so there is always room for others, however many receivers hang. `slow` lines, which did
    not answer lately, get a few.
    """

    free: int
    lines: dict[str, int] = field(default_factory=dict)
    accounts: dict[str, int] = field(default_factory=dict)
    slow: Mapping[str, object] = field(default_factory=dict)

    def quota(self, line: str) -> int:
        """How many more slots the line may take now."""
        held, by_account = self.lines.get(line, 0), self.accounts.get(_account(line), 0)
        of_line = max((self.free - 4 * held) // 5, 1 - held)
        if line in self.slow:
            of_line = min(of_line, _SLOW_SLOTS - held)
        of_account = max((self.free - by_account) // 2, 1 - by_account)
        return max(min(of_line, of_account, self.free), 0)

    def take(self, line: str, count: int) -> None:
        """The line takes `count` slots, or with a negative count gives them back."""
        self.free -= count
        for held, name in ((self.lines, line), (self.accounts, _account(line))):
            held[name] = held.get(name, 0) + count
            if not held[name]:
                del held[name]

    def copy(self) -> "Slots":
        """The same, to plan with."""
        return Slots(self.free, dict(self.lines), dict(self.accounts), self.slow)


def _account(line: str) -> str:
    return line.partition(" ")[0]


def line_of(account_id: str, url: str) -> str:
    """What an account sends to one address (the query left out) waits in one line."""
    address = url.partition("#")[0].partition("?")[0]
    return f"{account_id} {hashlib.sha256(address.encode()).hexdigest()[:16]}"


def add(
    tx: Tx,
    *,
    job_id: str,
    account_id: str,
    url: str,
    event: str,
    payload: bytes,
    expires_ms: int,
    terminal: bool = True,
    wanted: bool = True,
) -> None:
    """Write down what is to be sent. A job has one terminal delivery at most: a second one changes nothing.

    An end that the caller did not want to hear of is kept all the same, so that it can be replayed.
    """
    now = clock.now_ms()
    delivery = Delivery(
        id=ids.new("msg"), job_id=job_id, account_id=account_id, line=line_of(account_id, url), url=url, type=event,
        terminal=int(terminal), status="due" if wanted else "skipped", tries=0, attempts=0, next_ms=now,
        last_ms=None, last_status=None, created_ms=now, expires_ms=expires_ms,
    )  # fmt: skip
    store.insert(tx, delivery, payload=payload)
    if wanted:
        tx.wake(CHANNEL)


def refresh(tx: Tx, *, job_id: str, event: str, payload: bytes) -> bool:
    """Replace what is still to be sent of this event by something newer. False when there is nothing."""
    return store.replace_due(tx, job_id, event=event, payload=payload, now_ms=clock.now_ms())


def withdraw(tx: Tx, *, job_id: str, event: str) -> None:
    """Do not send what is still to be sent of this event."""
    store.drop_due(tx, job_id, event=event)


def last_ms(tx: Tx, *, job_id: str, event: str) -> int | None:
    """When this event last happened to the job."""
    return store.newest_ms(tx, job_id, event=event)


def states(tx: Tx, *, job_ids: Sequence[str]) -> dict[str, Delivery]:
    """The terminal delivery of each job that has one."""
    return store.terminal(tx, job_ids)


def inspect(tx: Tx, *, job_id: str) -> list[tuple[Delivery, list[Attempt]]]:
    """The job's deliveries with their attempts, oldest first; the latest ones where there are very many."""
    found = {delivery.id: (delivery, list[Attempt]()) for delivery in store.of_job(tx, job_id, limit=_SHOWN_DELIVERIES)}
    for attempt in store.attempts(tx, job_id, limit=_SHOWN_ATTEMPTS):
        if attempt.delivery_id in found:
            found[attempt.delivery_id][1].append(attempt)
    return list(found.values())


def replay(tx: Tx, *, job_id: str) -> Delivery | None:
    """Send the job's terminal event once more, now, the same bytes under the same id. None when it has none."""
    delivery = store.replay(tx, job_id, now_ms=clock.now_ms())
    if delivery is not None:
        tx.wake(CHANNEL)
    return delivery


def forget_payloads(tx: Tx, *, job_id: str) -> None:
    """Drop the payloads of what has been sent, or given up; they hold the job's input."""
    store.scrub(tx, job_id)


def claim(tx: Tx, *, slots: Slots, after: str, lease_s: float, first_wait_ms: int = 0) -> Claimed:
    """Take what is due, line by line in turn from line `after` on."""
    now, lease, left = clock.now_ms(), ids.new("lease"), slots.copy()
    lines = store.due_lines(tx, after=after, limit=_LINES)
    if after and len(lines) < _LINES:
        lines += [line for line in store.due_lines(tx, after="", limit=_LINES - len(lines)) if line <= after]
    flights: list[Flight] = []
    more = len(lines) == _LINES
    secrets: dict[str, tuple[str, ...]] = {}
    for line in lines:
        limit = min(left.quota(line), _CLAIM - len(flights))
        if len(flights) == _CLAIM or not left.free:
            more = True
            break
        after = line
        if limit <= 0:
            more = True
            continue
        account_id = _account(line)
        if account_id not in secrets:
            secrets[account_id] = tuple(secret for secret, *_ in valid_secrets(tx, account_id=account_id))
        taken = store.claim(tx, line, limit=limit, lease=lease, until_ms=now + int(lease_s * 1000))
        left.take(line, len(taken))
        more = more or len(taken) == limit
        for delivery, payload in sorted(taken):
            begins_ms = delivery.created_ms + first_wait_ms
            if delivery.attempts == 0 and delivery.terminal and now < begins_ms <= now + first_wait_ms:
                store.postpone(tx, delivery.id, lease=lease, next_ms=begins_ms)
            else:
                flights.append(Flight(delivery, payload, lease, secrets[account_id]))
    return Claimed(flights, after, more)


def _wait_ms(outcome: Outcome, schedule_s: Sequence[float]) -> int | None:
    """How long to wait for the next try, None when that was the last."""
    tries = outcome.flight.delivery.tries + 1
    if not outcome.flight.delivery.terminal or tries >= len(schedule_s):
        return None
    wait_ms = schedule_s[tries] * 1000 * random.uniform(1, 1 + _JITTER)  # noqa: S311 - spreads load, no secret
    return int(max(wait_ms, min(outcome.retry_after_ms, _MOST_WAIT_MS)))


def settle(tx: Tx, *, outcomes: Sequence[Outcome], schedule_s: Sequence[float]) -> list[str]:
    """Write down attempts and what follows from each, which is returned: `delivered`, `gone` (410), `waiting` for
    another try, or `failed`."""
    now = clock.now_ms()
    told: list[str] = []
    for outcome in outcomes:
        delivery = outcome.flight.delivery
        wait_ms = _wait_ms(outcome, schedule_s)
        if outcome.status is not None and 200 <= outcome.status < 300:
            status = "delivered"
        elif outcome.status == 410:
            status = "gone"
        else:
            status = "failed" if wait_ms is None else "waiting"
        told.append(status)
        number = store.conclude(
            tx, delivery.id, lease=outcome.flight.lease, status=status, tries=delivery.tries + 1,
            next_ms=now + (wait_ms or 0), at_ms=outcome.at_ms, answered=outcome.status,
        )  # fmt: skip
        if number is None:  # a replay was asked for meanwhile, or another courier has it: it was an attempt even so
            number = store.note_attempt(tx, delivery.id, at_ms=outcome.at_ms, answered=outcome.status)
        if number is not None:
            store.insert_attempt(
                tx,
                Attempt(
                    delivery.id, number, outcome.at_ms, outcome.duration_ms, outcome.status, outcome.error,
                    outcome.response,
                ),
            )  # fmt: skip
    return told


def release(tx: Tx, *, flights: Sequence[Flight]) -> None:
    """Hand deliveries back unsent: the courier is stopping."""
    for flight in flights:
        store.release(tx, flight.delivery.id, lease=flight.lease)
    tx.wake(CHANNEL)


def turn(tx: Tx, *, limit: int = 500) -> bool:
    """Make due what has waited long enough, and what a courier that has gone silent held. Whether any is left."""
    now = clock.now_ms()
    promoted = store.promote(tx, now_ms=now, limit=limit)
    rescued = store.rescue(tx, now_ms=now, limit=limit)
    return limit in (promoted, rescued)


def valid_secrets(tx: Tx, *, account_id: str) -> list[tuple[str, int, int | None]]:
    """(secret, created, expires) of each valid secret, the current one first; made when there is none yet."""
    now = clock.now_ms()
    found = store.secrets(tx, account_id, now_ms=now)
    if not any(expires_ms is None for *_, expires_ms in found):
        store.insert_secret(tx, account_id, secret=ids.new_webhook_secret(), now_ms=now)
        found = store.secrets(tx, account_id, now_ms=now)
    return found


def rotate_secret(tx: Tx, *, account_id: str) -> list[tuple[str, int, int | None]]:
    """A new current secret. The one before it stays valid for 24 hours; those before that one end now."""
    now = clock.now_ms()
    valid_secrets(tx, account_id=account_id)
    if store.retire_secret(tx, account_id, until_ms=now + ROTATION_MS):
        store.insert_secret(tx, account_id, secret=ids.new_webhook_secret(), now_ms=now)
    return store.secrets(tx, account_id, now_ms=now)


def outcomes(tx: Tx) -> dict[str, int]:
    """How many deliveries there are, by state; for the metrics."""
    return store.outcomes(tx)
