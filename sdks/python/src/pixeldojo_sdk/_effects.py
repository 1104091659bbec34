"""What an operation asks of the world, and nothing of how it is done: the drivers, blocking and asyncio, do it.

An operation is a generator: it yields effects, is sent their outcomes (or has their errors raised where it stands),
and returns its result. Times are in seconds; `until` is a moment of `time.monotonic`.
"""

import math
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from pixeldojo_sdk import errors

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Request:
    """One attempt at a request."""

    method: str
    url: str
    headers: Mapping[str, str]
    content: bytes | None = None
    follow_redirects: bool = False

    @property
    def place(self) -> str:
        """The address without its query, which may hold a signature."""
        return self.url.partition("?")[0]


class Stream(Protocol):
    """An answer whose body is still to come; only drivers make them."""

    status: int
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Open:
    """Send the request and return the `Stream` of its answer. Nothing may come for `pause` seconds at most."""

    request: Request
    until: float
    pause: float


@dataclass(frozen=True, slots=True)
class Read:
    """Return more of the body, or None at its end."""

    stream: Stream
    until: float


@dataclass(frozen=True, slots=True)
class Close:
    """Be done with an answer. Those that are left open are closed when the operation ends."""

    stream: Stream


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Call:
    """Call something of the user's; what it returns is awaited where that can be."""

    function: Callable[[], object]


@dataclass(frozen=True, slots=True)
class Block:
    """Do something with files: in a thread where there is an event loop."""

    function: Callable[[], object]


@dataclass(frozen=True, slots=True)
class Emit(Generic[T_co]):
    """Hand an item to whoever iterates."""

    item: T_co


Effect: TypeAlias = Open | Read | Close | Sleep | Call | Block
Operation: TypeAlias = Generator[Effect, Any, T]
Items: TypeAlias = Generator[Effect | Emit[T], Any, None]
E = TypeVar("E")


class Steps(Generic[E, T]):
    """An operation, step by step: what both drivers do the same."""

    def __init__(self, operation: Generator[E, Any, T]) -> None:
        self._operation = operation
        self._resume: Callable[[], E] = lambda: next(operation)
        self._result: list[T] = []

    @property
    def result(self) -> T:
        """What the operation returned, once it has ended."""
        return self._result[0]

    def next(self) -> E | None:
        """The next effect; None when the operation has ended: then there is `result`."""
        try:
            return self._resume()
        except StopIteration as stop:
            self._result.append(stop.value)
            return None

    def give(self, outcome: object) -> None:
        """The outcome of the last effect."""
        self._resume = lambda: self._operation.send(outcome)

    def fail(self, error: Exception) -> None:
        """How the last effect failed."""
        self._resume = lambda: self._operation.throw(error)

    def close(self) -> None:
        """End the operation where it stands."""
        self._operation.close()


def within(operation: Operation[T], seconds: float | None, late: Callable[[], str]) -> Operation[T]:
    """The operation, with an end to its time. Raises `TimeoutError` with the words of `late`."""
    until = math.inf if seconds is None else time.monotonic() + seconds
    steps = Steps(operation)
    try:
        while (effect := steps.next()) is not None:
            left = until - time.monotonic()
            if left <= 0 and not isinstance(effect, Close):
                raise errors.TimeoutError(late())
            try:
                steps.give((yield _sooner(effect, until, left)))
            except Exception as error:
                if isinstance(error, errors.TimeoutError) and time.monotonic() >= until:
                    raise errors.TimeoutError(late()) from error
                steps.fail(error)
        return steps.result
    finally:
        steps.close()


def _sooner(effect: Effect, until: float, left: float) -> Effect:
    if isinstance(effect, Open):
        return Open(effect.request, min(effect.until, until), min(effect.pause, left))
    if isinstance(effect, Read):
        return Read(effect.stream, min(effect.until, until))
    return Sleep(min(effect.seconds, left)) if isinstance(effect, Sleep) else effect
