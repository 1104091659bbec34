"""The two ways to do what operations ask for: blocking, and on an asyncio event loop. Everything else is shared.

Effects come in; answers and this package's errors go out. No other module here sends a request or waits.
"""

import asyncio
import contextlib
import functools
import inspect
import math
import os
import ssl
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Generic, Self, TypeVar

import httpx2

from pixeldojo_sdk import errors
from pixeldojo_sdk._effects import (
    Block,
    Call,
    Close,
    Effect,
    Emit,
    Items,
    Open,
    Operation,
    Read,
    Request,
    Sleep,
    Steps,
    Stream,
)

T = TypeVar("T")
H = TypeVar("H")
P = TypeVar("P")


class _Answer(Generic[P]):
    """An answer whose body is still to come."""

    def __init__(self, response: httpx2.Response, pieces: P, request: Request) -> None:
        self.response, self.pieces, self.request = response, pieces, request
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers


def _timeout(effect: Open) -> httpx2.Timeout:
    left = _left(effect.until)
    pause = None if math.isinf(effect.pause) else max(effect.pause, 0.001)
    return httpx2.Timeout(None if left is None else max(left, 0.001), read=pause)


def _left(until: float) -> float | None:
    return None if math.isinf(until) else max(until - time.monotonic(), 0)


def _late(request: Request) -> errors.TimeoutError:
    return errors.TimeoutError(f"{request.place} did not answer in time")


@contextlib.contextmanager
def _as_our_errors(request: Request) -> Iterator[None]:
    try:
        yield
    except (httpx2.TimeoutException, TimeoutError) as error:
        raise _late(request) from error
    except (httpx2.DecodingError, httpx2.TooManyRedirects, httpx2.UnsupportedProtocol) as error:
        raise errors.InvalidResponseError(f"{request.place} gave an answer that can't be read: {error}") from error
    except httpx2.InvalidURL as error:
        raise errors.InvalidResponseError(f"{request.place}: the address is not valid: {error}") from error
    except (httpx2.HTTPError, httpx2.StreamError, OSError) as error:
        reason = str(error) or type(error).__name__
        raise errors.ConnectionError(f"can't reach {request.place}: {reason}") from error


def _build(http: httpx2.Client | httpx2.AsyncClient, effect: Open) -> httpx2.Request:
    request = effect.request
    headers = {name.encode(): value.encode() for name, value in request.headers.items()}
    return http.build_request(
        request.method, request.url, headers=headers, content=request.content, timeout=_timeout(effect)
    )


class _Pool(Generic[H]):
    """The HTTP client and its connections: made when first used, and made anew where the old one can't be used any
    more, which is after a fork and, with asyncio, on another event loop.
    """

    def __init__(self, make: Callable[[], H], given: H | None) -> None:
        self._make, self._given = make, given
        self._made: H | None = None
        self._home: object = None
        self._left: list[H] = []  # another process or loop owns their sockets: neither closed nor collected here
        self._lock = threading.Lock()
        self._closed = False

    def get(self, loop: object = None) -> H:
        """The client to use here."""
        if self._closed:
            raise RuntimeError("this client is closed")
        if self._given is not None:
            return self._given
        with self._lock:
            home = (os.getpid(), loop)
            if self._made is None or self._home != home:
                if self._made is not None:
                    self._left.append(self._made)
                self._made, self._home = self._make(), home
            return self._made

    def leave(self, loop: object = None) -> H | None:
        """The client to close, if it is ours and this is where it was used."""
        self._closed = True
        return self._made if self._home == (os.getpid(), loop) else None


@functools.cache
def _tls() -> ssl.SSLContext:
    return httpx2.create_ssl_context()  # it reads every certificate of the system: once is enough


def _no_cookies() -> CookieJar:
    return CookieJar(DefaultCookiePolicy(allowed_domains=()))


class Blocking:
    """Runs operations in the calling thread. Several threads may share one."""

    def __init__(self, http_client: httpx2.Client | None) -> None:
        self._pool = _Pool(lambda: httpx2.Client(verify=_tls(), cookies=_no_cookies()), http_client)

    def run(self, operation: Operation[T]) -> T:
        """The operation's result."""
        steps = Steps(operation)
        with contextlib.closing(operation), _Work(self._pool) as work:
            while (effect := steps.next()) is not None:
                work.step(steps, effect)
        return steps.result

    def iterate(self, items: Items[T]) -> Generator[T, None, None]:
        """The operation's items, as they come."""
        steps = Steps(items)
        with contextlib.closing(items), _Work(self._pool) as work:
            while (effect := steps.next()) is not None:
                if isinstance(effect, Emit):
                    yield effect.item
                    steps.give(None)
                else:
                    work.step(steps, effect)

    def close(self) -> None:
        """Close the connections."""
        if http := self._pool.leave():
            http.close()


