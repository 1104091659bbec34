"""What leaves this machine: the only module with HTTP clients and sockets.

A caller's URL comes in (an input picture, a webhook), bytes or an `OutboundError` go out. The address guard
stands where a connection is made: it resolves the host itself, checks the addresses and connects to a checked
one, so neither odd spellings of an address nor a name that changes its answer (DNS rebinding) gets past it.
"""

import asyncio
import contextlib
import functools
import ipaddress
import itertools
import re
import socket
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Any, NamedTuple

import httpcore2
import httpx2

from pixeldojo import __version__

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_URL = 2048
MAX_REDIRECTS = 3
MAX_CONNECTIONS = 512
_MAX_ADDRESSES = 4
_SETTING = "PIXELDOJO_ALLOW_NETWORKS"

# Slow name servers are the caller's to choose: they may fill these threads, never the loop's own. As many as there are
# connections at once, so that nobody's look-up stands in line behind those of others that hang.
_RESOLVERS = ThreadPoolExecutor(MAX_CONNECTIONS, thread_name_prefix="resolve")

# IPv6 hands out public addresses from one block only. All that is mapped, translated (NAT64) or private lies
# outside of it; what lies inside and is not public is listed below.
_PUBLIC_V6 = ipaddress.ip_network("2000::/3")
_NOT_PUBLIC: tuple[Network, ...] = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.168.0.0/16", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15"),
        *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        "168.63.129.16/32",  # looks public, and is the metadata host of a large cloud
        *("2001::/23", "2002::/16"),  # Teredo and its kin, 6to4
        *("2001:db8::/32", "3fff::/20"),  # documentation
    )
)
_UNKNOWN_NAME = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
_LOOPBACK: tuple[Network, ...] = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_AUTHORITY_AT = re.compile(r"[^/?#]*//[^/?#]*@")  # an empty user name counts too
_PORT = re.compile(r"[^/?#]*//[^/?#]*:([^/?#:\]]+)(?:[/?#]|\Z)")
_NUMERIC_END = re.compile(r"(?:.*\.)?(?:0x[0-9a-f]*|[0-9]+)")  # by this browsers tell an address from a name


class OutboundError(Exception):
    """A request out did not work. `permanent`: trying again can't help. The message may be shown to callers:
    it holds nothing of what an address answered but its status code."""

    def __init__(self, message: str, *, permanent: bool) -> None:
        self.message = message
        self.permanent = permanent
        super().__init__(message)


def is_public(address: Address) -> bool:
    """Is it a unicast address routed on the internet, and no transition address that hides another?"""
    if isinstance(address, ipaddress.IPv6Address) and address not in _PUBLIC_V6:
        return False
    return not any(address in network for network in _NOT_PUBLIC)


def check_url(url: str, *, allow: Sequence[Network]) -> str | None:
    """Why `url` can never be fetched, or None. Asks no network: where a name leads shows on connecting."""
    if len(url) > MAX_URL:
        return f"the URL is longer than {MAX_URL:,} characters"
    return _fault(url, allow)


def _fault(url: str, allow: Sequence[Network]) -> str | None:
    if not url.isprintable() or any(char.isspace() for char in url):
        return "the URL contains whitespace or control characters"
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError):  # ValueError: what the IDNA library lets through
        return "the URL is not valid"
    if parsed.scheme != "https" and not (parsed.scheme == "http" and allow):
        return "the URL must start with https://"
    if parsed.userinfo or _AUTHORITY_AT.match(url):
        return "the URL must not contain a user name or password"
    written = _PORT.match(url)  # as it was written: the library reads digits of every script
    odd = written is not None and not re.fullmatch("[0-9]{1,5}", written[1])
    if odd or (parsed.port is not None and not 0 < parsed.port < 65536):
        return "the URL's port is not valid"
    return _host_fault(parsed.raw_host.decode("ascii"), parsed.scheme, allow)


def _host_fault(written: str, scheme: str, allow: Sequence[Network]) -> str | None:
    host = written.removesuffix(".")
    if not host:
        return "the URL has no host"
    try:
        literal = _literal(host)
    except ValueError:
        return "the URL's host is not a valid address"
    if literal is not None:
        try:
            _permitted([literal], allow=allow, public=scheme == "https")
        except OutboundError as error:
            return error.message
        return None
    if not _NAME.fullmatch(host):
        return "the URL's host is not a valid name"
    if host == "localhost" or host.endswith(".localhost"):
        if not any(a.version == b.version and a.overlaps(b) for a in allow for b in _LOOPBACK):
            return f"the URL's host is this machine: to allow it, list 127.0.0.0/8 in {_SETTING}"
    elif host.endswith((".local", ".internal")) and not allow:
        return f"the URL's host is not public: to allow it, list its network in {_SETTING}"
    return None


