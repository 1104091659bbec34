"""Clients that never get on, against the real server: they are hung up on, and meanwhile others are answered.

The limits are made short here; what is waited for is what the server does, never the clock.
"""

import asyncio
import contextlib
import gc
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from doors.conftest import API, RUN, Person, Service, Wire
from pixeldojo import settings
from pixeldojo.api import connections
from pixeldojo.app import server_config

QUICK_S = 0.3
Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(scope="module")
def wire(site: Service) -> Iterator[Wire]:
    with site.wire(client_timeout_s=QUICK_S) as made:
        yield made


@pytest.fixture(scope="module")
def ana(site: Service) -> Person:
    return site.person()


def _play(wire: Wire, play: Callable[[], Awaitable[None]]) -> None:
    async def within() -> None:
        async with asyncio.timeout(20):
            await play()

    wire.service.do(within())


async def _open(wire: Wire, first: bytes = b"") -> Pair:
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    writer.write(first)
    await writer.drain()
    return reader, writer


async def _end(pair: Pair) -> bytes:
    """All that comes until the server hangs up."""
    with contextlib.suppress(ConnectionError):
        return await pair[0].read()
    return b""


async def _close(*pairs: Pair) -> None:
    for _, writer in pairs:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def _answered(wire: Wire) -> bool:
    pair = await _open(wire, b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    raw = await _end(pair)
    await _close(pair)
    return raw.startswith(b"HTTP/1.1 200 ")


HALVES = {
    "nothing": b"",
    "a line break": b"\r\n\r\n",
    "half a line": b"GET /health",
    "half a head": b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-more: ",
    "a head without its end": b"GET /healthz HTTP/1.1\r\nhost: x\r\n",
    "no byte of a body": f"POST {RUN} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n".encode(),
    "half a body": f"POST {RUN} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{{".encode(),
    "half a chunk": f"POST {RUN} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{{".encode(),
    "a request that waits for 100": (
        f"POST {RUN} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 10\r\n\r\n".encode()
    ),
    "half a second request": b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /healthz HTTP/1.1\r\n",
}


def test_half_a_request_has_an_end_and_holds_up_nobody(wire: Wire) -> None:
    """Slowloris: two hundred at once."""

    async def play() -> None:
        pairs = [await _open(wire, half) for half in HALVES.values() for _ in range(20)]
        assert await _answered(wire)
        for raw in await asyncio.gather(*map(_end, pairs)):
            assert b" 5" not in raw[:20]
        assert await _answered(wire)
        await _close(*pairs)

    _play(wire, play)


@pytest.mark.parametrize("drop", [b"x", b"\r\n", b"a: b\r\n", b" "], ids=repr)
@pytest.mark.parametrize("half", ["nothing", "half a head", "half a body", "half a chunk"])
def test_dripping_does_not_buy_time(wire: Wire, half: str, drop: bytes) -> None:
    """A byte now and then is no progress."""

    async def play() -> None:
        pair = await _open(wire, HALVES[half])
        ended = asyncio.ensure_future(_end(pair))
        while not ended.done():
            pair[1].write(drop)
            with contextlib.suppress(ConnectionError):
                await pair[1].drain()
            await asyncio.wait({ended}, timeout=0.02)
        await _close(pair)

    _play(wire, play)


def test_a_job_whose_request_was_never_whole_is_not_made(wire: Wire, ana: Person) -> None:
    before = ana.entries()

    async def play() -> None:
        body = b'{"prompt": "x"}'
        head = f"POST {RUN} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ana.key}\r\ncontent-length: 16\r\n\r\n"
        pair = await _open(wire, head.encode() + body)  # valid, and a byte short
        await _end(pair)
        await _close(pair)

    _play(wire, play)
    assert ana.entries() == before


def test_what_comes_after_an_early_answer_is_not_read_for_ever(wire: Wire) -> None:
    """A stranger is answered before the body; what of it still comes keeps the connection no longer."""

    async def play() -> None:
        pair = await _open(wire, f"POST {RUN} HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999\r\n\r\n".encode())
        assert (await pair[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 401 ")
        ended = asyncio.ensure_future(_end(pair))
        while not ended.done():
            pair[1].write(b"x" * 4096)
            with contextlib.suppress(ConnectionError):
                await pair[1].drain()
            await asyncio.wait({ended}, timeout=0.01)
        await _close(pair)

    _play(wire, play)


def test_a_head_has_a_size(wire: Wire) -> None:
    async def flood(first: bytes, more: bytes) -> tuple[int, bytes]:
        pair = await _open(wire, first)
        ended, sent = asyncio.ensure_future(_end(pair)), 0
        while not ended.done() and sent < 64 * 2**20:
            pair[1].write(more)
            sent += len(more)
            with contextlib.suppress(ConnectionError):
                await pair[1].drain()
            await asyncio.sleep(0)
        raw = await ended
        await _close(pair)
        return sent, raw

    async def play() -> None:
        line = b"GET /healthz HTTP/1.1\r\nhost: x\r\n"
        for first, more in ((line, b"x-a: b\r\n" * 1000), (line, b"x-a: " + b"y" * 8000 + b"\r\n"),
                            (line + b"x-a: ", b"y" * 8000), (b"GET /", b"y" * 8000), (line, b"y" * 8000)):  # fmt: skip
            sent, raw = await flood(first, more)
            assert sent < 16 * 2**20
            assert raw == b"" or raw.startswith(b"HTTP/1.1 400 ")

    _play(wire, play)


def test_a_client_that_does_not_take_its_answers(wire: Wire) -> None:
    """A thousand answers asked for and none read: the server keeps little of them, and soon nothing."""

    async def play() -> None:
        ask = f"GET {API}/openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".encode()
        pair = await _open(wire)
        server = await _connection(wire, pair)
        transport: Any = pair[1].transport
        transport.pause_reading()
        pair[1].write(ask * 1000)
        while server.transport is not None and not server.transport.is_closing():
            assert server.transport.get_write_buffer_size() < 4 * 2**20
            assert await _answered(wire)
        transport.abort()
        assert await _answered(wire)

    _play(wire, play)


async def _connection(wire: Wire, pair: Pair) -> Any:
    """The server's side of a connection."""
    name = tuple(pair[1].get_extra_info("sockname"))
    while True:
        assert await _answered(wire)  # by then it has seen the one before
        for each in gc.get_objects():
            if isinstance(each, connections.Connection) and each.client == name:
                return each


def test_a_body_that_keeps_the_pace_has_all_the_time_it_needs(
    wire: Wire, ana: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "BODY_PACE", 1)  # a byte a second: what has come is good for half a minute

    async def play() -> None:
        body = b'{"prompt": "x"' + b" " * 20 + b"}"
        head = f"POST {RUN} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ana.key}\r\nconnection: close\r\n"
        pair = await _open(wire, head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body[:-1])
        server = await _connection(wire, pair)
        timer = server._timer
        while server._body_bytes < len(body) - 1 or server._timer is timer:  # until it looked, and gave more time
            await asyncio.wait({asyncio.ensure_future(_answered(wire))})
        pair[1].write(body[-1:])
        assert (await _end(pair)).startswith(b"HTTP/1.1 202 ")
        await _close(pair)

    _play(wire, play)


def test_of_very_many_half_requests_the_longest_are_put_out(site: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST_WAITING", 20)
    monkeypatch.setattr(connections, "_YOUNG_S", 0.0)
    with site.wire(client_timeout_s=600) as patient:

        async def play() -> None:
            pairs = [await _open(patient, HALVES["half a head"]) for _ in range(60)]
            await asyncio.gather(*map(_end, pairs[:40]))  # no time-out would come
            assert await _answered(patient)
            assert not pairs[-1][0].at_eof()
            pairs[-1][1].write(b"\r\nconnection: close\r\n\r\n")
            assert (await _end(pairs[-1])).startswith(b"HTTP/1.1 200 ")
            await _close(*pairs)

        _play(patient, play)


def test_who_waits_for_an_answer_is_not_hurried(wire: Wire, ana: Person) -> None:
    """A request that takes longer than a client may stall, and a stream that is silent for as long."""
    raw = wire.ask(
        f"POST {RUN} HTTP/1.1\r\nauthorization: Bearer {ana.key}\r\ncontent-length: 26\r\nprefer: wait=10",
        body=b'{"prompt": "!steps 8 0.1"}',
    )
    assert (raw.status_code, raw.json()["status"]) == (200, "completed")


def test_the_service_is_run_with_these_limits(site: Service) -> None:
    usual = settings.Settings()
    assert usual.client_timeout_s == 30
    config = server_config(site.app, client_timeout_s=usual.client_timeout_s)
    assert isinstance(config.http, type)
    assert issubclass(config.http, connections.Connection)
    assert config.http.timeout_s == 30
    assert config.limit_concurrency is None
