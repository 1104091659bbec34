"""The quick client for webhooks, against receivers that behave in every way but the expected one."""

import asyncio
import contextlib
import ipaddress
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from test_outbound import CERTIFICATE, KEY

from pixeldojo import outbound
from pixeldojo.outbound import OutboundError
from pixeldojo.post import Answer, Poster
from postbox import Postbox, hang

HOME = (ipaddress.ip_network("127.0.0.0/8"),)
BODY = b'{"a":1}'


def use(test: Callable[[Poster, Postbox], Awaitable[None]], *, tls: ssl.SSLContext | None = None) -> None:
    async def work() -> None:
        poster = Poster(HOME)
        async with Postbox(tls=tls) as box:
            await test(poster, box)
            poster.close()

    asyncio.run(work())


async def ask(poster: Poster, url: str, *, timeout_s: float = 5, most: int = 2048, **headers: str) -> Answer:
    return await poster.post(url, headers={"x-test": "yes", **headers}, body=BODY, timeout_s=timeout_s, most=most)


async def fault(poster: Poster, url: str, **more: Any) -> str:
    with pytest.raises(OutboundError) as caught:
        await ask(poster, url, **more)
    return caught.value.message


def test_what_is_sent() -> None:
    async def test(poster: Poster, box: Postbox) -> None:
        assert (await ask(poster, box.url("/a/b?c=d%20e"))).status == 204
        (got,) = box.received
        assert (got.path, got.body) == ("/a/b?c=d%20e", BODY)
        assert got.headers["host"] == f"127.0.0.1:{box.port}"
        assert got.headers["x-test"] == "yes"
        assert got.headers["user-agent"].startswith("PixelDojo/")
        assert (await ask(poster, f"http://127.0.0.1:{box.port}")).status == 204
        assert box.received[1].path == "/"

    use(test)


def test_connections_are_kept_and_renewed() -> None:
    async def hang_up(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 204 No\r\n\r\n")
        await writer.drain()
        writer.close()

    async def test(poster: Poster, box: Postbox) -> None:
        for _ in range(5):
            await ask(poster, box.url("/"))
        assert box.connections == 1
        await asyncio.gather(*(ask(poster, box.url("/")) for _ in range(10)))
        assert box.connections == 10
        box.answers["/close"] = hang_up
        for _ in range(12):  # each finds a connection that its server has just closed, or is about to
            assert (await ask(poster, box.url("/close"))).status == 204
            assert (await ask(poster, box.url("/"))).status == 204
        box.answers["/once"] = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        kept = len(poster._idle)
        for _ in range(3):
            await ask(poster, box.url("/once"))
        assert len(poster._idle) == kept - 3

    use(test)


def test_idle_connections_are_few() -> None:
    async def test(poster: Poster, box: Postbox) -> None:
        await asyncio.gather(*(ask(poster, box.url("/")) for _ in range(200)))
        assert len(poster._idle) == 128 == sum(map(len, poster._by_target.values()))

    use(test)


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", 200, b"abcde"),
        (b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 202 Yes\r\nContent-Length: 2\r\n\r\nok", 202, b"ok"),
        (b"HTTP/1.1 500 No\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5000, 500, b"x" * 2048),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nslow", 200, b"slow"),
    ],
)
def test_answers(answer: bytes, status: int, body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixeldojo.post._BODY_S", 0.1)

    async def test(poster: Poster, box: Postbox) -> None:
        box.answers["/"] = answer
        for _ in range(2):
            got = await ask(poster, box.url("/"))
            assert (got.status, got.body) == (status, body)

    use(test)


def test_a_body_that_ends_with_the_connection() -> None:
    async def old(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nbye")
        await writer.drain()
        writer.close()

    async def test(poster: Poster, box: Postbox) -> None:
        box.answers["/"] = old
        assert await ask(poster, box.url("/")) == Answer(200, None, b"bye")

    use(test)


def test_faults() -> None:
    async def cut(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 20")
        await writer.drain()
        writer.close()

    async def endless(writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            writer.write(b"HTTP/1.1 200 OK\r\n")
            for _ in range(100):
                writer.write(b"X-Long: " + b"x" * 8000 + b"\r\n")
                await writer.drain()

    async def test(poster: Poster, box: Postbox) -> None:
        box.answers |= {"/hang": hang, "/cut": cut, "/endless": endless, "/junk": b"\0\0\0\0hello\r\n\r\n"}
        assert await fault(poster, box.url("/hang"), timeout_s=0.2) == "no answer within 0.2 s"
        assert await fault(poster, box.url("/cut")) == "the connection broke off before an answer"
        assert await fault(poster, box.url("/endless")) == "the head of the host's answer is too long"
        assert await fault(poster, box.url("/junk")) == "the host's answer is not HTTP"
        assert "not public" in await fault(Poster(()), box.url("/").replace("http:", "https:"))
        assert "https://" in await fault(poster, "ftp://127.0.0.1/")
        assert poster._by_target == {}

    use(test)
    assert asyncio.run(fault(Poster(HOME), "http://127.0.0.1:1/")) == "no connection could be made to the host"


def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pem = "".join(
        f"-----BEGIN {name}-----\n{text.strip()}\n-----END {name}-----\n"
        for name, text in (("CERTIFICATE", CERTIFICATE), ("EC PRIVATE KEY", KEY))
    )
    file = tmp_path / "server.pem"
    file.write_text(pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)

    async def unknown(poster: Poster, box: Postbox) -> None:
        assert await fault(poster, box.url("/")) == "the host's TLS certificate is not valid"

    async def known(poster: Poster, box: Postbox) -> None:
        assert (await ask(poster, box.url("/"))).status == 204
        assert (await ask(poster, box.url("/"))).status == 204
        assert box.connections == 1

    use(unknown, tls=server)
    trusting = ssl.create_default_context(cafile=str(file))
    monkeypatch.setattr(outbound, "tls_context", lambda: trusting)
    use(known, tls=server)