def _literal(host: str) -> Address | None:
    """The address that `host` spells as resolvers read it (127.1, 0x7f.1, 2130706433); None for a name."""
    if ":" in host:
        if "%" in host:
            raise ValueError("an address with a zone")
        return ipaddress.IPv6Address(host)
    if not _NUMERIC_END.fullmatch(host):
        return None
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        raise ValueError("not an address") from None


def _permitted(addresses: Sequence[Address], *, allow: Sequence[Network], public: bool) -> list[Address]:
    """Those to connect to: the ones inside `allow`; with none there, all of them if all are public.

    A host with public and private addresses is refused as a whole, because nobody has that by accident.
    """
    inside = [address for address in addresses if any(address in network for network in allow)]
    if inside:
        return inside
    if not addresses or not all(map(is_public, addresses)):
        raise OutboundError(
            f"the URL's host is not public: to allow it, list its network in {_SETTING}", permanent=True
        )
    if not public:
        raise OutboundError("the URL must start with https:// because its host is public", permanent=True)
    return list(addresses)


async def resolve(host: str) -> list[str]:
    """The addresses of `host`, in the system's order of preference. Raises OSError or UnicodeError."""
    find = functools.partial(socket.getaddrinfo, host, None, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_RESOLVERS, find)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


class Target(NamedTuple):
    """Where a request to a URL goes: what to connect to, and what its first lines say."""

    scheme: str
    host: str
    port: int
    authority: str
    path: str


@functools.lru_cache(1024)
def target(url: str, allow: tuple[Network, ...]) -> Target:
    """`url` taken apart. Raises `OutboundError` for what `check_url` refuses: settings may have changed since."""
    fault = check_url(url, allow=allow)
    if fault:
        raise OutboundError(fault, permanent=True)
    parsed = httpx2.URL(url)
    port = parsed.port or (443 if parsed.scheme == "https" else 80)
    host, authority, path = (each.decode("ascii") for each in (parsed.raw_host, parsed.netloc, parsed.raw_path))
    return Target(parsed.scheme, host.removesuffix("."), port, authority, path)


@functools.cache
def tls_context() -> ssl.SSLContext:
    """The system's trust store (or the operator's `SSL_CERT_FILE`), loaded once: that takes milliseconds."""
    return httpx2.create_ssl_context()


class _Stream(httpcore2.AsyncNetworkStream):
    """A connection that is closed when its TLS handshake is cancelled; the library closes it on errors only."""

    def __init__(self, inner: httpcore2.AsyncNetworkStream) -> None:
        self._inner = inner

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._inner.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._inner.aclose()

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.AsyncNetworkStream:
        try:
            return await self._inner.start_tls(ssl_context, server_hostname, timeout)
        except asyncio.CancelledError:
            await self._inner.aclose()
            raise


class Guard(httpcore2.AsyncNetworkBackend):
    """Connects to permitted addresses alone; without `public` (plain http) only to those inside `allow`."""

    def __init__(
        self, allow: Sequence[Network], *, public: bool, inner: httpcore2.AsyncNetworkBackend | None = None
    ) -> None:
        self._allow = tuple(allow)
        self._public = public
        self._inner = inner or httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        loop = asyncio.get_running_loop()
        started = loop.time()
        addresses = await self.addresses(host, timeout=timeout)
        failure: Exception | None = None
        for tried, address in enumerate(addresses):
            # each address gets a fair share of the time, so that a dead IPv6 route leaves some for IPv4
            spent = loop.time() - started
            share = None if timeout is None else max(timeout - spent, 0.01) / (len(addresses) - tried)
            try:
                made = await self._inner.connect_tcp(address, port, share, local_address, socket_options)
                return _Stream(made)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        assert failure is not None
        raise failure

    async def addresses(self, host: str, *, timeout: float | None) -> list[str]:
        """Where connections to `host` may go, best first. Raises `OutboundError`, and `ConnectTimeout`."""
        try:
            async with asyncio.timeout(timeout):
                found = await resolve(host)
        except TimeoutError:
            raise httpcore2.ConnectTimeout from None
        except (OSError, UnicodeError, ValueError) as error:
            # what a name server says of the name lasts; trouble in asking it passes
            unknown = not isinstance(error, OSError) or error.errno in _UNKNOWN_NAME
            raise OutboundError("the URL's host can't be found", permanent=unknown) from None
        addresses = [ipaddress.ip_address(text) for text in found]
        permitted = _permitted(addresses, allow=self._allow, public=self._public)
        return [str(address) for address in _alternating(permitted)]

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        raise OutboundError("the URL must start with https://", permanent=True)

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


