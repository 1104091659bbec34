"""Webhooks from the end of a job to its receiver: real receivers, both databases, a clock that the test moves."""

import asyncio
import dataclasses
import email.utils
import ipaddress
import re
import secrets
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from standardwebhooks import WebhookVerificationError

from pixeldojo import app, clock
from pixeldojo.accounts import service as accounts
from pixeldojo.accounts.service import Caller
from pixeldojo.catalogue import card as cards
from pixeldojo.catalogue.service import Catalogue
from pixeldojo.courier import Courier
from pixeldojo.db import Row, Tx
from pixeldojo.house import House
from pixeldojo.jobs import hooks
from pixeldojo.jobs import service as jobs
from pixeldojo.jobs import store as jobs_store
from pixeldojo.jobs.store import Job
from pixeldojo.jobs.view import View
from pixeldojo.ledger import service as ledger
from pixeldojo.settings import Settings
from pixeldojo.webhooks import service as webhooks
from pixeldojo.webhooks.service import Slots
from postbox import Postbox, hang

HOME = (ipaddress.ip_network("127.0.0.0/8"),)
HOUR_MS = 3_600_000
RETENTION_S = 24 * 3600
Move = Callable[[int], None]


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Move:
    """Moves the clock by so many milliseconds, for the rest of the test."""
    real, moved = clock.now_ms, 0

    def move(by_ms: int) -> None:
        nonlocal moved
        moved += by_ms
        monkeypatch.setattr(clock, "now_ms", lambda: real() + moved)

    return move


def _open_account(tx: Tx) -> Caller:
    account = accounts.create_account(tx, name=secrets.token_hex(8))
    ledger.grant(tx, account_id=account.id, amount_milli=10**9)
    key, _ = accounts.create_key(tx, account_id=account.id, name="test")
    return Caller(account.id, key.id, None)


class Desk:
    """A house without a worker: the test ends the jobs itself."""

    def __init__(self, house: House, caller: Caller) -> None:
        self.house, self.caller = house, caller
        self.courier = Courier(house)

    async def begin(self, url: str, *, caller: Caller | None = None, **more: Any) -> tuple[str, str]:
        """A job that is being worked on, and its lease. Past the door's check of the URL."""
        body = {"prompt": "bars", "webhook_url": url, **more}
        receipt = await self.house.db.write(
            jobs.submit, caller=caller or self.caller, order=self.house.catalogue.order("testcard", body),
            retention_s=RETENTION_S, base_url="https://dojo.test",
        )  # fmt: skip
        lease, held = await self.house.db.write(jobs.claim, free={"testcard": 1}, lease_s=60)
        assert [job.id for job in held] == [receipt.job.id]
        return receipt.job.id, lease

    async def end(self, job_id: str, lease: str) -> Job | None:
        key = f"{job_id}/0.png"
        asset = {
            "key": key,
            "type": "image",
            "contentType": "image/png",
            "width": 8,
            "height": 8,
            "bytes": 99,
            "seed": 1,
        }
        return await self.house.db.write(
            jobs.finish, job_id=job_id, lease=lease, assets=msgspec.json.encode([asset]).decode(), engine_s=0.5,
            retention_s=RETENTION_S,
        )  # fmt: skip

    async def done(self, url: str, **more: Any) -> str:
        """The id of a job that has just completed."""
        job_id, lease = await self.begin(url, **more)
        assert await self.end(job_id, lease) is not None
        return job_id

    async def fill(self, url: str, count: int) -> list[str]:
        """So many failed jobs, told to `url`; `{}` in it is the number."""

        def fill(tx: Tx) -> list[str]:
            ids = []
            for number in range(count):
                order = self.house.catalogue.order("testcard", {"prompt": "x", "webhook_url": url.format(number)})
                ids.append(jobs.submit(tx, caller=self.caller, order=order, retention_s=RETENTION_S).job.id)
                jobs.cancel(tx, caller=self.caller, job_id=ids[-1], retention_s=RETENTION_S)
            return ids

        return await self.house.db.write(fill)

    async def seen(self, job_id: str) -> Any:
        """The `webhook` of the job."""
        job = await self.house.db.read(jobs_store.get, job_id)
        assert job is not None
        states = await self.house.db.read(jobs.webhook_states, found=[job])
        view = View(signer=self.house.signer, base_url="https://dojo.test")
        return view.job(job, jobs.Seen(delivery=states.get(job_id)))["webhook"]

    async def inspect(self, job_id: str) -> list[tuple[webhooks.Delivery, list[webhooks.Attempt]]]:
        _, found = await self.house.db.read(jobs.webhook, caller=self.caller, job_id=job_id)
        return found

    async def secrets(self) -> list[str]:
        found = await self.house.db.write(webhooks.valid_secrets, account_id=self.caller.account_id)
        return [secret for secret, *_ in found]

    async def rows(self, sql: str, *params: str) -> list[Row]:
        return await self.house.db.scan(lambda tx: tx.all(sql, *params))


