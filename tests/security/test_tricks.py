"""Server-side request forgery: every trick of the table, for pictures and for webhooks. None reaches a socket.

Two witnesses, beside the error: a listener on every address of this machine that must count no connection, and
Python's own audit events, which tell of every socket that is connected to whatever address.
"""

import asyncio
import contextlib
import ipaddress
import itertools
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx2
import pytest

from pixeldojo import outbound
from pixeldojo.outbound import OutboundError
from pixeldojo.post import Poster
from postbox import Postbox
from security.tricks import GROUPS, NAMES, OTHER_PUBLIC, PUBLIC, REDIRECTS, TRICKS

NOBODY: tuple[outbound.Network, ...] = ()
ELSEWHERE = (ipaddress.ip_network("10.99.0.0/16"), ipaddress.ip_network("fd99::/16"))  # opens http, but not for these
HOME = (ipaddress.ip_network("127.0.0.1/32"),)

_REAL = socket.getaddrinfo
_connected: list[Any] = []
_watching = False


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching and event == "socket.connect" and arguments[0].family != socket.AF_UNIX:
        _connected.append(arguments[1])


sys.addaudithook(_audit)


class Witness:
    """A listener on all addresses of this machine, and what was connected to."""

    def __init__(self, port: int, listening: socket.socket) -> None:
        self.port, self._listening = port, listening
        self._came: list[Any] = []

    def seen(self) -> list[Any]:
        """Every address a socket was connected to, and every connection that came here."""
        with contextlib.suppress(BlockingIOError):
            while True:
                connection, address = self._listening.accept()
                connection.close()
                self._came.append(address)
        return [*_connected, *self._came]


@pytest.fixture(scope="module")
def listening() -> Iterator[socket.socket]:
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    with socket.create_server(("", 0), family=family, dualstack_ipv6=family == socket.AF_INET6) as server:
        server.setblocking(False)
        yield server


@pytest.fixture
def witness(listening: socket.socket) -> Iterator[Witness]:
    global _watching
    _connected.clear()
    _watching = True
    yield Witness(listening.getsockname()[1], listening)
    _watching = False


def _look_up(names: dict[str, list[list[str]]]) -> Callable[..., Any]:
    """`getaddrinfo` of a hostile name server; what spells an address is left to the system, as in life."""
    answers = {name: itertools.chain(given[:-1], itertools.repeat(given[-1])) for name, given in names.items()}

    def getaddrinfo(host: str, port: Any, *more: Any, **named: Any) -> Any:
        try:
            return _REAL(host, port, *more, **named | {"flags": socket.AI_NUMERICHOST})
        except socket.gaierror:
            found = next(answers[host]) if host in answers else ["127.0.0.1"]
        return [each for address in found for each in _REAL(address, port, *more, **named)]

    return getaddrinfo


@pytest.fixture(autouse=True)
def name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", _look_up(NAMES))


async def _picture(url: str, allow: tuple[outbound.Network, ...]) -> bytes:
    return await outbound.fetch(url, allow=allow, timeout_s=5, max_bytes=1000)


async def _webhook(url: str, allow: tuple[outbound.Network, ...]) -> Any:
    poster = Poster(allow)
    try:
        return await poster.post(url, headers={}, body=b"{}", timeout_s=5, most=100)
    finally:
        poster.close()


USES: dict[str, Callable[[str, tuple[outbound.Network, ...]], Awaitable[Any]]] = {
    "picture": _picture,
    "webhook": _webhook,
}


async def _refused(use: str, url: str, allow: tuple[outbound.Network, ...]) -> OutboundError:
    with pytest.raises(OutboundError) as caught:
        await USES[use](url, allow)
    return caught.value