def _alternating(addresses: Sequence[Address]) -> list[Address]:
    """A few of `addresses`, the families by turns, starting with the one that comes first."""
    first = [address for address in addresses if address.version == addresses[0].version]
    second = [address for address in addresses if address.version != addresses[0].version]
    turns = itertools.chain.from_iterable(itertools.zip_longest(first, second))
    return [address for address in turns if address is not None][:_MAX_ADDRESSES]


@contextlib.contextmanager
def _as_outbound_error() -> Iterator[None]:
    """Every way in which a request fails becomes an `OutboundError`, with words of our own."""
    try:
        yield
    except httpcore2.TimeoutException:
        raise OutboundError("the host took too long to answer", permanent=False) from None
    except httpcore2.ConnectError as error:
        cause = error.args[0] if error.args else None
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise OutboundError("the host's TLS certificate is not valid", permanent=True) from None
        if isinstance(cause, ssl.SSLError):
            raise OutboundError("no TLS connection could be made to the host", permanent=False) from None
        raise OutboundError("no connection could be made to the host", permanent=False) from None
    except httpcore2.NetworkError:
        raise OutboundError("the connection to the host broke off", permanent=False) from None
    except (httpcore2.RemoteProtocolError, httpcore2.ConnectionNotAvailable):
        raise OutboundError("the host's answer was cut short or is not HTTP", permanent=False) from None
    except (httpcore2.ProtocolError, httpcore2.UnsupportedProtocol):
        raise OutboundError("the request can't be sent to the host", permanent=True) from None


class _Body(httpx2.AsyncByteStream):
    """The body of an answer as it arrives, before any decoding."""

    def __init__(self, stream: AsyncIterable[bytes]) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _as_outbound_error():
            async for part in self._stream:
                yield part

    async def aclose(self) -> None:
        if hasattr(self._stream, "aclose"):
            await self._stream.aclose()


