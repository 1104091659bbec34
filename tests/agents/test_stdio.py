"""`pixeldojo mcp` as the program that agents start, and its tools when the service is not as it should be."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from unittest import mock

import mcp_types as types
import pytest
from PIL import Image

from agents.conftest import Desk, at_home, data_of, environment, fault_of, over_stdio
from doors.conftest import Service
from pixeldojo.cli import main
from pixeldojo.cli.outcome import Exit

BARS = {"model": "testcard", "prompt": "bars"}


def test_an_agent_at_work(home: Desk, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "blue").save(tmp_path / "blue.jpg")
    heard: list[float] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append(progress)

    async def work() -> list[types.CallToolResult]:
        async with over_stdio(home.address, home.ana.key) as client:
            assert len((await client.list_tools()).tools) == 11
            made = await client.call_tool("generate", BARS, progress_callback=hear)
            upload = await client.call_tool("upload_image", {"path": str(tmp_path / "blue.jpg")})
            image = data_of(upload)["uploadId"]
            return [made, upload, await client.call_tool("edit_image", {**BARS, "image": image})]

    made, upload, edited = home.service.do(work())
    assert [each.type for each in made.content] == ["text", "image"]
    assert heard
    assert heard[0] == 0
    assert data_of(upload)["contentType"] == "image/jpeg"
    assert data_of(edited)["status"] == "completed"
    assert home.ana.balance() == 98_000


def ends(arguments: list[str], *, says: bytes = b"", **env: str) -> "subprocess.CompletedProcess[bytes]":
    """`pixeldojo mcp` with this on its standard input, which is then closed."""
    return subprocess.run(
        [sys.executable, "-m", "pixeldojo", "mcp", *arguments], input=says, env=environment(**env), capture_output=True,
        timeout=60, check=False,
    )  # fmt: skip


def test_it_ends_with_standard_input(home: Desk) -> None:
    about = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
    first = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": about}
    done = ends(
        ["--base-url", home.address], says=json.dumps(first).encode() + b"\nno json\n", PIXELDOJO_API_KEY="pd_x"
    )
    assert done.returncode == 0
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert said[0]["result"]["serverInfo"]["name"] == "pixeldojo"
    assert all(each["jsonrpc"] == "2.0" for each in said), "nothing but the protocol"
    assert home.address in done.stderr.decode()


def test_it_ends_by_a_signal(home: Desk) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "pixeldojo", "mcp", "--base-url", home.address], stdin=subprocess.PIPE,
        stderr=subprocess.PIPE, env=environment(PIXELDOJO_API_KEY="pd_x"), text=True,
    ) as agent:  # fmt: skip
        assert agent.stderr is not None
        assert home.address in agent.stderr.readline()
        agent.send_signal(signal.SIGINT)
        assert agent.wait(20) == -signal.SIGINT


def test_without_a_service_or_a_key(home: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with mock.patch.dict(os.environ, environment(PIXELDOJO_DATA_DIR=str(tmp_path)), clear=True):
        assert main.run(["mcp"]) == Exit.UNREACHABLE
        alone = capsys.readouterr()
        assert main.run(["mcp", "--base-url", home.address]) == Exit.REFUSED
        keyless = capsys.readouterr()
    assert "pixeldojo serve" in alone.err
    assert "PIXELDOJO_API_KEY" in keyless.err
    assert alone.out == keyless.out == "", "an agent takes what stands there for the protocol"


class _Odd(BaseHTTPRequestHandler):
    """Answers as the test wants: `how` maps a path's last part to (status, body, headers)."""

    how: dict[str, tuple[int, bytes, dict[str, str]]] = {}  # noqa: RUF012
    seen: list[str] = []  # noqa: RUF012

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        name = self.path.partition("?")[0].rpartition("/")[2]
        self.seen.append(name)
        status, body, headers = self.how.get(name, (404, b"<html>not here</html>", {}))
        self.send_response(status)
        for each in {"content-length": str(len(body)), **headers}.items():
            self.send_header(*each)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = _answer  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


Odd = Callable[..., str]