Test = Callable[[Desk, Postbox], Coroutine[Any, Any, None]]
Act = Callable[..., None]


def _acting(database_url: str, folder: Path) -> Act:
    def act(test: Test, **settings: Any) -> None:
        async def work() -> None:
            values: dict[str, Any] = {"data_dir": folder, "database_url": database_url, "testcard": True}
            values |= {"allow_networks": HOME, "webhook_retry_schedule": (0, 5, 300)} | settings
            async with app.open_house(Settings(**values)) as opened, Postbox() as box:
                test_card = next(card for card in cards.read_all(None) if card.api_id == "testcard")
                house = dataclasses.replace(opened, catalogue=Catalogue([test_card]))
                await test(Desk(house, await house.db.write(_open_account)), box)

        asyncio.run(work())

    return act


@pytest.fixture
def act(database_url: str, tmp_path: Path) -> Act:
    """Runs a test at a desk, on each database in turn."""
    return _acting(database_url, tmp_path)


@pytest.fixture
def act_once(sqlite_url: str, tmp_path: Path) -> Act:
    """The same on SQLite alone: for what the network does."""
    return _acting(sqlite_url, tmp_path)


def test_a_completed_job_is_told_once_and_signed(act: Act) -> None:
    async def test(desk: Desk, box: Postbox) -> None:
        job_id = await desk.done(box.url("/hook?x=1"))
        assert (await desk.seen(job_id))["status"] == "pending"
        assert await desk.courier.step()
        assert not await desk.courier.step()
        (got,) = box.received
        assert got.path == "/hook?x=1"
        assert got.headers["content-type"] == "application/json"
        (secret,) = await desk.secrets()
        event = got.verify(secret)
        assert secret.startswith("whsec_")
        with pytest.raises(WebhookVerificationError):
            got.verify("whsec_" + "A" * 32)
        job = await desk.house.db.read(jobs_store.get, job_id)
        assert job is not None
        whole = View(signer=desk.house.signer, base_url="https://dojo.test").job(job)
        assert event["data"] == msgspec.json.decode(msgspec.json.encode(whole))
        assert event["data"]["assets"][0]["url"].startswith("https://dojo.test/api/v1/assets/job_")
        assert (event["type"], event["timestamp"]) == ("job.completed", event["data"]["completedAt"])
        seen = await desk.seen(job_id)
        assert (seen["status"], seen["attempts"], seen["lastResponseStatus"]) == ("delivered", 1, 204)
        assert seen["lastAttemptAt"] and seen["nextAttemptAt"] is None
        ((delivery, (attempt,)),) = await desk.inspect(job_id)
        assert (delivery.id, attempt.number, attempt.error, attempt.response) == (got.id, 1, None, "")

    act(test)


def test_every_end_is_told_and_none_twice(act: Act) -> None:
    async def test(desk: Desk, box: Postbox) -> None:
        db = desk.house.db
        of: dict[str, Any] = {"retention_s": RETENTION_S}
        failed, lease = await desk.begin(box.url("/a"))
        assert await db.write(jobs.fail, job_id=failed, lease=lease, code="engine_failed", message="no", **of)
        assert not await db.write(jobs.fail, job_id=failed, lease=lease, code="engine_failed", message="no", **of)
        assert await desk.end(failed, lease) is None
        lost, lease = await desk.begin(box.url("/b"))
        assert await db.write(
            jobs.retry, job_id=lost, lease=lease, attempt=3, code="worker_lost", message="gone", max_attempts=3, **of
        )
        body = {"prompt": "bars", "webhook_url": box.url("/c")}
        order = desk.house.catalogue.order("testcard", body)
        waiting = (await db.write(jobs.submit, caller=desk.caller, order=order, **of)).job.id
        assert (await db.write(jobs.cancel, caller=desk.caller, job_id=waiting, **of))[0] == "cancelled"
        silent = desk.house.catalogue.order("testcard", {"prompt": "no webhook"})
        mute = (await db.write(jobs.submit, caller=desk.caller, order=silent, **of)).job.id
        await db.write(jobs.cancel, caller=desk.caller, job_id=mute, **of)
        await desk.courier.step()
        told = {each.path: each.event for each in box.received}
        assert len(box.received) == 3
        assert {event["type"] for event in told.values()} == {"job.failed"}
        codes = {path: event["data"]["error"]["code"] for path, event in told.items()}
        assert codes == {"/a": "engine_failed", "/b": "worker_lost", "/c": "cancelled"}
        assert told["/a"]["data"]["creditsRefunded"] == told["/a"]["data"]["creditCost"]
        assert len(await desk.rows("SELECT id FROM deliveries")) == 3

    act(test)


