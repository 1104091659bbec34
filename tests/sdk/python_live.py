"""What the Python SDK does with a running service, through either client. Runs where the built package is installed:

    python python_live.py sync|async FOLDER     with PIXELDOJO_BASE_URL, PIXELDOJO_API_KEY, POOR_KEY, OWNER_KEY,
                                                WEBHOOK_SECRET
    python python_live.py gone PID              kills the service while both clients wait for a job

It ends with a traceback at the first thing that is not as it must be.
"""

import asyncio
import contextlib
import functools
import inspect
import os
import signal
import sys
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pixeldojo_sdk as sdk  # type: ignore[import-not-found, unused-ignore]

PNG = b"\x89PNG\r\n\x1a\n"


class Awaited:
    """The blocking client with the asyncio client's face, so that one script serves both."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if name == "verify_webhook" or not callable(found):
            return found

        @functools.wraps(found)
        def method(*args: Any, **kwargs: Any) -> Any:
            return _items(found(*args, **kwargs)) if name in ("events", "iter_jobs") else _one(found, args, kwargs)

        return method


async def _one(function: Any, args: Any, kwargs: Any) -> Any:
    return await asyncio.to_thread(function, *args, **kwargs)


async def _items(iterator: Any) -> Any:
    while (item := await asyncio.to_thread(next, iterator, None)) is not None:
        yield item


async def fails(awaitable: Any, kind: Any, **fields: Any) -> Any:
    """The error that it must end with."""
    try:
        outcome = await awaitable
    except kind as error:
        assert {name: getattr(error, name) for name in fields} == fields
        return error
    raise AssertionError(f"no {kind.__name__}, but {outcome!r}")


async def catalogue(make: Any) -> None:
    async with contextlib.AsyncExitStack() as stack:
        nobody = await opened(stack, make, "")
        found = await nobody.list_models(modality="image", detailed=True)
        assert found.total == len(found.models) and found.image_count >= 1
        card = next(model for model in found.models if model.api_id == "testcard")
        assert card.request_schema == (await nobody.get_model_schema("testcard")).schema
        detail = await nobody.get_model("testcard")
        assert (detail.credit_cost.type, detail.credit_cost.amount, detail.credit_cost.default) == ("per_image", 1, 1)
        assert detail.examples and detail.raw["apiId"] == "testcard"
        await fails(nobody.run("testcard", {"prompt": "x"}), sdk.UnauthorizedError, status=401)


async def pictures(pd: Any, folder: Path) -> Any:
    seen: list[str] = []
    wanted = {"prompt": "bars", "seed": 7, "num_outputs": 2}
    job = await pd.generate("testcard", wanted, on_progress=lambda progress: seen.append(progress.status))
    assert (job.status, job.model, job.credit_cost, job.input["seed"]) == ("completed", "testcard", 2, 7)
    assert (seen[0], seen[-1]) == ("pending", "completed")
    assert [(each.url, each.seed, each.content_type) for each in job.assets] == [
        (url, 7 + number, "image/png") for number, url in enumerate(job.output.images)
    ]
    path = folder / "made" / "here" / "0.png"
    assert await pd.save_asset(job.assets[0], path) == job.assets[0].bytes
    saved = path.read_bytes()
    assert saved.startswith(PNG) and [each.name for each in path.parent.iterdir()] == ["0.png"]
    again = await pd.generate("testcard", {"prompt": "bars", "seed": 7}, follow="events")
    assert await pd.download_asset(again.assets[0]) == saved
    other = await pd.generate("testcard", {"prompt": "bars", "seed": 8})
    assert await pd.download_asset(other.assets[0].url) != saved
    tampered = job.assets[0].url.replace("signature=", "signature=0")
    await fails(pd.save_asset(tampered, folder / "no.png"), sdk.NotFoundError)
    assert not (folder / "no.png").exists()
    return job


async def steps(pd: Any) -> None:
    key = f"live {uuid.uuid4()}"
    receipt = await pd.run("testcard", {"prompt": "once"}, idempotency_key=key)
    assert (await pd.run("testcard", {"prompt": "once"}, idempotency_key=key)).job_id == receipt.job_id
    assert receipt.status_url.endswith(f"/api/v1/jobs/{receipt.job_id}") and receipt.credits_remaining > 0
    assert (await pd.wait_for_job(receipt.job_id)).job_id == receipt.job_id
    page = await pd.list_jobs(limit=2, status="completed", model="testcard")
    assert len(page.jobs) == 2 and page.next_cursor
    listed = [job.job_id async for job in pd.iter_jobs(limit=2, status="completed")]
    assert len(listed) == len(set(listed)) >= 4 and receipt.job_id in listed
    estimate = await pd.estimate("testcard", {"prompt": "x", "num_outputs": 3})
    assert (estimate.credit_cost, estimate.affordable, estimate.api_id) == (3, True, "testcard")
    account = await pd.account()
    assert account.credits > 0 and account.key.scopes and account.limits.retention_seconds
    usage = await pd.usage(group_by=["model", "day"])
    assert any(row.model == "testcard" and row.day and row.jobs for row in usage.rows)
    assert abs(usage.total.net - sum(row.net for row in usage.rows)) < 0.001
    ledger = await pd.ledger(limit=1, kind="charge")
    assert ledger.entries[0].amount < 0 and ledger.entries[0].model == "testcard"
    further = await pd.ledger(limit=1, kind="charge", cursor=ledger.next_cursor)
    assert further.entries[0].id != ledger.entries[0].id
    await fails(pd.usage(start="2030-01-02", end="2030-01-01"), sdk.ValidationError)
    removed = await pd.delete_job(receipt.job_id)
    assert (removed.job_id, removed.deleted) == (receipt.job_id, True)
    await fails(pd.get_job(receipt.job_id), sdk.ExpiredError, status=410)
    await fails(pd.delete_job("job_unknown"), sdk.NotFoundError)


async def keys(pd: Any, make: Any) -> None:
    async with contextlib.AsyncExitStack() as stack:
        owner = await opened(stack, make, os.environ["OWNER_KEY"])
        soon = datetime.now(UTC) + timedelta(hours=1)
        made = await owner.create_key("ci", scopes=["jobs:read"], models=["testcard"], cap_credits=1.5, expires_at=soon)
        assert (made.name, made.scopes, made.models, made.cap_credits) == ("ci", ("jobs:read",), ("testcard",), 1.5)
        assert made.key not in repr(made)
        client = await opened(stack, make, made.key)
        assert (await client.list_jobs()).jobs == ()
        await fails(client.create_key("more"), sdk.UnauthorizedError)
        await fails(pd.list_keys(), sdk.UnauthorizedError)  # it has not the scope
        await fails(owner.create_key(""), sdk.ValidationError)
        turned = await owner.rotate_key(made.id, grace_seconds=0)
        assert (turned.replaces.id, turned.budget_id) == (made.id, made.budget_id)
        await fails(client.list_jobs(), sdk.UnauthorizedError)
        assert (await owner.list_keys(limit=1)).next_cursor
        assert turned.id in [each.id for each in (await owner.list_keys()).keys]
        assert (await owner.revoke_key(turned.id)).status == "revoked"
        first = await owner.webhook_secret()
        rotated = await owner.rotate_webhook_secret()
        assert [each.secret for each in rotated.secrets] == [rotated.secret, first.secret]
        assert (await owner.webhook_secret()).secret == rotated.secret


async def errors(pd: Any, make: Any, job: Any) -> None:
    async with contextlib.AsyncExitStack() as stack:
        wrong = await opened(stack, make, "pd_wrong")
        await fails(wrong.get_job(job.job_id), sdk.UnauthorizedError, code="unauthorized", status=401)
        poor = await opened(stack, make, os.environ["POOR_KEY"])
        await fails(poor.generate("testcard", {"prompt": "x"}), sdk.InsufficientCreditsError, status=402)
        await fails(poor.get_job(job.job_id), sdk.NotFoundError)  # another account's
        site = await opened(stack, make, "", base_url=os.environ["PIXELDOJO_BASE_URL"] + "/elsewhere")
        await fails(site.list_models(), sdk.PixelDojoError)
    await fails(pd.generate("no-such-model", {"prompt": "x"}), sdk.NotFoundError, code="not_found", status=404)
    await fails(pd.get_job("job_unknown"), sdk.NotFoundError)
    invalid = await fails(pd.run("testcard", {"prompt": "x", "num_outputs": 9, "seeds": 1}), sdk.ValidationError)
    assert sorted(each.path for each in invalid.details) == ["num_outputs", "seeds"]
    assert invalid.status == 400 and invalid.request_id.startswith("req_") and invalid.idempotency_key
    failed = await fails(pd.generate("testcard", {"prompt": "!refuse"}), sdk.JobFailedError)
    assert (failed.job.status, failed.job.credits_refunded, failed.job_id) == ("failed", 1, failed.job.job_id)


async def cancelling(pd: Any) -> None:
    began = time.monotonic()
    late = await fails(pd.generate("testcard", {"prompt": "!slow"}, timeout=0.3), TimeoutError)
    assert late.job_id.startswith("job_") and time.monotonic() - began < 2
    kinds = []
    async for event in pd.events(late.job_id):
        kinds.append(event.type)
        if len(kinds) == 2:
            assert (await pd.cancel(late.job_id)).job_id == late.job_id
    assert kinds[-1] == "failed" and "progress" in kinds
    assert (await pd.get_job(late.job_id)).error.code == "cancelled"
    await fails(pd.wait_for_job(late.job_id), sdk.JobFailedError, code="cancelled")
    assert (await pd.cancel(late.job_id)).result == "too_late"


async def expiry(pd: Any, job: Any) -> None:
    headers = {"authorization": f"Bearer {os.environ['PIXELDOJO_API_KEY']}"}
    async with httpx2.AsyncClient(headers=headers) as http:
        answer = await http.delete(f"{pd.base_url}/jobs/{job.job_id}")
        assert answer.status_code == 200, answer.text
    await fails(pd.get_job(job.job_id), sdk.ExpiredError, code="expired", status=410, job_id=None)
    await fails(pd.wait_for_job(job.job_id), sdk.ExpiredError, job_id=job.job_id)
    await fails(pd.download_asset(job.assets[0]), sdk.ExpiredError, status=410)


class Receiver(BaseHTTPRequestHandler):
    """Takes webhooks."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.came.append((body, dict(self.headers.items())))  # type: ignore[attr-defined]
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