@pytest.fixture
def odd() -> Iterator[Odd]:
    """A server that is no PixelDojo; its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Odd)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    _Odd.how, _Odd.seen = {}, []

    def answers(**how: tuple[int, bytes, dict[str, str]]) -> str:
        _Odd.how = how
        return f"http://127.0.0.1:{server.server_port}"

    try:
        yield answers
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def asked(run: Callable[[Any], Any], address: str, *calls: tuple[str, Any]) -> list[types.CallToolResult]:
    async def ask() -> list[types.CallToolResult]:
        async with at_home(address, "pd_x") as client:
            return [await client.session.call_tool(tool, arguments) for tool, arguments in calls]

    said: list[types.CallToolResult] = run(ask())
    return said


JOB = b'{"jobId": "job_%s", "status": "pending"}' % (b"0" * 32)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[1]", b'{"error": 5}', b'{"error": {"code": 1, "message": 2}}', b"\xff", b"[" * 100_000]
)
@pytest.mark.parametrize("status", [200, 404, 502])
def test_garbage_is_told_as_such(run: Callable[[Any], Any], odd: Odd, body: bytes, status: int) -> None:
    garbage: tuple[int, bytes, dict[str, str]] = (status, body, {})
    address = odd(models=garbage, run=garbage, account=garbage, jobs=garbage, job_1=garbage)
    said = asked(
        run, address, ("list_models", {}), ("generate", BARS), ("list_jobs", {}), ("job_status", {"job_id": "job_1"})
    )
    for each in said:
        fault_of(each, "bad_answer")


def test_garbage_after_the_submit_names_the_job(run: Callable[[Any], Any], odd: Odd) -> None:
    job_id = "job_" + "0" * 32
    address = odd(run=(202, JOB, {}), events=(200, b"data: {\n\ndata: 5\n\n: x\n\n", {}), **{job_id: (200, b"{", {})})
    (said,) = asked(run, address, ("generate", {**BARS, "wait_seconds": 0.2}))
    error = fault_of(said, "bad_answer")
    assert error["jobId"] == job_id
    assert job_id in error["remedy"]
    assert _Odd.seen.count("run") == 1


def test_limited_and_refused(run: Callable[[Any], Any], odd: Odd) -> None:
    def refusal(code: str, message: str) -> bytes:
        return json.dumps({"error": {"code": code, "message": message, "status": 0}}).encode()

    address = odd(
        models=(429, refusal("rate_limit_exceeded", "Too many."), {"retry-after": "7"}),
        account=(401, refusal("unauthorized", "Invalid API key."), {}),
        run=(500, refusal("submission_failed", "Not stored."), {}),
    )
    limited, refused, failed = asked(run, address, ("list_models", {}), ("balance", {}), ("generate", BARS))
    assert fault_of(limited, "rate_limit_exceeded")["retryAfterSeconds"] == 7
    assert "API key" in fault_of(refused, "unauthorized")["remedy"]
    assert "again" in fault_of(failed, "submission_failed")["remedy"]


def test_a_limit_during_the_wait_is_waited_out(run: Callable[[Any], Any], odd: Odd) -> None:
    job_id = "job_" + "0" * 32
    limited = (429, b'{"error": {"code": "rate_limit_exceeded", "message": "x"}}', {"retry-after": "30"})
    address = odd(run=(202, JOB, {}), events=limited, **{job_id: limited})
    (said,) = asked(run, address, ("generate", {**BARS, "wait_seconds": 1}))
    error = fault_of(said, "rate_limit_exceeded")
    assert error["jobId"] == job_id
    assert error["retryAfterSeconds"] == 30


def test_a_service_that_is_gone(serve: Callable[..., Service]) -> None:
    service = serve(works=False)
    ana = service.person()

    async def work(address: str, leave: Callable[[], Any]) -> list[types.CallToolResult]:
        async with at_home(address, ana.key) as client:
            said = [await client.call_tool("generate", {**BARS, "wait_seconds": 0})]
            await leave()
            status = ("job_status", {"job_id": data_of(said[0])["jobId"], "wait_seconds": 1})
            return [*said, *[await client.call_tool(*call) for call in (status, ("generate", BARS), ("balance", {}))]]

    with service.wire() as wire:
        made, *others = service.do(_while_leaving(work, wire.port, service))
    assert data_of(made)["status"] == "pending"
    for each in others:
        assert "no answer from http://127.0.0.1" in fault_of(each, "unreachable")["message"]


async def _while_leaving(work: Callable[..., Any], port: int, service: Service) -> Any:
    """Runs `work` with a way to a service that can be cut off: a relay in between."""
    cut = asyncio.Event()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onwards, back = await asyncio.open_connection("127.0.0.1", port)

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                target.write(data)

        tasks = [asyncio.create_task(copy(reader, back)), asyncio.create_task(copy(onwards, writer))]
        await asyncio.wait([*tasks, asyncio.create_task(cut.wait())], return_when=asyncio.FIRST_COMPLETED)
        for each in (*tasks,):
            each.cancel()
        writer.close()
        back.close()

    relay = await asyncio.start_server(pass_on, "127.0.0.1", 0)

    async def leave() -> None:
        relay.close()
        cut.set()
        await asyncio.sleep(0)

    return await work(f"http://127.0.0.1:{relay.sockets[0].getsockname()[1]}", leave)


@pytest.mark.parametrize(
    ("path", "why"),
    [("", "regular file"), ("missing.png", "No such file"), ("notes.txt", "not a picture"), ("a\0b", "null"),
     ("/dev/zero", "regular file"), ("big.png", "larger than"), ("~nobody-of-that-name/a.png", "can't be read")],
)  # fmt: skip
def test_only_picture_files_are_read(run: Callable[[Any], Any], odd: Odd, tmp_path: Path, path: str, why: str) -> None:
    (tmp_path / "notes.txt").write_text("a secret")
    with (tmp_path / "big.png").open("wb") as file:
        file.truncate(11 * 2**20)
    (said,) = asked(run, odd(), ("upload_image", {"path": path if path[:1] in "~/" and path else str(tmp_path / path)}))
    error = fault_of(said, "validation_error")
    assert why in error["message"]
    assert "secret" not in json.dumps(error)


def test_uploads_take_either_a_path_or_data(run: Callable[[Any], Any], odd: Odd) -> None:
    for said in asked(run, odd(), ("upload_image", {}), ("upload_image", {"path": "a", "data": "b"})):
        assert "either path or data" in fault_of(said, "validation_error")["message"]
