"""The courier's loop: due delivery → lease → POST → settle. It restarts by asking the table.

Many deliveries are under way at once and results are written in batches. What it sends is frozen, so a delivery that is
made twice (a courier was killed, a lease ran out) is the same to its receiver: same id, same bytes.
"""

import asyncio
import contextlib
import email.utils
import time
from collections import OrderedDict

import structlog

from pixeldojo import clock, metrics, traces
from pixeldojo.db import DatabaseUnavailable
from pixeldojo.house import House
from pixeldojo.outbound import OutboundError
from pixeldojo.post import Answer, Poster
from pixeldojo.webhooks import service as webhooks
from pixeldojo.webhooks import view
from pixeldojo.webhooks.service import Flight, Outcome, Slots

SLOTS = 512
_TURN_S = 1.0  # how often waits and leases are looked at
_GRACE_S = 1.0  # for what is under way when the courier is stopped
_LEASE_SLACK_S = 15.0  # a lease outlasts the time limit of a delivery, and the writing down of what came of it
_SLOW_MOST = 10_000
_BATCH = 64  # outcomes written down in one transaction: others write too
_BACKLOG = 1024  # with so many not yet written down, nothing more is claimed
_log = structlog.get_logger()


class Courier:
    """Delivers the webhooks of one house."""

    def __init__(self, house: House, *, slots: int = SLOTS) -> None:
        self._house, self._settings = house, house.settings
        self._poster = Poster(house.settings.allow_networks)
        self._slow: OrderedDict[str, None] = OrderedDict()  # lines that did not answer lately
        self._slots = Slots(slots, slow=self._slow)
        self._flights: dict[asyncio.Task[None], Flight] = {}
        self._outcomes: list[Outcome] = []
        self._after = ""
        self._more = False  # something is due that found no slot
        self._next_turn = 0.0
        self._event = house.db.event(webhooks.CHANNEL)
        self._landed = asyncio.Event()

    async def run(self) -> None:
        """Deliver until cancelled; then hand back what was not sent."""
        settling = asyncio.create_task(self._settle_for_ever())
        try:
            while True:
                self._event.clear()
                if not await self._tried():
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_TURN_S):
                            await self._event.wait()
        finally:
            await self._stop(settling)

    async def _tried(self) -> bool:
        try:
            return await self._take()
        except DatabaseUnavailable as error:
            _log.error("courier_failed", error=str(error))
        except Exception:  # the loop's edge: with the courier gone, nobody would hear of anything
            _log.exception("courier_failed")
        await asyncio.sleep(_TURN_S)
        return False

    async def step(self) -> bool:
        """Deliver once what is due now, and write down what came of it. False when there was nothing."""
        self._next_turn = 0.0
        took = await self._take()
        while self._flights:
            await asyncio.wait(self._flights)
        while await self._settle():
            pass
        return took

    async def _take(self) -> bool:
        """Claim what there are slots for and send it on its way. False when there was nothing."""
        if time.monotonic() >= self._next_turn:
            more = await self._house.db.write(webhooks.turn)
            self._next_turn = 0.0 if more else time.monotonic() + _TURN_S
        if not self._slots.free or len(self._outcomes) >= _BACKLOG:
            self._more = True
            return False
        claiming = asyncio.ensure_future(
            self._house.db.write(
                webhooks.claim,
                slots=self._slots.copy(),
                after=self._after,
                lease_s=self._settings.webhook_timeout_s + _LEASE_SLACK_S,
                first_wait_ms=int(self._settings.webhook_retry_schedule[0] * 1000),
            )
        )
        try:
            claimed = await asyncio.shield(claiming)
        except asyncio.CancelledError:  # the transaction goes on: what it claims must be handed back
            with contextlib.suppress(DatabaseUnavailable):
                flights = (await claiming).flights
                await self._house.db.write(webhooks.release, flights=flights)
            raise
        self._after, self._more = claimed.after, claimed.more
        for flight in claimed.flights:
            self._slots.take(flight.delivery.line, 1)
            task = asyncio.create_task(self._fly(flight))
            self._flights[task] = flight
            task.add_done_callback(self._land)
        return bool(claimed.flights)

    def _land(self, task: asyncio.Task[None]) -> None:
        self._slots.take(self._flights.pop(task).delivery.line, -1)
        self._landed.set()
        if self._more:
            self._event.set()

    async def _fly(self, flight: Flight) -> None:
        """One attempt, from start to outcome."""
        line, at_ms, started = flight.delivery.line, clock.now_ms(), time.monotonic()
        answer, reason = None, None
        try:
            headers = view.headers(flight, now_ms=at_ms)
            with traces.span("delivery", job=flight.delivery.job_id, delivery=flight.delivery.id):
                answer = await self._poster.post(
                    flight.delivery.url, headers=headers, body=flight.payload,
                    timeout_s=self._settings.webhook_timeout_s, most=webhooks.RESPONSE_BYTES,
                )  # fmt: skip
            self._slow.pop(line, None)
        except OutboundError as error:
            reason = error.message
            self._slow[line] = None
            if len(self._slow) > _SLOW_MOST:
                self._slow.popitem(last=False)
        except Exception:  # one delivery's fault must not become another's
            _log.exception("delivery_crashed", delivery=flight.delivery.id, job=flight.delivery.job_id)
            reason = "something went wrong on our side"
        self._outcomes.append(_outcome(flight, answer, reason, at_ms=at_ms, seconds=time.monotonic() - started))

    async def _settle_for_ever(self) -> None:
        while True:
            await self._landed.wait()
            self._landed.clear()
            try:
                while await self._settle():
                    if self._more:
                        self._event.set()
            except DatabaseUnavailable as error:
                _log.error("deliveries_not_settled", error=str(error))
                await asyncio.sleep(_TURN_S)
                self._landed.set()
            except Exception:  # the loop's edge: what is lost here is sent again when its lease has run out
                _log.exception("deliveries_not_settled")
                self._outcomes.clear()

    async def _settle(self) -> bool:
        """Write down what came of a batch of deliveries. False when there was nothing to write."""
        batch = self._outcomes[:_BATCH]
        if not batch:
            return False
        told = await self._house.db.write(
            webhooks.settle, outcomes=batch, schedule_s=self._settings.webhook_retry_schedule
        )
        del self._outcomes[: len(batch)]
        for word in told:
            metrics.delivered(word)
        return True

    async def _stop(self, settling: "asyncio.Task[None]") -> None:
        """Give what is under way a moment, write down what came of it, and hand back the rest."""
        if self._flights:
            await asyncio.wait(self._flights, timeout=_GRACE_S)
        left = dict(self._flights)
        for task in left:
            task.cancel()
        settling.cancel()
        await asyncio.gather(settling, *left, return_exceptions=True)
        with contextlib.suppress(DatabaseUnavailable):
            while await self._settle():
                pass
            if left:
                await self._house.db.write(webhooks.release, flights=list(left.values()))
        self._poster.close()


def _outcome(flight: Flight, answer: Answer | None, reason: str | None, *, at_ms: int, seconds: float) -> Outcome:
    if answer is None:
        return Outcome(flight, at_ms, round(seconds * 1000), None, reason)
    if not 200 <= answer.status < 300:
        moved = " (redirects are not followed)" if 300 <= answer.status < 400 else ""
        reason = f"the host answered with status {answer.status}{moved}"
    # PostgreSQL takes no null characters, whatever a receiver sends.
    text = answer.body.decode("utf-8", "replace").replace("\0", "\ufffd")
    return Outcome(
        flight, at_ms, round(seconds * 1000), answer.status, reason, text, _retry_after_ms(answer.retry_after)
    )


def _retry_after_ms(text: str | None) -> int:
    """`Retry-After` in milliseconds from now: seconds, or an HTTP date. 0 when it is neither."""
    if text is None:
        return 0
    text = text.strip()
    if text.isascii() and text.isdigit():
        return int(text[:9]) * 1000
    try:
        moment = email.utils.parsedate_to_datetime(text)
        return max(int(moment.timestamp() * 1000) - clock.now_ms(), 0)
    except (ValueError, TypeError, OverflowError, IndexError):
        return 0