async def webhooks(pd: Any) -> None:
    secret = os.environ["WEBHOOK_SECRET"]
    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        came: list[Any] = []
        server.came = came  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, args=(0.02,)).start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/"
            job = await pd.generate("testcard", {"prompt": "Löwe ❤️", "webhook_url": url, "metadata": {"order": 66}})
            await until(lambda: len(came) == 1)
            body, signed = came[0]
            event = pd.verify_webhook(body, signed, secret)
            assert (event.type, event.job.job_id, event.job.input["prompt"]) == ("job.completed", job.job_id, "Löwe ❤️")
            for changed in ({"payload": body + b" "}, {"now": time.time() + 600}):
                try:
                    pd.verify_webhook(**{"payload": body, "headers": signed, "secret": secret} | changed)
                except sdk.WebhookVerificationError:
                    continue
                raise AssertionError(changed)
            assert (await pd.replay_webhook(job.job_id)).job_id == job.job_id
            await until(lambda: len(came) == 2)
            assert came[1][0] == body
            webhook = await pd.get_webhook(job.job_id)
            assert (webhook.url, webhook.deliveries[0].attempts[0].response_status) == (url, 204)
            assert (await pd.list_jobs(metadata={"order": 66}, limit=1)).jobs[0].job_id == job.job_id
        finally:
            server.shutdown()


