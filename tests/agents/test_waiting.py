"""Waiting for jobs: progress, the bound, giving up, many at once, and a service that goes away meanwhile."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from mcp.shared.exceptions import MCPError

from agents.conftest import Desk, data_of, fault_of, over_http
from doors.conftest import Service
from pixeldojo import app

SLOW = {"model": "testcard", "prompt": "!slow"}
BARS = {"model": "testcard", "prompt": "bars"}


def growing(steps: list[float]) -> bool:
    """Whether there are several, each more than the one before, up to 1 at most."""
    return len(steps) > 1 and steps == sorted(set(steps)) and steps[-1] <= 1


def test_progress_is_heard(home: Desk) -> None:
    heard: list[tuple[float, float | None, str | None]] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, total, message))

    (said,) = home.ask_all(("generate", SLOW), progress=hear)
    assert heard[0] == (0.0, 1.0, f"{data_of(said)['jobId']} was submitted for 1 credits")
    assert growing([progress for progress, _, _ in heard])


def test_a_long_job_is_answered_with_its_id(web: Desk) -> None:
    said = data_of(web.ask("generate", {**SLOW, "wait_seconds": 0}))
    assert said["status"] in ("pending", "processing")
    assert "outputs" not in said
    assert said["jobId"] in said["next"]
    assert "job_status" in said["next"]
    seen = data_of(web.ask("job_status", {"job_id": said["jobId"], "wait_seconds": 30}))
    assert seen["status"] == "completed"
    assert seen["outputs"][0]["inline"] is True
    fault_of(web.ask("generate", {**SLOW, "wait_seconds": 31}), "validation_error")


def test_the_wait_ends_when_its_time_is_over(web: Desk) -> None:
    said = data_of(web.ask("generate", {"model": "testcard", "prompt": "!hang", "wait_seconds": 0.4}))
    assert said["status"] in ("pending", "processing")
    cancelled = data_of(web.ask("cancel_job", {"job_id": said["jobId"]}))
    assert cancelled["result"] in ("cancelled", "cancelling")
    ended = data_of(web.ask("job_status", {"job_id": said["jobId"], "wait_seconds": 20}))
    assert ended["status"] == "failed"
    assert ended["error"]["code"] == "cancelled"
    assert ended["creditsRefunded"] == 1


@pytest.mark.parametrize("desk", ["http", "http-legacy"], indirect=True)
def test_the_job_goes_on_when_the_client_gives_up(desk: Desk) -> None:
    steps: list[float] = []
    enough = asyncio.Event()

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        steps.append(progress)
        if len(steps) == 3:
            enough.set()

    async def give_up() -> None:
        async with desk.client() as client, anyio.create_task_group() as group:
            group.start_soon(lambda: client.call_tool("generate", SLOW, progress_callback=hear))
            await enough.wait()
            group.cancel_scope.cancel()

    desk.service.do(give_up())
    assert growing(steps)
    (job,) = desk.ana.jobs()["jobs"]
    assert desk.ana.wait(job["jobId"])["status"] == "completed"
    assert desk.ana.balance() == 99_000


def test_many_agents_at_once(web: Desk) -> None:
    people = [web.service.person() for _ in range(6)]

    async def work() -> list[str]:
        async def one(key: str) -> list[str]:
            async with web.client(key) as client:
                made = await asyncio.gather(*(client.call_tool("generate", {**BARS, "seed": n}) for n in range(2)))
                jobs = data_of(await client.call_tool("list_jobs", {}))["jobs"]
                assert {job["jobId"] for job in jobs} == {data_of(said)["jobId"] for said in made}
                return [job["jobId"] for job in jobs]

        return [job_id for found in await asyncio.gather(*(one(each.key) for each in people)) for job_id in found]

    assert len(set(web.service.do(work()))) == 12
    assert [each.balance() for each in people] == [98_000] * 6


def test_calls_of_two_accounts_over_one_connection(web: Desk) -> None:
    bob = web.service.person(credits=3)

    async def work() -> list[Any]:
        async with web.client() as ana, web.client(bob.key) as other:
            asked = [client.call_tool("balance", {}) for client in (ana, other) * 5]
            return [data_of(said)["credits"] for said in await asyncio.gather(*asked)]

    assert web.service.do(work()) == [100, 3] * 5


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_service_that_is_stopped_ends_the_wait(serve: Callable[..., Service], mode: str) -> None:
    service = serve()
    ana = service.person()

    async def work() -> Any:
        told, up = asyncio.Event(), asyncio.Event()

        async def hear(progress: float, total: float | None, message: str | None) -> None:
            told.set()

        with socket.create_server(("127.0.0.1", 0)) as listening:
            address = f"http://127.0.0.1:{listening.getsockname()[1]}"
            leave = service.house.leaving.tell
            stopped = app._Server(app.server_config(service.app), on_up=up.set, on_leave=leave)
            serving = asyncio.create_task(stopped.serve(sockets=[listening]))
            await up.wait()
            async with over_http(address, ana.key, mode=mode) as client:
                await client.list_tools()  # the client checks answers against the list, and could not ask for it later
                asking = asyncio.create_task(
                    client.call_tool("generate", {"model": "testcard", "prompt": "!hang"}, progress_callback=hear)
                )
                await told.wait()
                stopped.should_exit = True
                try:
                    return data_of(await asking)["jobId"]
                except MCPError as error:  # the older era's streams are cut when the server stops
                    return str(error)
                finally:
                    await serving

    said = service.do(work())
    (job,) = ana.jobs()["jobs"]
    assert said in (job["jobId"], "SSE stream ended without a response")
    assert said == job["jobId"] or mode == "legacy"
    assert job["status"] in ("pending", "processing")
