"""What both engines share: functions on their way to a database thread, and events on their way back.

A `Call` carries one function in and its outcome out; `Events` tells waiting event loops what was committed.
Nothing here knows an engine or a line of SQL.
"""

import asyncio
import contextlib
import queue
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any

from pixeldojo.db import DatabaseUnavailable, Tx


class Call:
    """One function waiting to run on a database thread, and the future its caller awaits."""

    __slots__ = ("args", "fn", "future", "kwargs", "loop", "outcome")

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.fn, self.args, self.kwargs = fn, args, kwargs
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.outcome: tuple[Any, BaseException | None] = (None, None)

    def attempt(self, tx: Tx) -> bool:
        """Run the function and keep what came of it; False when it raised."""
        try:
            self.outcome = (self.fn(tx, *self.args, **self.kwargs), None)
        except StopIteration as error:  # no future takes one, and the rest of its group would wait for ever
            told = RuntimeError("the function raised StopIteration")
            told.__cause__ = error
            self.outcome = (None, told)
            return False
        except BaseException as error:  # whatever it is, the thread serves the next call
            self.outcome = (None, error)
            return False
        return True

    def unavailable(self, error: BaseException, kind: type[DatabaseUnavailable] = DatabaseUnavailable) -> None:
        """Make the outcome `DatabaseUnavailable`, because of `error`."""
        told = kind(str(error).strip().partition("\n")[0])
        told.__cause__ = error
        self.outcome = (None, told)


Lane = queue.SimpleQueue[Call | None]  # None ends the thread that takes it


def _resolve(calls: list[Call]) -> None:
    for call in calls:
        if not call.future.done():
            result, error = call.outcome
            if error is None:
                call.future.set_result(result)
            else:
                call.future.set_exception(error)


def hand_back(calls: list[Call]) -> None:
    """Give the outcomes to the event loop they came from: one wake-up for the whole group."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Call]] = {}
    for call in calls:
        by_loop.setdefault(call.loop, []).append(call)
    for loop, group in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody is waiting
            loop.call_soon_threadsafe(_resolve, group)


class Events:
    """The events of every channel. An event nobody holds any more is forgotten."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, list[tuple[asyncio.AbstractEventLoop, weakref.ref[asyncio.Event]]]] = {}

    def new(self, channel: str) -> asyncio.Event:
        """An event on the running loop that `wake` sets."""
        event = asyncio.Event()
        with self._lock:  # the list is replaced, never changed: `wake` walks it on another thread
            held = [pair for pair in self._held.get(channel, ()) if pair[1]() is not None]
            self._held[channel] = [*held, (asyncio.get_running_loop(), weakref.ref(event))]
        return event

    def wake(self, channels: Iterable[str]) -> None:
        """Set every event of `channels`, each on its own loop. Any thread may call this."""
        for channel in channels:
            for loop, held in self._held.get(channel, ()):
                if (event := held()) is not None:
                    with contextlib.suppress(RuntimeError):
                        loop.call_soon_threadsafe(event.set)

    def wake_all(self) -> None:
        """Set every event: something may have been missed."""
        self.wake(list(self._held))
