"""The Python SDK, through both of its clients, against the shared pairs of requests and responses.

One script drives both: the blocking client runs in a thread of its own, beside the asyncio client.
"""

import asyncio
import builtins
import concurrent.futures
import contextlib
import dataclasses
import email.utils
import gc
import importlib
import json
import re
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from python_fake import Fake, Seen, Told

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "sdks/fixtures"
sys.path.insert(0, str(ROOT / "sdks/python/src"))
sdk: Any = importlib.import_module("pixeldojo_sdk")

SHARED = json.loads((FIXTURES / "shared.json").read_text(encoding="utf-8"))
FILES = sorted(path for path in FIXTURES.glob("*.json") if path.name != "shared.json")
CASES = [case for path in FILES for case in json.loads(path.read_text(encoding="utf-8"))["cases"]]
CLIENTS = ("sync", "async")
_SECONDS = {"timeoutMs": "timeout", "outageMs": "outage", "retryBaseMs": "retry_base"}
_NAMES = {"toleranceS": "tolerance", "input": "input", "from": "start", "to": "end"}


def snake(name: str) -> str:
    return re.sub(r"[A-Z]", lambda found: "_" + found.group().lower(), name)


def options(told: dict[str, Any]) -> dict[str, Any]:
    return {
        _SECONDS.get(name, _NAMES.get(name, snake(name))): value / 1000 if name in _SECONDS else value
        for name, value in told.items()
    }


def filled(value: Any, server: str) -> Any:
    """`value` with its {{…}} replaced."""
    if isinstance(value, dict):
        return {name: filled(each, server) for name, each in value.items()}
    if isinstance(value, list):
        return [filled(each, server) for each in value]
    if not isinstance(value, str):
        return value

    def date(found: re.Match[str]) -> str:
        return email.utils.formatdate(time.time() + int(found.group(1) or 0), usegmt=True)

    return re.sub(r"\{\{date(?:\+(\d+))?\}\}", date, value.replace("{{server}}", server))


def whole(told: Any, kind: str) -> dict[str, Any]:
    """A request or response, whichever way the case tells it."""
    told = {"like": told} if isinstance(told, str) else told
    base = SHARED[kind][told["like"]] if "like" in told else {}
    made = base | {name: value for name, value in told.items() if name != "like"}
    for name in ("headers", "query", "json"):
        if isinstance(base.get(name), dict) and isinstance(told.get(name), dict):
            made[name] = base[name] | told[name]
    return dict(made)


def matches(seen: Any, wanted: Any) -> bool:
    """Equal, but objects may have more fields."""
    if isinstance(wanted, dict):
        return isinstance(seen, dict) and all(name in seen and matches(seen[name], wanted[name]) for name in wanted)
    if isinstance(wanted, list):
        return isinstance(seen, list) and len(seen) == len(wanted) and all(map(matches, seen, wanted))
    return bool(seen == wanted)