class _GuardedTransport(httpx2.AsyncBaseTransport):
    """One pool a scheme, so that the guard knows whether a connection will carry plain http."""

    def __init__(self, allow: Sequence[Network]) -> None:
        self._pools = {
            scheme: httpcore2.AsyncConnectionPool(
                ssl_context=tls_context(),
                max_connections=MAX_CONNECTIONS,
                max_keepalive_connections=MAX_CONNECTIONS // 8,
                keepalive_expiry=15.0,
                network_backend=Guard(allow, public=scheme == "https"),
            )
            for scheme in ("https", "http")
        }

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.scheme not in self._pools:
            raise OutboundError("the URL must start with https://", permanent=True)
        assert isinstance(request.stream, httpx2.AsyncByteStream)
        url = httpcore2.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        sent = httpcore2.Request(
            request.method,
            url,
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        with _as_outbound_error():
            answer = await self._pools[request.url.scheme].handle_async_request(sent)
        assert isinstance(answer.stream, AsyncIterable)
        return httpx2.Response(
            answer.status, headers=answer.headers, stream=_Body(answer.stream), extensions=answer.extensions
        )

    async def aclose(self) -> None:
        for pool in self._pools.values():
            await pool.aclose()


def guarded_client(allow: Sequence[Network], *, timeout_s: float) -> httpx2.AsyncClient:
    """A client for callers' URLs: guarded, no redirects, no proxies, no cookies. Close it.

    `timeout_s` limits each step (connecting, one read); put `asyncio.timeout` around the whole. Failures are
    `OutboundError`. Read answers with `aiter_raw`, for a decoder can make gigabytes of kilobytes.
    """
    return httpx2.AsyncClient(
        transport=_GuardedTransport(allow),
        timeout=timeout_s,
        follow_redirects=False,
        trust_env=False,
        headers={"User-Agent": f"PixelDojo/{__version__}", "Accept": "*/*", "Accept-Encoding": "identity"},
        # one client serves every account: a cookie set for one must never be sent for another
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
    )


async def fetch(url: str, *, allow: Sequence[Network], timeout_s: float, max_bytes: int) -> bytes:
    """The bytes behind `url`, at most `max_bytes`, within `timeout_s` seconds all in all, redirects included.

    Every hop is checked as the first one is. Raises `OutboundError`.
    """
    fault = check_url(url, allow=allow)
    if fault:
        raise OutboundError(fault, permanent=True)
    try:
        async with asyncio.timeout(timeout_s), guarded_client(allow, timeout_s=timeout_s) as client:
            for _ in range(MAX_REDIRECTS + 1):
                async with client.stream("GET", url) as response:
                    if not response.has_redirect_location:
                        return await _body(response, max_bytes)
                    url = _next_hop(response, allow)
    except TimeoutError:
        raise OutboundError(f"fetching took longer than {timeout_s:g} s", permanent=False) from None
    raise OutboundError(f"the URL redirects more than {MAX_REDIRECTS} times", permanent=True)


def _next_hop(response: httpx2.Response, allow: Sequence[Network]) -> str:
    """Where a redirect leads. Errors do not repeat the address: the caller may not be meant to see it."""
    try:
        target = str(response.url.join(response.headers["location"]))
    except (httpx2.InvalidURL, ValueError):
        raise OutboundError("redirected: the URL is not valid", permanent=True) from None
    fault = _fault(target, allow)
    if fault:
        raise OutboundError(f"redirected: {fault}", permanent=True)
    return target


async def _body(response: httpx2.Response, max_bytes: int) -> bytes:
    status = response.status_code
    if not 200 <= status < 300:
        passing = status >= 500 or status in (408, 429)
        raise OutboundError(f"the host answered with status {status}", permanent=not passing)
    if response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise OutboundError("the host compressed its answer although asked not to", permanent=True)
    too_large = OutboundError(f"the answer is larger than {max_bytes:,} bytes", permanent=True)
    length = response.headers.get("content-length", "")
    if length.isdecimal() and int(length) > max_bytes:
        raise too_large
    body = bytearray()
    async for part in response.aiter_raw():
        if len(body) + len(part) > max_bytes:
            raise too_large
        body += part
    return bytes(body)


def api_client(base_url: str, *, api_key: str | None, timeout_s: float) -> httpx2.AsyncClient:
    """A plain client for a PixelDojo service: the user of the command line names the address. Close it."""
    headers = {"User-Agent": f"PixelDojo/{__version__}"}
    if api_key:
        headers["Authorization"] = f"Bearer {api_key}"
    return httpx2.AsyncClient(
        base_url=base_url, headers=headers, timeout=timeout_s, verify=tls_context(), trust_env=False
    )


def in_process_client(app: Any, base_url: str, *, api_key: str | None) -> httpx2.AsyncClient:
    """Like `api_client`, for a service that runs in this very process as the ASGI application `app`. Close it."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx2.AsyncClient(transport=transport, base_url=base_url, headers=headers)


@contextlib.contextmanager
def _as_service_error(client: httpx2.AsyncClient) -> Iterator[None]:
    try:
        yield
    except httpx2.InvalidURL as error:
        raise OutboundError(f"the URL is not valid: {error}", permanent=True) from None
    except (httpx2.HTTPError, httpx2.StreamError) as error:
        reason = str(error) or type(error).__name__
        raise OutboundError(f"no answer from {client.base_url}: {reason}", permanent=False) from None


async def ask(client: httpx2.AsyncClient, method: str, url: str, **request: Any) -> tuple[int, httpx2.Headers, bytes]:
    """Status, headers and body of a service's answer. Raises `OutboundError` when there is none."""
    with _as_service_error(client):
        response = await client.request(method, url, **request)
        return response.status_code, response.headers, response.content


@contextlib.asynccontextmanager
async def stream(
    client: httpx2.AsyncClient, method: str, url: str, **request: Any
) -> AsyncIterator[tuple[int, httpx2.Headers, AsyncIterator[bytes]]]:
    """Status, headers and the body as it arrives. Raises `OutboundError`, in the block too."""
    with _as_service_error(client):
        async with client.stream(method, url, **request) as response:
            yield response.status_code, response.headers, response.aiter_bytes()


async def save(client: httpx2.AsyncClient, url: str, path: Path) -> None:
    """Write what lies behind `url` to `path`, following redirects. Raises `OutboundError` and OSError."""
    with _as_service_error(client):
        async with client.stream("GET", url, follow_redirects=True) as response:
            if response.status_code != 200:
                passing = response.status_code >= 500 or response.status_code == 429
                raise OutboundError(f"the download was answered with {response.status_code}", permanent=not passing)
            with path.open("wb") as file:
                async for part in response.aiter_bytes():
                    file.write(part)
