"""Agents that meet a real service through the protocol's official client.

    def test_something(desk):              # runs over HTTP in both of the protocol's eras, and with the tools at home
        said = desk.ask("generate", {"model": "testcard", "prompt": "bars"})

The tools at home are those of `pixeldojo mcp`, asking the service over HTTP, but without a process of their own, which
takes a second to start; test_stdio.py starts some.
"""

import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import mcp_types as types
import pytest
from mcp import StdioServerParameters
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.dispatcher import ProgressFnT

import pixeldojo
from doors.conftest import Person, Service, _settings, serving
from doors.conftest import later as later
from doors.conftest import serve as serve
from pixeldojo import outbound
from pixeldojo.mcp import server
from pixeldojo.mcp.backend import Backend, MemoryShelf
from pixeldojo.mcp.wire import OverHttp

TRANSPORTS = ("http", "http-legacy", "home")


def environment(**more: str) -> dict[str, str]:
    """A clean environment in which `pixeldojo` is the one under test."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PIXELDOJO_")}
    return clean | {"PYTHONPATH": str(Path(pixeldojo.__file__).parents[1])} | more


@contextlib.asynccontextmanager
async def over_http(address: str, key: str | None, *, mode: str = "auto", **headers: str) -> AsyncIterator[Client]:
    """The official client at `/mcp` of an address."""
    given = headers | ({"authorization": f"Bearer {key}"} if key else {})
    async with (
        httpx2.AsyncClient(headers=given, timeout=60) as http,
        Client(streamable_http_client(f"{address}/mcp", http_client=http), mode=mode) as client,
    ):
        yield client


@contextlib.asynccontextmanager
async def over_stdio(address: str, key: str, *, mode: str = "auto") -> AsyncIterator[Client]:
    """The official client of a `pixeldojo mcp` of its own."""
    started = StdioServerParameters(
        command=sys.executable, args=["-m", "pixeldojo", "mcp", "--base-url", address],
        env=environment(PIXELDOJO_API_KEY=key),
    )  # fmt: skip
    async with Client(started, mode=mode) as client:
        yield client


@contextlib.asynccontextmanager
async def at_home(address: str, key: str | None) -> AsyncIterator[Client]:
    """The official client of the tools that ask this address."""
    async with outbound.api_client(f"{address}/api/v1", api_key=key, timeout_s=10) as asking:
        backend = Backend(OverHttp(asking), MemoryShelf())
        async with Client(server.build(backend, local=True), mode="legacy") as client:
            yield client


def data_of(said: types.CallToolResult) -> Any:
    """What a tool that worked has told, which its text repeats."""
    text = said.content[0]
    assert isinstance(text, types.TextContent)
    assert not said.is_error, text.text
    assert json.loads(text.text) == said.structured_content
    return said.structured_content


def fault_of(said: types.CallToolResult, code: str) -> Any:
    """The error in a tool's answer, which an agent can act upon."""
    assert said.is_error
    assert len(said.content) == 1
    text = said.content[0]
    assert isinstance(text, types.TextContent)
    error = json.loads(text.text)["error"]
    assert error["code"] == code, error
    assert error["message"].strip()
    assert error["remedy"].strip()
    return error


class Desk:
    """A service on a port, and one way to its tools. `ana` has 100 credits."""

    def __init__(self, service: Service, port: int, transport: str) -> None:
        self.service, self.transport = service, transport
        self.address = f"http://127.0.0.1:{port}"
        self.ana = service.person()

    def client(self, key: str | None = None) -> contextlib.AbstractAsyncContextManager[Client]:
        """A client with this key, ana's without."""
        key = key or self.ana.key
        if self.transport == "home":
            return at_home(self.address, key)
        return over_http(self.address, key, mode="legacy" if self.transport == "http-legacy" else "auto")

    def ask(self, tool: str, arguments: Any = None, *, of: Person | None = None) -> types.CallToolResult:
        """A tool's answer, through a client of its own."""

        async def ask() -> types.CallToolResult:
            async with self.client(of.key if of else None) as client:
                return await client.call_tool(tool, arguments or {})

        return self.service.do(ask())

    def ask_all(
        self, *calls: tuple[str, Any], of: Person | None = None, progress: ProgressFnT | None = None
    ) -> list[types.CallToolResult]:
        """The answers to several calls of one client, one after the other."""

        async def ask() -> list[types.CallToolResult]:
            async with self.client(of.key if of else None) as client:
                return [
                    await client.call_tool(tool, arguments, progress_callback=progress) for tool, arguments in calls
                ]

        return self.service.do(ask())


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, int]]:
    """A working service on SQLite and its port."""
    with serving(_settings(tmp_path_factory.mktemp("agents"))) as service, service.wire() as wire:
        yield service, wire.port


@pytest.fixture(params=TRANSPORTS)
def desk(request: pytest.FixtureRequest, house: tuple[Service, int]) -> Desk:
    """Each transport in turn, with an account of its own."""
    return Desk(*house, request.param)


@pytest.fixture
def web(house: tuple[Service, int]) -> Desk:
    """Over HTTP alone."""
    return Desk(*house, "http")


@pytest.fixture
def home(house: tuple[Service, int]) -> Desk:
    """The tools at home alone."""
    return Desk(*house, "home")