def wire(value: Any) -> Any:
    """What an outcome is on the wire; its attributes must say the same."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list | tuple):
        return [wire(each) for each in value]
    if type(value).__name__ == "JobEvent":
        return {"type": value.type, "id": value.id, "data": value.data}
    if isinstance(value, sdk.ErrorDetail):
        return dataclasses.asdict(value)
    if not dataclasses.is_dataclass(value):
        return value
    raw: dict[str, Any] = getattr(value, "raw")  # noqa: B009 - of any dataclass
    for each in dataclasses.fields(value):
        told = raw.get(re.sub(r"_(.)", lambda found: found.group(1).upper(), each.name))
        if each.name == "raw" or told is None:
            continue
        held = getattr(value, each.name)
        if isinstance(held, datetime):
            assert held == datetime.fromisoformat(told) and held.tzinfo
        elif not isinstance(held, dict):
            assert matches(wire(held), told), each.name
    return raw


@dataclasses.dataclass
class Outcome:
    result: Any
    error: Any
    seconds: float
    progress: list[str]


async def call(kind: str, server: str, case: dict[str, Any]) -> Outcome:
    told = {"apiKey": "pd_test", "maxRetries": 0, "retryBaseMs": 1} | case.get("client", {})
    base = server + told.pop("basePath", "")
    if told["apiKey"] is None:
        told["apiKey"] = ""
    make = sdk.PixelDojoClient if kind == "sync" else sdk.AsyncPixelDojoClient
    client = make(base_url=base, poll_interval=0.001, max_poll_interval=0.001, **options(told))
    arguments = options(filled(case["call"], server))
    method = getattr(client, snake(arguments.pop("method")))
    if isinstance(arguments.get("asset"), dict):
        arguments["asset"] = importlib.import_module("pixeldojo_sdk._decode").record(sdk.Asset, arguments["asset"])
    progress: list[str] = []
    if method.__name__ in ("generate", "wait_for_job"):
        arguments["on_progress"] = lambda seen: progress.append(seen.status)
    began, result, error = time.monotonic(), None, None
    try:
        result = method(**arguments)
        if hasattr(result, "__aiter__"):
            result = [each async for each in result]
        elif hasattr(result, "__next__"):
            result = list(result)
        elif hasattr(result, "__await__"):
            result = await result
    except sdk.PixelDojoError as raised:
        error = raised
    seconds = time.monotonic() - began
    if kind == "sync":
        client.close()
    else:
        await client.close()
    return Outcome(result, error, seconds, progress)


def check_requests(seen: list[Seen], case: dict[str, Any], server: str) -> dict[str, str]:
    same: dict[str, str] = {}
    wanted = [filled(whole(each["request"], "requests"), server) for each in case["exchanges"]]
    assert [(each.method, each.path) for each in seen] == [(each["method"], each["path"]) for each in wanted]
    for came, want in zip(seen, wanted, strict=True):
        assert came.query == want.get("query", {})
        assert (json.loads(came.body) if came.body else None) == want.get("json")
        headers = {"authorization": "Bearer pd_test"} | want.get("headers", {})
        for name, value in headers.items():
            if isinstance(value, dict):
                assert came.headers[name] == same.setdefault(value["same"], came.headers[name]) != ""
            else:
                assert came.headers.get(name) == value, name
    return same


def check_error(error: Any, wanted: dict[str, Any], same: dict[str, str]) -> None:
    assert type(error).__name__ == wanted["type"], repr(error)
    for name, value in wanted.items():
        if name == "messageHas":
            assert value in str(error)
        elif name == "type":
            continue
        elif isinstance(value, dict) and "same" in value:
            assert getattr(error, snake(name)) == same[value["same"]]
        else:
            assert matches(wire(getattr(error, snake(name))), value), name


def run_case(kind: str, case: dict[str, Any]) -> None:
    def answer(_: Seen, number: int) -> Told:
        if number >= len(case["exchanges"]):
            return {"status": 418, "text": "nothing was to come here"}
        return filled(whole(case["exchanges"][number]["response"], "responses"), fake.url)  # type: ignore[no-any-return]

    with Fake(answer) as fake:
        outcome = asyncio.run(call(kind, fake.url, case))
    expect = case["expect"]
    same = check_requests(fake.seen, case, fake.url)
    if "error" in expect:
        check_error(outcome.error, expect["error"], same)
    else:
        assert outcome.error is None, repr(outcome.error)
        assert matches(wire(outcome.result), filled(expect["result"], fake.url)), outcome.result
    assert expect.get("minMs", 0) / 1000 <= outcome.seconds <= expect.get("maxMs", 20_000) / 1000
    if "progress" in expect:
        told = outcome.progress
        assert [each for at, each in enumerate(told) if told[at - 1 : at] != [each]] == expect["progress"]


@pytest.fixture(scope="module")
def running() -> Iterator[dict[tuple[str, str], "concurrent.futures.Future[None]"]]:
    """All cases at once: most of their time is waiting."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        slowest_first = sorted(CASES, key=lambda case: -case["expect"].get("minMs", 0))
        yield {(kind, case["name"]): pool.submit(run_case, kind, case) for case in slowest_first for kind in CLIENTS}


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("name", [case["name"] for case in CASES])
def test_fixture(name: str, kind: str, running: Any) -> None:
    running[kind, name].result(30)


