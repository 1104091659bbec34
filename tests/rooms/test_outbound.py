"""The way out: what may be reached, and what a misbehaving server can do. Real servers on loopback."""

import asyncio
import contextlib
import gc
import gzip
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, TypeVar

import httpcore2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixeldojo import outbound

T = TypeVar("T")
Answer = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]
HOME = (ipaddress.ip_network("127.0.0.1/32"),)
PUBLIC = "93.184.216.34"

# Signed by itself for pictures.test, localhost and 127.0.0.1; good until 2126; used here and nowhere else.
CERTIFICATE = """
MIIByDCCAW6gAwIBAgIUYi/QSx0yqgkN7EFvkIK6JnOuO8EwCgYIKoZIzj0EAwIwGjEYMBYGA1UEAwwPUGl4ZWxEb2pvIHRlc3RzMCAX
DTI2MTEyMzAwMDY1MloYDzIxMjYxMDMwMDAwNjUyWjAaMRgwFgYDVQQDDA9QaXhlbERvam8gdGVzdHMwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAQXEpx4/X/YHxOeBwV38XOyPDXg5qOJljSD8wj7SHp0hS+9qponI9FzO62Ema2n4GfZBlhA5eqQVAC6zo1SSaWzo4GPMIGM
MB0GA1UdDgQWBBS4/qSk+6y74/XEZ/Yyaq/bDVpJ8zAfBgNVHSMEGDAWgBS4/qSk+6y74/XEZ/Yyaq/bDVpJ8zAPBgNVHRMBAf8EBTAD
AQH/MCkGA1UdEQQiMCCCDXBpY3R1cmVzLnRlc3SCCWxvY2FsaG9zdIcEfwAAATAOBgNVHQ8BAf8EBAMCAoQwCgYIKoZIzj0EAwIDSAAw
RQIgPWX06uakUGHPlazN6OLp7s/RSotGsut6MAluXmwbJ+YCIQD5zCF+hcnpFri7VtnLDQY+MTRgJjlC2r8ZfGJta+vOHA==
"""
KEY = """
MHcCAQEEIBPGzrV9VhP9Gl1zc9smLYmGo28LNZNhZmqpwzWgqqdtoAoGCCqGSM49AwEHoUQDQgAEFxKceP1/2B8TngcFd/Fzsjw14Oaj
iZY0g/MI+0h6dIUvvaqaJyPRczuthJmtp+Bn2QZYQOXqkFQAus6NUkmlsw==
"""


def reply(body: bytes = b"", *headers: str, status: str = "200 OK", length: bool = True) -> bytes:
    head = [f"HTTP/1.1 {status}", "Connection: close", *headers]
    if length:
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def redirect(target: str, status: str = "302 Found") -> bytes:
    return reply(b"", f"Location: {target}", status=status)