def test_the_table_is_long_and_says_everything_once() -> None:
    assert len(TRICKS) == len({url for url, _ in TRICKS}) >= 150
    assert all(reason for _, reason in TRICKS + REDIRECTS)


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("group", GROUPS)
def test_no_trick_reaches_a_socket(witness: Witness, use: str, group: str) -> None:
    wrong: list[Any] = []

    async def try_them() -> None:
        for (trick, reason), allow in itertools.product(GROUPS[group], (NOBODY, ELSEWHERE)):
            try:
                wrong.append((trick, reason, await USES[use](trick.replace("{port}", str(witness.port)), allow)))
            except OutboundError as error:
                # nothing here gets better by trying again, and no answer tells where a name leads inside
                if (
                    not error.permanent
                    or not error.message.startswith(("the URL", "the host"))
                    or "10." in error.message
                ):
                    wrong.append((trick, reason, error.message))
            if seen := witness.seen():
                wrong.append((trick, reason, seen))

    asyncio.run(try_them())
    assert wrong == []


def test_the_guard_alone_lets_only_public_addresses_through(witness: Witness) -> None:
    """Without the look at the URL before: what counts is where a connection goes."""
    judged = 0

    async def try_them() -> None:
        nonlocal judged
        for (trick, reason), allow in itertools.product(TRICKS, (NOBODY, ELSEWHERE)):
            try:
                host = httpx2.URL(trick.replace("{port}", str(witness.port))).raw_host.decode("ascii")
            except (httpx2.InvalidURL, ValueError):
                continue
            judged += 1
            with contextlib.suppress(OutboundError):
                found = await outbound.Guard(allow, public=True).addresses(host, timeout=5)
                assert all(outbound.is_public(ipaddress.ip_address(each)) for each in found), (trick, reason, found)

    asyncio.run(try_them())
    assert judged > 400
    assert witness.seen() == []


def test_the_witnesses_see_what_is_let_through(witness: Witness) -> None:
    """Or else the tests above would prove nothing."""
    allowed = (ipaddress.ip_network("127.0.0.0/8"),)
    for use in USES:
        error = asyncio.run(_refused_later(use, f"http://127.0.0.1:{witness.port}/", allowed))
        assert not error.permanent
    assert [address[0].removeprefix("::ffff:") for address in witness.seen()] == ["127.0.0.1"] * 4


async def _refused_later(use: str, url: str, allow: tuple[outbound.Network, ...]) -> OutboundError:
    """The listener accepts and says nothing."""
    with pytest.raises(OutboundError) as caught:
        if use == "picture":
            await outbound.fetch(url, allow=allow, timeout_s=0.1, max_bytes=1000)
        else:
            await Poster(allow).post(url, headers={}, body=b"{}", timeout_s=0.1, most=100)
    return caught.value


def _addresses(name: str, allow: tuple[outbound.Network, ...] = NOBODY) -> list[str]:
    return asyncio.run(outbound.Guard(allow, public=True).addresses(name, timeout=5))