def test_retries_follow_the_schedule_then_end(act: Act, later: Move) -> None:
    async def test(desk: Desk, box: Postbox) -> None:
        box.answers["/hook"] = [500, 404, 503]
        job_id = await desk.done(box.url("/hook"))
        for number, wait_ms in enumerate((5_000, 300_000), 1):
            before = clock.now_ms()
            assert await desk.courier.step()
            seen = await desk.seen(job_id)
            assert (seen["status"], seen["attempts"]) == ("pending", number)
            ((delivery, _),) = await desk.inspect(job_id)
            assert delivery.next_ms - before >= wait_ms * 0.99
            assert delivery.next_ms - clock.now_ms() <= wait_ms * 1.1
            later(wait_ms - 2_000)
            assert not await desk.courier.step()
            later(2_000 + wait_ms // 10)
        assert await desk.courier.step()
        assert (await desk.seen(job_id))["status"] == "failed"
        later(10 * HOUR_MS)
        assert not await desk.courier.step()
        assert len({(each.id, each.body) for each in box.received}) == 1
        assert len({each.headers["webhook-timestamp"] for each in box.received}) == 3
        ((_, attempts),) = await desk.inspect(job_id)
        assert [(each.number, each.response_status) for each in attempts] == [(1, 500), (2, 404), (3, 503)]
        assert attempts[0].error == "the host answered with status 500"

    act(test)


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [("120", 120), ("date", 120), ("1", 5), ("99999999999", 24 * 3600), ("soon", 5), ("-5", 5), ("", 5)],
)
def test_retry_after(act_once: Act, header: str, wait_s: int) -> None:
    async def test(desk: Desk, box: Postbox) -> None:
        moment = datetime.fromtimestamp(clock.now_ms() / 1000 + 120, UTC)
        text = email.utils.format_datetime(moment, usegmt=True) if header == "date" else header
        box.answers["/hook"] = f"HTTP/1.1 429 No\r\nRetry-After: {text}\r\nContent-Length: 0\r\n\r\n".encode()
        job_id = await desk.done(box.url("/hook"))
        await desk.courier.step()
        ((delivery, _),) = await desk.inspect(job_id)
        assert wait_s - 3 <= (delivery.next_ms - clock.now_ms()) / 1000 <= wait_s * 1.1

    act_once(test)


def test_gone_and_redirects(act: Act, later: Move) -> None:
    async def test(desk: Desk, box: Postbox) -> None:
        box.answers["/gone"] = 410
        box.answers["/moved"] = b"HTTP/1.1 307 Go\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"
        gone, moved = await desk.done(box.url("/gone")), await desk.done(box.url("/moved"))
        await desk.courier.step()
        later(HOUR_MS)
        await desk.courier.step()
        assert (await desk.seen(gone))["status"] == "gone"
        assert (await desk.seen(gone))["attempts"] == 1
        seen = await desk.seen(moved)
        assert (seen["status"], seen["attempts"], seen["lastResponseStatus"]) == ("pending", 2, 307)
        ((_, attempts),) = await desk.inspect(moved)
        assert "redirects are not followed" in (attempts[0].error or "")
        assert box.at("/elsewhere") == []

    act(test)