def test_every_method_has_a_fixture() -> None:
    called = {snake(case["call"]["method"]) for case in CASES}
    methods = {name for name in vars(sdk.PixelDojoClient) if not name.startswith("_")} - {"close"}
    # the same operations under other names: a page after the other, and a file instead of bytes
    assert methods - called == {"iter_jobs", "save_asset"}


def both(work: Any, answer: Any, **settings: Any) -> None:
    """`work(client, fake)` with the blocking client and with the asyncio one."""
    for kind in CLIENTS:
        with Fake(answer) as fake:
            told = {"base_url": fake.url, "max_retries": 0, "retry_base": 0.001, "poll_interval": 0.001} | settings

            async def run(kind: str = kind, fake: Fake = fake, told: dict[str, Any] = told) -> None:
                if kind == "sync":
                    with sdk.PixelDojoClient("pd_test", **told) as client:
                        await work(Blocking(client), fake)
                else:
                    async with sdk.AsyncPixelDojoClient("pd_test", **told) as client:
                        await work(client, fake)

            asyncio.run(run())


class Blocking:
    """The blocking client's methods, to be awaited."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def __getattr__(self, name: str) -> Any:
        if name in ("iter_jobs", "events"):
            return lambda *args, **kwargs: _items(getattr(self.client, name)(*args, **kwargs))
        return lambda *args, **kwargs: _one(getattr(self.client, name), args, kwargs)


async def _one(method: Any, args: Any, kwargs: Any) -> Any:
    return method(*args, **kwargs)


async def _items(items: Any) -> Any:
    with contextlib.closing(items):
        for item in items:
            yield item


JOB: Told = SHARED["responses"]["pending job"]["json"]


def job(number: int) -> Told:
    return JOB | {"jobId": f"job_{number}"}


def test_iter_jobs_goes_through_the_pages() -> None:
    def answer(seen: Seen, _: int) -> Told:
        at = int(seen.query.get("cursor", 0))
        return {"json": {"jobs": [job(at), job(at + 1)], "nextCursor": str(at + 2) if at < 4 else None}}

    async def work(pd: Any, fake: Fake) -> None:
        found = [each.job_id async for each in pd.iter_jobs(limit=2, created_after="2025-01-01T00:00:00Z")]
        assert found == [f"job_{number}" for number in range(6)]
        assert [each.query.get("cursor") for each in fake.seen] == [None, "2", "4"]
        assert all(each.query["createdAfter"] == "2025-01-01T00:00:00Z" for each in fake.seen)

    both(work, answer)


def test_iter_jobs_does_not_go_in_circles() -> None:
    async def work(pd: Any, fake: Fake) -> None:
        with pytest.raises(sdk.InvalidResponseError, match="circles"):
            [each async for each in pd.iter_jobs()]
        assert len(fake.seen) == 2

    both(work, lambda _, number: {"json": {"jobs": [job(number)], "nextCursor": "again"}})


@pytest.mark.parametrize(
    "told",
    [
        {"headers": {"content-encoding": "gzip"}, "text": "not gzip"},
        {"text": "[" * 100_000},
        {"text": '{"jobId": NaN}'},
        {"text": "1" * 5000},
        {"json": JOB | {"createdAt": "yesterday"}},
        {"json": JOB | {"creditCost": "1"}},
        {"json": JOB | {"assets": {}}},
        {"json": JOB | {"status": "failed"}},
        {"json": JOB | {"status": "completed"}},
    ],
    ids=lambda told: str(told)[:40],
)
def test_more_garbage(told: Told) -> None:
    async def work(pd: Any, _: Fake) -> None:
        with pytest.raises(sdk.InvalidResponseError):
            await pd.get_job("job_1")

    both(work, lambda *_: told)


def test_an_answer_that_dribbles_ends() -> None:
    async def work(pd: Any, _: Fake) -> None:
        began = time.monotonic()
        with pytest.raises(TimeoutError) as caught:
            await pd.get_job("job_1", timeout=0.2)
        assert isinstance(caught.value, sdk.PixelDojoError) and time.monotonic() - began < 1

    both(work, lambda *_: {"text": [" "] * 400})


def test_save_asset_is_whole_or_not_there(tmp_path: Path) -> None:
    async def work(pd: Any, fake: Fake) -> None:
        path = tmp_path / f"{fake.server_port}/0.png"
        with pytest.raises(sdk.ConnectionError):
            await pd.save_asset(f"{fake.url}/broken", path)
        assert list(path.parent.iterdir()) == []
        assert await pd.save_asset(f"{fake.url}/flaky", str(path)) == 11
        assert path.read_text() == "hello world" and [each.name for each in path.parent.iterdir()] == ["0.png"]
        with pytest.raises(OSError, match=r"0\.png"):
            await pd.save_asset(f"{fake.url}/good", path / "below")
        with pytest.raises(ValueError, match="http"):
            await pd.download_asset("file:///etc/passwd")
        with pytest.raises(sdk.PixelDojoError):
            await pd.download_asset(f"{fake.url}/away")
        assert all("authorization" not in each.headers for each in fake.seen)

    def answer(seen: Seen, number: int) -> Told:
        told: Told = {"text": "hello world"}
        if seen.path == "/away":
            return {"status": 302, "headers": {"location": "file:///etc/passwd"}}
        return told | ({"close": "middle"} if seen.path == "/broken" or number == 3 else {})

    both(work, answer, max_retries=2)


def test_what_a_listener_raises_gets_through() -> None:
    async def work(pd: Any, fake: Fake) -> None:
        with pytest.raises(ZeroDivisionError):
            await pd.wait_for_job("job_1", on_progress=lambda _: 1 / 0)
        assert len(fake.seen) == 1

    both(work, lambda *_: {"json": JOB})


def test_listeners_may_be_coroutines_and_waits_may_be_cancelled() -> None:
    async def run(fake: Fake) -> None:
        told = asyncio.Event()

        async def listen(progress: Any) -> None:
            await asyncio.sleep(0)
            assert progress.job_id == "job_1"
            told.set()

        async with sdk.AsyncPixelDojoClient("pd_test", base_url=fake.url, poll_interval=60) as pd:
            task = asyncio.create_task(pd.wait_for_job("job_1", on_progress=listen))
            await asyncio.wait_for(told.wait(), 5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            hanging = asyncio.create_task(pd.events("job_1").__anext__())
            await asyncio.sleep(0.05)
            hanging.cancel()
            with pytest.raises(asyncio.CancelledError):
                await hanging
            assert (await pd.get_job("job_1")).status == "pending"

    with Fake(lambda seen, _: {"hang": "before"} if seen.path.endswith("/events") else {"json": JOB}) as fake:
        asyncio.run(run(fake))


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_one_client_on_several_loops_and_threads() -> None:
    with Fake(lambda *_: {"json": JOB}) as fake:
        client = sdk.AsyncPixelDojoClient("pd_test", base_url=fake.url)
        for _ in range(3):  # a loop each; nobody closed the connections of the one before
            assert asyncio.run(client.get_job("job_1")).status == "pending"
        assert repr(client) == f"<AsyncPixelDojoClient {fake.url}/api/v1>"
        del client
        gc.collect()
        shared = sdk.PixelDojoClient("pd_test", base_url=fake.url)
        with shared, concurrent.futures.ThreadPoolExecutor(8) as pool:
            assert {each.status for each in pool.map(shared.get_job, ["job_1"] * 40)} == {"pending"}
        with pytest.raises(RuntimeError, match="closed"):
            shared.get_job("job_1")


def test_connections_are_reused_and_an_own_http_client_stays_open() -> None:
    import httpx2

    with Fake(lambda *_: {"json": JOB}) as fake, httpx2.Client() as http:
        with sdk.PixelDojoClient("pd_test", base_url=fake.url, http_client=http) as pd:
            for _ in range(3):
                pd.get_job("job_1")
        assert not http.is_closed
        assert len(http._transport._pool.connections) == 1  # type: ignore[attr-defined]


def test_settings() -> None:
    environment = {"PIXELDOJO_API_KEY": " pd_env ", "PIXELDOJO_BASE_URL": "http://localhost:1/x/"}
    with mock.patch.dict("os.environ", environment), sdk.PixelDojoClient() as pd:
        assert pd.base_url == "http://localhost:1/x/api/v1" and pd._options.api_key == "pd_env"
        assert "pd_env" not in repr(pd)
        assert sdk.PixelDojoClient("", base_url="https://example.com/api/v1/")._options.api_key is None
    with mock.patch.dict("os.environ", {}, clear=True):
        assert sdk.PixelDojoClient().base_url == "https://pixeldojo.ai/api/v1"
    for url in ("example.com", "ftp://example.com", "http://", "http://a:b@example.com", "http://x:y/"):
        with pytest.raises(ValueError, match="base_url"):
            sdk.PixelDojoClient(base_url=url)
    with pytest.raises(ValueError, match="api_key"):
        sdk.PixelDojoClient("pd_a\nb")


async def first_event(pd: Any, last_id: str) -> Any:
    return [each async for each in pd.events("job_1", last_event_id=last_id)]


def test_arguments_that_cannot_be_sent() -> None:
    async def work(pd: Any, fake: Fake) -> None:
        no_zone = datetime.fromisoformat("2025-01-01")
        for attempt in (
            lambda: pd.get_job(""), lambda: pd.get_model(".."), lambda: pd.run("m", {"seed": float("nan")}),
            lambda: pd.run("m", {}, idempotency_key="a\nb"), lambda: pd.list_jobs(created_after=no_zone),
            lambda: pd.generate("m", {}, follow="sockets"), lambda: first_event(pd, "\n"),
        ):  # fmt: skip
            with pytest.raises(ValueError):
                await attempt()
        with pytest.raises(TypeError):
            await pd.run("m", "a prompt")
        assert fake.seen == []

    both(work, lambda *_: {"json": JOB})


def test_errors_are_also_the_built_in_ones_and_can_be_pickled() -> None:
    import pickle

    error = sdk.TimeoutError("late", status=504)
    error.job_id = "job_1"
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.code, again.status, again.job_id) == ("late", "timeout", 504, "job_1")
    assert isinstance(error, builtins.TimeoutError) and issubclass(sdk.ConnectionError, builtins.ConnectionError)
    assert not {"TimeoutError", "ConnectionError"} & set(sdk.__all__)


def test_the_webhook_secret_must_be_one() -> None:
    headers = {"webhook-id": "a", "webhook-timestamp": "1", "webhook-signature": "v1,a"}
    with pytest.raises(ValueError, match="whsec_"):
        sdk.verify_webhook(b"", headers, "whsec_???", now=1)


def test_after_a_fork_there_are_new_connections() -> None:
    drivers = importlib.import_module("pixeldojo_sdk._drivers")
    with Fake(lambda *_: {"json": JOB}) as fake, sdk.PixelDojoClient("pd_test", base_url=fake.url) as pd:
        pd.get_job("job_1")
        parents = pd._driver._pool.get()
        with mock.patch.object(drivers.os, "getpid", return_value=-1):  # as in a child
            pd.get_job("job_1")
            assert pd._driver._pool.get() is not parents
            pd._driver._pool.get().close()
        parents.close()