class _Work:
    """What one operation does; answers that it leaves open are closed in the end."""

    def __init__(self, pool: _Pool[httpx2.Client]) -> None:
        self._pool = pool
        self._open: list[_Answer[Iterator[bytes]]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for answer in self._open:
            answer.response.close()

    def step(self, steps: Steps[Any, Any], effect: Effect) -> None:
        try:
            outcome = self._do(effect)
        except Exception as error:
            steps.fail(error)
        else:
            steps.give(outcome)

    def _do(self, effect: Effect) -> object:
        match effect:
            case Open():
                return self._send(effect)
            case Read(stream=_Answer() as answer, until=until):
                with _as_our_errors(answer.request):
                    piece = next(answer.pieces, None)
                if piece is not None and time.monotonic() > until:  # it dribbles
                    raise _late(answer.request)
                return piece
            case Close(stream=_Answer() as answer):
                self._open.remove(answer)
                answer.response.close()
            case Sleep(seconds=seconds):
                time.sleep(max(seconds, 0))
            case Call(function=function) | Block(function=function):
                return function()
        return None

    def _send(self, effect: Open) -> Stream:
        http, request = self._pool.get(), effect.request
        with _as_our_errors(request):
            sent = _build(http, effect)
            response = http.send(sent, stream=True, auth=None, follow_redirects=request.follow_redirects)
        answer: _Answer[Iterator[bytes]] = _Answer(response, response.iter_bytes(), request)
        self._open.append(answer)
        return answer


class Asyncio:
    """Runs operations on the running event loop."""

    def __init__(self, http_client: httpx2.AsyncClient | None) -> None:
        self._pool = _Pool(lambda: httpx2.AsyncClient(verify=_tls(), cookies=_no_cookies()), http_client)

    async def run(self, operation: Operation[T]) -> T:
        """The operation's result."""
        steps = Steps(operation)
        with contextlib.closing(operation):  # cancelled, it ends here and not when it is collected
            async with _AsyncWork(self._pool) as work:
                while (effect := steps.next()) is not None:
                    await work.step(steps, effect)
        return steps.result

    async def iterate(self, items: Items[T]) -> AsyncGenerator[T, None]:
        """The operation's items, as they come."""
        steps = Steps(items)
        with contextlib.closing(items):
            async with _AsyncWork(self._pool) as work:
                while (effect := steps.next()) is not None:
                    if isinstance(effect, Emit):
                        yield effect.item
                        steps.give(None)
                    else:
                        await work.step(steps, effect)

    async def close(self) -> None:
        """Close the connections."""
        if http := self._pool.leave(asyncio.get_running_loop()):
            await http.aclose()


class _AsyncWork:
    """`_Work`, with `await` where the world is."""

    def __init__(self, pool: _Pool[httpx2.AsyncClient]) -> None:
        self._pool = pool
        self._open: list[_Answer[AsyncIterator[bytes]]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for answer in self._open:
            await answer.response.aclose()

    async def step(self, steps: Steps[Any, Any], effect: Effect) -> None:
        try:
            outcome = await self._do(effect)
        except Exception as error:
            steps.fail(error)
        else:
            steps.give(outcome)

    async def _do(self, effect: Effect) -> object:
        match effect:
            case Open():
                return await self._send(effect)
            case Read(stream=_Answer() as answer, until=until):
                with _as_our_errors(answer.request):
                    async with asyncio.timeout(_left(until)):
                        return await anext(answer.pieces, None)
            case Close(stream=_Answer() as answer):
                self._open.remove(answer)
                await answer.response.aclose()
            case Sleep(seconds=seconds):
                await asyncio.sleep(max(seconds, 0))
            case Call(function=function):
                outcome = function()
                return await outcome if inspect.isawaitable(outcome) else outcome
            case Block(function=function):
                return await asyncio.to_thread(function)
        return None

    async def _send(self, effect: Open) -> Stream:
        http, request = self._pool.get(asyncio.get_running_loop()), effect.request
        with _as_our_errors(request):
            async with asyncio.timeout(_left(effect.until)):
                sent = _build(http, effect)
                response = await http.send(sent, stream=True, auth=None, follow_redirects=request.follow_redirects)
        answer: _Answer[AsyncIterator[bytes]] = _Answer(response, response.aiter_bytes(), request)
        self._open.append(answer)
        return answer