class Server:
    """Answers by path; remembers the requests it saw."""

    def __init__(self, answers: dict[str, Answer], greeting: bytes = b"") -> None:
        self.answers = answers
        self.greeting = greeting
        self.requests: list[bytes] = []
        self.port = 0
        self.tasks: set[asyncio.Task[None]] = set()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.write(self.greeting)
            request = await reader.readuntil(b"\r\n\r\n")
            self.requests.append(request)
            answer = self.answers.get(request.split()[1].decode(), reply(status="404 Not Found"))
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                await answer(writer)
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()

    def url(self, path: str = "/", *, host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"


@contextlib.asynccontextmanager
async def serving(
    answers: dict[str, Answer],
    *,
    host: str = "127.0.0.1",
    tls: ssl.SSLContext | None = None,
    greeting: bytes = b"",
) -> AsyncIterator[Server]:
    server = Server(answers, greeting)
    listener = await asyncio.start_server(server.handle, host, 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        for task in server.tasks:
            task.cancel()
        await asyncio.gather(*server.tasks, return_exceptions=True)
        listener.close()
        await listener.wait_closed()


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


async def fetch(url: str, **kwargs: Any) -> bytes:
    options: dict[str, Any] = {"allow": HOME, "timeout_s": 5.0, "max_bytes": 1000, **kwargs}
    return await outbound.fetch(url, **options)


async def refused(url: str, **kwargs: Any) -> outbound.OutboundError:
    with pytest.raises(outbound.OutboundError) as caught:
        await fetch(url, **kwargs)
    return caught.value


def resolving(monkeypatch: pytest.MonkeyPatch, names: dict[str, Iterable[list[str]]]) -> list[str]:
    """Replace the resolver: for each name, one answer a call. Returns the list of the names asked for."""
    asked: list[str] = []
    answers = {name: iter(given) for name, given in names.items()}

    async def resolve(host: str) -> list[str]:
        asked.append(host)
        if host not in answers:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return next(answers[host])

    monkeypatch.setattr(outbound, "resolve", resolve)
    return asked


class Recorder(httpcore2.AsyncNetworkBackend):
    """Notes where a connection would go, and makes none."""

    def __init__(self) -> None:
        self.connected: list[tuple[str, int]] = []

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        self.connected.append((host, port))
        return httpcore2.AsyncMockStream([])


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """The servers' side of TLS; the client is made to trust it."""
    pem = tmp_path / "pem"
    parts = {"EC PRIVATE KEY": KEY, "CERTIFICATE": CERTIFICATE}
    pem.write_text("".join(f"-----BEGIN {k}-----{v}-----END {k}-----\n" for k, v in parts.items()))
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(pem)
    monkeypatch.setattr(outbound, "tls_context", lambda: client)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    return server


def test_fetch_brings_the_bytes() -> None:
    async def main() -> None:
        async with serving({"/a.png?x=1": reply(b"picture")}) as server:
            assert await fetch(server.url("/a.png?x=1#part")) == b"picture"
            (request,) = server.requests
            assert b"accept-encoding: identity" in request.lower()
            assert b"cookie" not in request.lower()

    run(main())


def test_fetch_speaks_tls_and_checks_the_name(tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, {"pictures.test": [["127.0.0.1"]], "other.test": [["127.0.0.1"]]})

    async def main() -> None:
        async with serving({"/": reply(b"picture")}, tls=tls) as server:
            assert await fetch(server.url(host="pictures.test", scheme="https")) == b"picture"
            error = await refused(server.url(host="other.test", scheme="https"))
            assert error.permanent and "certificate" in error.message

    run(main())


def test_tls_to_a_port_without_tls() -> None:
    async def main() -> None:
        async with serving({}, greeting=b"220 mail.example ESMTP\r\n") as plain:
            error = await refused(plain.url(scheme="https"))
            assert not error.permanent and "TLS" in error.message and "ESMTP" not in error.message
        async with serving({}) as silent:  # cancelled in the handshake: nothing may stay open
            error = await refused(silent.url(scheme="https"), timeout_s=0.1)
            assert not error.permanent and silent.requests == []

    run(main())
    gc.collect()  # a socket left open warns here, and a warning is an error


NOT_PUBLIC = """
    0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.100.100.200 127.0.0.1 127.255.255.255 169.254.169.254 172.16.0.1
    172.31.255.255 192.168.1.1 192.0.0.192 192.0.2.1 192.88.99.1 198.18.0.1 198.19.255.255 198.51.100.1
    203.0.113.9 224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255 168.63.129.16
    :: ::1 ::ffff:127.0.0.1 ::ffff:8.8.8.8 ::127.0.0.1 ::8.8.8.8 64:ff9b::a9fe:a9fe 64:ff9b:1::1 100::1
    2001::1 2001:0:1::1 2001:2::1 2001:db8::1 2002:7f00:1:: 2002:808:808::1 3fff::1 5f00::1 fc00::1
    fd00:ec2::254 fe80::1 fec0::1 ff02::1
"""


@pytest.mark.parametrize("address", NOT_PUBLIC.split())
def test_addresses_that_are_not_public(address: str) -> None:
    assert not outbound.is_public(ipaddress.ip_address(address))
    host = f"[{address}]" if ":" in address else address
    assert outbound.check_url(f"https://{host}/", allow=())
    assert outbound.check_url(f"https://{host}/", allow=(ipaddress.ip_network(address),)) is None


@pytest.mark.parametrize("address", f"{PUBLIC} 8.8.8.8 1.1.1.1 172.32.0.1 2606:4700::1111 2a00:1450::1".split())
def test_addresses_that_are_public(address: str) -> None:
    assert outbound.is_public(ipaddress.ip_address(address))


GOOD = (
    "https://example.com",
    "https://example.com:8443/a/b.png?token=a@b#c",
    "HTTPS://EXAMPLE.COM/x",
    "https://example.com./",
    "https://bücher.example/ü.png",
    f"https://{PUBLIC}/",
    "https://[2606:4700::1111]/",
    "https://my_bucket.example.com/@me",
)
BAD = (
    ("", "https://"),
    ("example.com/a.png", "https://"),
    ("ftp://example.com/", "https://"),
    ("file:///etc/passwd", "https://"),
    ("data:image/png;base64,AAAA", "https://"),
    ("http://example.com/", "https://"),
    ("https://", "no host"),
    ("https:///path", "no host"),
    ("https:example.com", "no host"),
    ("https://.", "no host"),
    ("https://user@example.com/", "password"),
    ("https://user:secret@example.com/", "password"),
    ("https://@example.com/", "password"),
    ("https://example.com\\@127.0.0.1/", "password"),
    ("https://example.com:0/", "port"),
    ("https://example.com:65536/", "port"),
    ("https://example.com:-1/", "port"),
    ("https://example.com:x/", "not valid"),
    ("https://exa mple.com/", "whitespace"),
    (" https://example.com/", "whitespace"),
    ("https://example.com/\n", "whitespace"),
    ("https://example.com/\x00", "whitespace"),
    ("https://example.com/\u2028", "whitespace"),
    ("https://example.com/\ud800", "whitespace"),
    ("https://a..b/", "name"),
    (f"https://{'a' * 64}.com/", "name"),
    ("https://" + "a." * 130 + "com/", "name"),
    ("https://a%00b/", "name"),
    ("https://a,b/", "name"),
    ("https://[::1/", "not valid"),
    ("https://[fe80::1%25eth0]/", "not "),
    ("https://1.2.3.4.5/", "address"),
    ("https://a.256/", "address"),
    ("https://2130706433/", "public"),
    ("https://0x7f.1/", "public"),
    ("https://127.1/", "public"),
    ("https://0177.1/", "public"),
    ("https://0177.0.0.1/", "not valid"),
    ("https://0/", "public"),
    ("https://127.0.0.1./", "public"),
    ("https://[::ffff:127.0.0.1]/", "public"),
    ("https://localhost/", "this machine"),
    ("https://LOCALHOST.:8787/", "this machine"),
    ("https://a.localhost/", "this machine"),
    ("https://printer.local/", "public"),
    ("https://metadata.google.internal/", "public"),
    ("https://example.com/" + "a" * 2048, "longer"),
)


@pytest.mark.parametrize("url", GOOD)
def test_urls_that_may_work(url: str) -> None:
    assert outbound.check_url(url, allow=()) is None


@pytest.mark.parametrize(("url", "part"), BAD)
def test_urls_that_can_never_work(url: str, part: str) -> None:
    reason = outbound.check_url(url, allow=())
    assert reason is not None and part in reason


def test_allowed_networks_open_their_addresses_and_no_others() -> None:
    for url in ("http://127.0.0.1:9000/", "https://127.1/", "http://localhost/", "http://nas.local/"):
        assert outbound.check_url(url, allow=HOME) is None
    assert outbound.check_url("http://minio:9000/a", allow=HOME) is None  # where it leads is not known yet
    assert outbound.check_url("http://127.0.0.2/", allow=HOME)
    assert outbound.check_url(f"http://{PUBLIC}/", allow=HOME)
    assert outbound.check_url("http://localhost/", allow=(ipaddress.ip_network("10.0.0.0/8"),))
    assert outbound.check_url("http://[::1]/", allow=HOME)


HOSTS = st.one_of(
    st.text(max_size=30),
    st.ip_addresses().map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
    st.integers(0, 2**33).map(str),
    st.integers(0, 2**33).map(hex),
    st.from_regex(r"\A(0x[0-9a-f]{1,3}|0?[0-9]{1,3})(\.(0x[0-9a-f]{1,3}|0?[0-9]{1,3})){0,4}\.?\Z"),
)


@settings(max_examples=300, deadline=None)
@given(scheme=st.sampled_from(["https://", "http://", "https:", "//", ""]), host=HOSTS, rest=st.text(max_size=40))
def test_check_url_answers_whatever_it_is_given(scheme: str, host: str, rest: str) -> None:
    for allow in ((), HOME):
        reason = outbound.check_url(scheme + host + rest, allow=allow)
        assert reason is None or reason.startswith("the URL")
    if outbound.check_url(scheme + host, allow=()) is None:
        with contextlib.suppress(OSError):
            literal = ipaddress.IPv4Address(socket.inet_aton(host.removesuffix(".")))
            assert outbound.is_public(literal)


def test_plain_http_never_connects_to_a_public_address(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, {"public.test": [[PUBLIC]]})
    error = run(refused("http://public.test/"))
    assert error.permanent and "https://" in error.message


def test_a_dead_address_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, {"many.test": [["::1", "127.0.0.3", "127.0.0.1"]]})
    allow = (*HOME, ipaddress.ip_network("127.0.0.3"), ipaddress.ip_network("::1"))

    async def main() -> None:
        async with serving({"/": reply(b"picture")}) as server:
            assert await fetch(server.url(host="many.test"), allow=allow) == b"picture"

    run(main())


def test_ipv6_literals() -> None:
    async def main() -> None:
        try:
            async with serving({"/": reply(b"picture")}, host="::1") as server:
                url = server.url(host="[::1]")
                assert await fetch(url, allow=(ipaddress.ip_network("::1"),)) == b"picture"
                assert (await refused(url)).permanent
                assert len(server.requests) == 1
        except OSError:
            pytest.skip("this machine has no IPv6 loopback")

    run(main())


def test_redirects_are_followed_three_times() -> None:
    answers: dict[str, Answer] = {
        "/0": redirect("1", "301 Moved"),
        "/1": redirect("/2", "307 Temporary"),
        "/2": redirect("?3"),
        "/2?3": reply(b"picture"),
        "/loop": redirect("/loop"),
    }

    async def main() -> None:
        async with serving(answers) as server:
            assert await fetch(server.url("/0")) == b"picture"
            server.requests.clear()
            error = await refused(server.url("/loop"))
            assert error.permanent and "3 times" in error.message
            assert len(server.requests) == 4

    run(main())


@pytest.mark.parametrize(
    ("status", "permanent"),
    [
        ("400 Bad", True),
        ("404 Not Found", True),
        ("408 Timeout", False),
        ("410 Gone", True),
        ("429 Slow", False),
        ("500 Oops", False),
        ("503 Later", False),
        ("304 Same", True),
    ],
)
def test_a_bad_status_is_named_and_its_body_is_not(status: str, permanent: bool) -> None:
    async def main() -> None:
        async with serving({"/": reply(b"" if "304" in status else b"internal secret", status=status)}) as server:
            error = await refused(server.url())
            assert error.permanent is permanent
            assert status[:3] in error.message and "secret" not in error.message

    run(main())


def test_size_limit_with_and_without_a_length() -> None:
    sent = 0

    async def flood(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536

    async def chunked(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"400\r\n" + b"x" * 1024 + b"\r\n0\r\n\r\n")

    answers: dict[str, Answer] = {
        "/full": reply(b"x" * 1000),
        "/over": reply(b"x" * 1001),
        "/open": reply(b"x" * 1001, length=False),
        "/lies": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        "/flood": flood,
        "/chunked": chunked,
    }

    async def main() -> None:
        async with serving(answers) as server:
            assert len(await fetch(server.url("/full"))) == 1000
            for path in ("/over", "/open", "/lies", "/flood", "/chunked"):
                error = await refused(server.url(path))
                assert error.permanent and "1,000 bytes" in error.message, path

    run(main())
    assert sent < 64 * 2**20


def test_a_compressed_answer_is_refused() -> None:
    bomb = gzip.compress(b"\0" * 10_000_000)

    async def main() -> None:
        async with serving({"/": reply(bomb, "Content-Encoding: gzip")}) as server:
            error = await refused(server.url(), max_bytes=100_000)
            assert error.permanent and "compressed" in error.message

    run(main())


def test_a_dripping_server_is_stopped() -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:  # each read succeeds long before any limit on a read
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    async def silent(writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        async with serving({"/drip": drip, "/silent": silent}) as server:
            for path in ("/drip", "/silent"):
                async with asyncio.timeout(2):
                    error = await refused(server.url(path), timeout_s=0.2)
                assert not error.permanent and ("took" in error.message)

    run(main())


def test_a_name_server_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(host: str) -> list[str]:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(outbound, "resolve", resolve)
    error = run(refused("https://slow.test/", timeout_s=0.1))
    assert not error.permanent and "took" in error.message


def test_an_unknown_host_and_a_name_server_out_of_order(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, {})
    assert run(refused("https://unknown.test/")).permanent

    async def resolve(host: str) -> list[str]:
        raise socket.gaierror(socket.EAI_AGAIN, "try again")

    monkeypatch.setattr(outbound, "resolve", resolve)
    assert not run(refused("https://unknown.test/")).permanent


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200",
        b"\0",
    ],
)
def test_an_answer_that_is_cut_short_or_not_http(answer: bytes) -> None:
    async def main() -> None:
        async with serving({"/": answer}) as server:
            error = await refused(server.url())
            assert not error.permanent and "SSH" not in error.message

    run(main())


def test_nobody_listens() -> None:
    async def main() -> None:
        async with serving({}) as server:
            url = server.url()
        error = await refused(url)
        assert not error.permanent and "no connection" in error.message

    run(main())


def test_the_environment_s_proxies_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with serving({}) as proxy, serving({"/": reply(b"picture")}) as server:
            for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
                monkeypatch.setenv(name, proxy.url())
            assert await fetch(server.url()) == b"picture"
            async with outbound.api_client(server.url(), api_key="pd_key", timeout_s=5.0) as client:
                assert (await client.get("/")).content == b"picture"
            assert b"Bearer pd_key" in server.requests[-1]
            assert proxy.requests == []

    run(main())


def test_one_client_serves_hundreds_at_once_and_keeps_no_cookies() -> None:
    arrived = 0
    everyone = asyncio.Event()

    async def wait_for_all(writer: asyncio.StreamWriter) -> None:
        nonlocal arrived
        arrived += 1
        if arrived == 200:
            everyone.set()
        await everyone.wait()
        writer.write(reply(b"ok", "Set-Cookie: who=alice; Path=/"))

    async def main() -> None:
        async with (
            serving({"/": wait_for_all, "/next": reply()}) as server,
            outbound.guarded_client(HOME, timeout_s=5.0) as client,
        ):
            answers = await asyncio.gather(*(client.post(server.url(), content=b"{}") for _ in range(200)))
            assert [answer.status_code for answer in answers] == [200] * 200
            await client.get(server.url("/next"))
            assert b"cookie" not in server.requests[-1].lower()

    run(main())


def test_the_shared_client_follows_no_redirect_and_is_guarded() -> None:
    async def main() -> None:
        async with (
            serving({"/": redirect("/x"), "/x": reply()}) as server,
            outbound.guarded_client(HOME, timeout_s=5.0) as client,
        ):
            assert (await client.get(server.url())).status_code == 302
            with pytest.raises(outbound.OutboundError):
                await client.get(server.url(host="127.0.0.2"))
            with pytest.raises(outbound.OutboundError):
                await client.get("ftp://127.0.0.1/")
            assert len(server.requests) == 1

    run(main())