async def until(holds: Any) -> None:
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


async def opened(stack: contextlib.AsyncExitStack, make: Any, key: str | None = None, **options: Any) -> Any:
    client = make(key, poll_interval=0.02, **options)

    async def close() -> None:
        if inspect.isawaitable(closing := client.close()):
            await closing

    stack.push_async_callback(close)
    return client


async def live(kind: str, folder: Path) -> None:
    def make(*args: Any, **options: Any) -> Any:
        blocking = kind == "sync"
        return (
            Awaited(sdk.PixelDojoClient(*args, **options)) if blocking else sdk.AsyncPixelDojoClient(*args, **options)
        )

    async with contextlib.AsyncExitStack() as stack:
        pd = await opened(stack, make)
        await catalogue(make)
        job = await pictures(pd, folder)
        await steps(pd)
        await errors(pd, make, job)
        await keys(pd, make)
        await cancelling(pd)
        await webhooks(pd)
        await expiry(pd, job)


async def gone(pid: int) -> None:
    """Both wait for a job, the service is killed, and both end with the error that says so."""
    waiting = threading.Barrier(3)

    def told(progress: Any) -> None:
        if progress.status == "processing":
            with contextlib.suppress(threading.BrokenBarrierError):
                waiting.wait(10)

    async def told_async(progress: Any) -> None:
        await asyncio.to_thread(told, progress)

    options: dict[str, Any] = {"poll_interval": 0.02, "max_retries": 1, "retry_base": 0.01}
    with sdk.PixelDojoClient(**options) as blocking:
        async with sdk.AsyncPixelDojoClient(**options) as pd:
            slow = {"prompt": "!slow"}
            one = asyncio.to_thread(blocking.generate, "testcard", slow, on_progress=told, outage=0.3)
            two = pd.generate("testcard", slow, on_progress=told_async, outage=0.3)
            both = [asyncio.create_task(each) for each in (fails(one, ConnectionError), fails(two, ConnectionError))]
            await asyncio.to_thread(waiting.wait, 20)
            waiting.abort()
            os.kill(pid, signal.SIGKILL)
            began = time.monotonic()
            for error in await asyncio.gather(*both):
                assert isinstance(error, sdk.PixelDojoError) and error.job_id.startswith("job_"), error
            assert time.monotonic() - began < 5


if __name__ == "__main__":
    if sys.argv[1] == "gone":
        asyncio.run(gone(int(sys.argv[2])))
    else:
        asyncio.run(live(sys.argv[1], Path(sys.argv[2])))