def test_addresses_that_are_not_public_are_refused(act_once: Act) -> None:
    async def test(desk: Desk, box: Postbox) -> None:
        urls = [f"https://127.0.0.1:{box.port}/x", f"https://localhost:{box.port}/x", f"http://127.0.0.1:{box.port}/x"]
        for url in urls:
            job_id = await desk.done(url)
            await desk.courier.step()
            ((_, (attempt,)),) = await desk.inspect(job_id)
            assert attempt.response_status is None
            assert re.search("is not public|is this machine|must start with https://", attempt.error or "")
        assert box.connections == 0

    act_once(test, allow_networks=())


def test_what_a_receiver_may_answer(act: Act) -> None:
    async def test(desk: Desk, box: Postbox) -> None:
        whole = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b"
        box.answers["/long"] = whole % (9_000, b"x" * 9_000)
        box.answers["/odd"] = whole % (6, b"a\0b\xff\xc3c")
        box.answers["/junk"] = b"SSH-2.0-OpenSSH_9.9\r\n"
        texts = {}
        for path in ("/long", "/odd", "/junk"):
            job_id = await desk.done(box.url(path))
            await desk.courier.step()
            ((_, (attempt,)),) = await desk.inspect(job_id)
            texts[path] = attempt.response
            if path == "/junk":
                assert attempt.error == "the host's answer is not HTTP"
        assert texts == {"/long": "x" * 2048, "/odd": "a�b��c", "/junk": None}

    act(test)


def test_replays_send_the_same(act: Act, later: Move) -> None:
    async def test(desk: Desk, box: Postbox) -> None:
        box.answers["/hook"] = [204, 500, 204]
        job_id = await desk.done(box.url("/hook"))
        await desk.courier.step()
        later(HOUR_MS)
        job, delivery = await desk.house.db.write(jobs.replay, caller=desk.caller, job_id=job_id)
        assert (job.id, delivery.attempts) == (job_id, 1)
        assert (await desk.seen(job_id))["status"] == "pending"
        await desk.courier.step()  # 500: the schedule begins anew
        assert (await desk.seen(job_id))["status"] == "pending"
        later(6_000)
        await desk.courier.step()
        assert (await desk.seen(job_id))["status"] == "delivered"
        assert (await desk.seen(job_id))["attempts"] == 3
        assert len(box.received) == 3
        assert len({(each.id, each.body) for each in box.received}) == 1

    act(test)