def test_rebinding_gains_nothing(monkeypatch: pytest.MonkeyPatch, witness: Witness) -> None:
    """The first answer is public and would pass; the one after it, which a second look-up would connect to, is not."""
    asked: list[str] = []
    first_then = _look_up({"rebind.test": [[PUBLIC], ["127.0.0.1"]]})

    def getaddrinfo(host: str, *more: Any, **named: Any) -> Any:
        asked.append(host)
        return first_then(host, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert _addresses("rebind.test") == [PUBLIC]
    for use in USES:
        asked.clear()
        asyncio.run(_refused(use, f"https://rebind.test:{witness.port}/", NOBODY))
        assert asked == ["rebind.test"], "the address that was checked is the one connected to"
    assert witness.seen() == []


@pytest.mark.parametrize("use", USES)
def test_what_is_connected_to_is_the_address_that_was_checked(
    monkeypatch: pytest.MonkeyPatch, witness: Witness, use: str
) -> None:
    """A name that is allowed at the first look-up, and leads elsewhere at any other."""
    monkeypatch.setattr(socket, "getaddrinfo", _look_up({"rebind.test": [["127.0.0.1"], ["127.0.0.9"]]}))

    async def twice() -> None:
        async with Postbox() as box:
            box.answers["/"] = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
            url = f"http://rebind.test:{box.port}/"
            await USES[use](url, HOME)
            assert (await _refused(use, url, HOME)).permanent
            assert box.connections == 1

    asyncio.run(twice())
    assert [address[0] for address in _connected] == ["127.0.0.1"]


@pytest.mark.parametrize(("target", "reason"), REDIRECTS)
def test_a_picture_s_redirect_is_checked_as_its_url_is(witness: Witness, target: str, reason: str) -> None:
    where = target.replace("{port}", str(witness.port))

    async def try_it() -> None:
        async with Postbox() as box:
            head = f"HTTP/1.1 302 Found\r\nLocation: {where}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            box.answers["/"] = head.encode()
            error = await _refused("picture", box.url("/"), HOME)
            assert error.permanent, reason
            assert where not in error.message, "it may be a signed address"
            assert box.connections == 1
            assert [address[1] for address in witness.seen()] == [box.port], reason

    if target.startswith("https://127.0.0.1"):  # this one is in the network that is allowed
        where = where.replace("127.0.0.1", "127.0.0.3")
    asyncio.run(try_it())


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_webhook_s_redirect_is_not_followed(witness: Witness, status: int) -> None:
    async def try_it() -> None:
        async with Postbox() as box:
            for where in (f"http://127.0.0.1:{witness.port}/", box.url("/next"), "/next"):
                head = f"HTTP/1.1 {status} Moved\r\nLocation: {where}\r\nContent-Length: 0\r\n\r\n"
                box.answers["/"] = head.encode()
                assert (await _webhook(box.url("/"), HOME)).status == status
            assert {each.path for each in box.received} == {"/"}
            assert {address[1] for address in witness.seen()} == {box.port}

    asyncio.run(try_it())


def test_redirects_that_change_where_a_name_leads(monkeypatch: pytest.MonkeyPatch, witness: Witness) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", _look_up({"rebind.test": [["127.0.0.1"], ["127.0.0.2"]]}))

    async def try_it() -> None:
        async with Postbox() as box:
            where = f"http://rebind.test:{witness.port}/"
            head = f"HTTP/1.1 302 Found\r\nLocation: {where}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            box.answers["/"] = head.encode()
            await _refused("picture", f"http://rebind.test:{box.port}/", HOME)
            assert [address[1] for address in witness.seen()] == [box.port]

    asyncio.run(try_it())


@pytest.mark.parametrize(
    ("found", "allow", "permitted"),
    [
        ([PUBLIC, "10.0.0.1"], HOME, None),
        (["10.0.0.1", PUBLIC], HOME, None),
        ([PUBLIC, "::1"], HOME, None),
        ([], HOME, None),
        ([PUBLIC, OTHER_PUBLIC], HOME, [PUBLIC, OTHER_PUBLIC]),
        ([PUBLIC, "127.0.0.1"], HOME, ["127.0.0.1"]),  # the operator's own network goes first, and alone
        (["::1", "127.0.0.1"], HOME, ["127.0.0.1"]),
        (["::ffff:127.0.0.1"], HOME, None),  # an IPv4 network does not open the IPv6 addresses that hide it
    ],
)
def test_a_name_with_several_addresses(
    monkeypatch: pytest.MonkeyPatch,
    found: list[str],
    allow: tuple[outbound.Network, ...],
    permitted: list[str] | None,
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", _look_up({"many.test": [found]}))
    if permitted is None:
        with pytest.raises(OutboundError):
            _addresses("many.test", allow)
    else:
        assert _addresses("many.test", allow) == permitted


def test_name_servers_that_hang_hold_up_no_other_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever names hosts whose name servers never answer must not stand in the way of everybody's webhooks."""
    released, hanging = threading.Event(), threading.Semaphore(0)
    quick = _look_up({"public.test": [[PUBLIC]]})

    def getaddrinfo(host: str, *more: Any, **named: Any) -> Any:
        if host.startswith("slow"):
            hanging.release()
            released.wait(30)
        return quick(host, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    async def try_it() -> None:
        slow = [asyncio.ensure_future(outbound.resolve(f"slow{number}.test")) for number in range(200)]
        try:
            for _ in slow:
                await asyncio.to_thread(hanging.acquire)
            async with asyncio.timeout(10):
                assert await outbound.resolve("public.test") == [PUBLIC]
            assert not any(each.done() for each in slow)
        finally:
            released.set()
            await asyncio.gather(*slow)

    asyncio.run(try_it())