def test_a_replay_while_an_attempt_is_under_way(act: Act) -> None:
    async def test(desk: Desk, box: Postbox) -> None:
        asked = asyncio.Event()

        async def slow(writer: asyncio.StreamWriter) -> None:
            await asked.wait()
            writer.write(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")

        box.answers["/hook"] = [slow, 204]
        job_id = await desk.done(box.url("/hook"))
        first = asyncio.create_task(desk.courier.step())
        await box.until(1)
        await desk.house.db.write(jobs.replay, caller=desk.caller, job_id=job_id)
        asked.set()
        await first
        assert (await desk.seen(job_id))["status"] == "pending"
        assert await desk.courier.step()
        ((delivery, attempts),) = await desk.inspect(job_id)
        assert (delivery.status, delivery.attempts) == ("delivered", 2)
        assert [each.response_status for each in attempts] == [500, 204]

    act(test)


def test_rotation_keeps_both_secrets_for_a_day(act: Act, later: Move) -> None:
    async def test(desk: Desk, box: Postbox) -> None:
        (old,) = await desk.secrets()
        await desk.house.db.write(webhooks.rotate_secret, account_id=desk.caller.account_id)
        new, before = await desk.secrets()
        assert before == old != new
        await desk.done(box.url("/hook"))
        await desk.courier.step()
        for secret in (old, new):
            box.received[0].verify(secret)
        assert box.received[0].headers["webhook-signature"].count("v1,") == 2
        later(webhooks.ROTATION_MS - 60_000)
        assert await desk.secrets() == [new, old]
        later(60_000)
        assert await desk.secrets() == [new]
        await desk.house.db.write(webhooks.rotate_secret, account_id=desk.caller.account_id)
        await desk.house.db.write(webhooks.rotate_secret, account_id=desk.caller.account_id)
        valid = await desk.secrets()
        assert len(valid) == 2 and new not in valid
        stranger = await desk.house.db.write(_open_account)
        theirs = await desk.house.db.write(webhooks.valid_secrets, account_id=stranger.account_id)
        assert theirs[0][0] not in valid

    act(test)


def test_start_and_progress_are_told_once_and_never_retried(act: Act, later: Move) -> None:
    async def test(desk: Desk, box: Postbox) -> None:
        db, wanted = desk.house.db, ["start", "progress", "completed", "failed"]
        box.answers["/hook"] = [500, 500, 500, 204]
        job_id, lease = await desk.begin(box.url("/hook"), webhook_events_filter=wanted)

        async def beat(progress: float) -> None:
            await db.write(jobs.heartbeat, held={job_id: jobs.Beat(lease, progress)}, lease_s=60)

        await beat(0.1)
        await beat(0.2)  # within 500 ms of the one before
        await desk.courier.step()
        later(600)
        await beat(0.5)
        later(600)
        await beat(0.75)  # the one before was not sent yet: it is replaced
        await desk.courier.step()
        later(600)
        await beat(0.9)
        await desk.end(job_id, lease)  # and the last progress is not worth sending any more
        await desk.courier.step()
        later(HOUR_MS)
        assert not await desk.courier.step()
        told = [(each.event["type"], each.event["data"].get("progress")) for each in box.received]
        assert sorted(told[:2], key=str) == [("job.progress", 0.1), ("job.started", 0.0)]
        assert told[2:] == [("job.progress", 0.75), ("job.completed", None)]
        assert len({each.id for each in box.received}) == 4
        states = {delivery.type: delivery.status for delivery, _ in await desk.inspect(job_id)}
        assert states == {"job.started": "failed", "job.progress": "failed", "job.completed": "delivered"}
        assert (await desk.seen(job_id))["attempts"] == 1

    act(test)


def test_an_end_nobody_asked_for_can_be_replayed(act: Act) -> None:
    async def test(desk: Desk, box: Postbox) -> None:
        job_id = await desk.done(box.url("/hook"), webhook_events_filter=["failed"])
        assert not await desk.courier.step()
        assert (await desk.seen(job_id))["status"] == "skipped"
        await desk.house.db.write(jobs.replay, caller=desk.caller, job_id=job_id)
        assert await desk.courier.step()
        assert box.received[0].event["type"] == "job.completed"
        job = await desk.house.db.read(jobs_store.get, job_id)
        assert job is not None and list(hooks.wanted(job)) == ["failed"]

    act(test)


def test_hundreds_under_way_and_nobody_waits_for_a_slow_one(act_once: Act) -> None:
    async def test(desk: Desk, box: Postbox) -> None:
        box.answers |= {f"/hang/{number}": hang for number in range(120)} | {"/stuck": hang}
        await desk.fill(box.url("/hang/{}"), 120)
        await desk.fill(box.url("/stuck"), 400)
        other = await desk.house.db.write(_open_account)
        running = asyncio.create_task(desk.courier.run())
        async with asyncio.timeout(5):
            while len(box.received) - len(box.at("/stuck")) < 120:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        waits = []
        for number in range(20):
            started = time.perf_counter()
            count = len(box.at("/ok"))
            await desk.done(box.url("/ok"), caller=other if number % 2 else None)
            async with asyncio.timeout(5):
                while len(box.at("/ok")) == count:  # noqa: ASYNC110
                    await asyncio.sleep(0.002)
            waits.append(time.perf_counter() - started)
        assert max(waits) < 0.5, waits
        assert len(box.at("/stuck")) < 110  # of 512 slots: a quarter of what is free
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert await desk.rows("SELECT id FROM deliveries WHERE status = 'sending'") == []
        (left,) = await desk.rows("SELECT COUNT(*) FROM deliveries WHERE status = 'due' AND attempts = 0")
        assert left[0] == 520

    act_once(test)


def test_slots_leave_room_for_others() -> None:
    slots = Slots(512)
    alone = slots.quota("a x")
    assert 64 <= alone <= 128
    for number in range(10_000):  # one account, a new line each time: as many as it leaves free
        line = f"a {number}"
        slots.take(line, slots.quota(line))
    assert 250 <= slots.free <= 260
    for number in range(6):  # more such accounts: each leaves something
        for path in range(300):
            line = f"{number} {path}"
            slots.take(line, slots.quota(line))
    assert slots.free >= 3
    assert slots.quota("new x") == 1
    slow = Slots(512, slow={"a x": None})
    assert slow.quota("a x") == 4
    slow.take("a x", 4)
    assert slow.quota("a x") == 0
    slow.take("a x", -4)
    assert (slow.free, slow.lines, slow.accounts) == (512, {}, {})
    assert Slots(0).quota("a x") == 0


def test_a_line_is_an_account_and_an_address() -> None:
    line = webhooks.line_of("a", "https://x.test/hook")
    assert line == webhooks.line_of("a", "https://x.test/hook?job=1#top")
    assert len({line, webhooks.line_of("b", "https://x.test/hook"), webhooks.line_of("a", "https://x.test/")}) == 3


def test_a_silent_courier_is_replaced(act: Act, later: Move) -> None:
    async def test(desk: Desk, box: Postbox) -> None:
        wanted = ["start", "completed"]
        job_id = await desk.done(box.url("/hook"), webhook_events_filter=wanted)
        claimed = await desk.house.db.write(webhooks.claim, slots=Slots(10), after="", lease_s=30)
        assert len(claimed.flights) == 2
        later(29_000)
        assert not await desk.courier.step()
        later(2_000)
        assert await desk.courier.step()
        assert [each.event["type"] for each in box.received] == ["job.completed"]  # the other is not worth a second try
        late = [webhooks.Outcome(flight, clock.now_ms(), 5, 500) for flight in claimed.flights]
        await desk.house.db.write(webhooks.settle, outcomes=late, schedule_s=(0, 5))
        seen = await desk.seen(job_id)
        assert (seen["status"], seen["attempts"]) == ("delivered", 2)

    act(test)


def test_two_couriers_share_the_work(act: Act) -> None:
    async def test(desk: Desk, box: Postbox) -> None:
        ids = await desk.fill(box.url("/{}"), 30)
        couriers = [asyncio.create_task(Courier(desk.house).run()) for _ in range(3)]
        await box.until(30)
        await asyncio.sleep(0.05)
        for each in couriers:
            each.cancel()
        await asyncio.gather(*couriers, return_exceptions=True)
        assert len(box.received) == 30
        for job_id in ids:
            assert (await desk.seen(job_id))["status"] == "delivered"

    act(test)


def test_the_first_wait_of_the_schedule_counts_too(act_once: Act, later: Move) -> None:
    async def test(desk: Desk, box: Postbox) -> None:
        job_id = await desk.done(box.url("/hook"))
        assert not await desk.courier.step()
        assert (await desk.seen(job_id))["attempts"] == 0
        later(3_100)
        assert await desk.courier.step()
        assert (await desk.seen(job_id))["status"] == "delivered"
        await desk.house.db.write(jobs.replay, caller=desk.caller, job_id=job_id)
        assert await desk.courier.step()

    act_once(test, webhook_retry_schedule=(3, 3))


def test_a_clock_that_is_set_back_stops_nothing(act: Act, later: Move) -> None:
    async def test(desk: Desk, box: Postbox) -> None:
        box.answers["/hook"] = [500, 204]
        job_id = await desk.done(box.url("/hook"))
        await desk.courier.step()
        later(-30 * 24 * HOUR_MS)
        assert await desk.courier.step()
        assert (await desk.seen(job_id))["status"] == "delivered"

    act(test)


def test_payloads_go_with_the_files_and_rows_with_the_job(act: Act, later: Move) -> None:
    async def test(desk: Desk, box: Postbox) -> None:
        db, payload = desk.house.db, "SELECT payload FROM deliveries WHERE job_id = ?"
        box.answers["/late"] = [500, 500, 204]
        sent, late = await desk.done(box.url("/hook")), await desk.done(box.url("/late"))
        await desk.courier.step()
        later(RETENTION_S * 1000 + 1)
        for job_id in (sent, late):
            await db.write(jobs.mark_swept, job_id=job_id)
        assert [bytes(row[0]) for row in await desk.rows(payload, sent)] == [b""]
        assert b"bars" in bytes((await desk.rows(payload, late))[0][0])  # still to be sent
        await desk.courier.step()
        later(HOUR_MS)
        await desk.courier.step()
        assert len(box.at("/late")) == 3
        assert [bytes(row[0]) for row in await desk.rows(payload, late)] == [b""]
        later(HOUR_MS)
        assert await db.write(jobs.forget, kept_s=60) == 0  # their idempotency keys may still ask for them
        later(24 * HOUR_MS)
        assert await db.write(jobs.forget, kept_s=60) == 2
        assert await desk.rows("SELECT id FROM deliveries") == []
        assert await desk.rows("SELECT number FROM delivery_attempts") == []

    act(test)
