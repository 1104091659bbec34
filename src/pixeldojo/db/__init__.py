"""The database seam: one small interface, SQLite and PostgreSQL behind it.

Domain code is plain functions whose first argument is a `Tx`; `await db.write(jobs.submit, …)` runs one in a
transaction on the database's own threads. A function may be run again from its start after a lost connection
or a failed group commit, so it changes nothing but the transaction. It makes no network call.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from pixeldojo.errors import CommitUnknown as CommitUnknown
from pixeldojo.errors import DatabaseUnavailable as DatabaseUnavailable  # what the database's rooms raise

P = ParamSpec("P")
T = TypeVar("T")
Row = tuple[Any, ...]
Value = str | int | bytes | None


class Tx(Protocol):
    """One open transaction. SQL is written once for both engines, with `?` for parameters."""

    @property
    def skip_locked(self) -> str:
        """The clause a claim ends its inner SELECT with: `FOR UPDATE SKIP LOCKED`, or nothing on SQLite."""

    def all(self, sql: str, *params: Value) -> list[Row]:
        """Every row of a query, or of a RETURNING clause."""

    def one(self, sql: str, *params: Value) -> Row | None:
        """The first row, or None."""

    def run(self, sql: str, *params: Value) -> int:
        """Execute a statement; how many rows it changed."""

    def wake(self, channel: str) -> None:
        """After the commit, set the event of `channel` wherever somebody waits. Only shortens a poll."""


class Database(Protocol):
    """An open database. Made by `pixeldojo.db.open.open_database`."""

    async def read(self, fn: Callable[Concatenate[Tx, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `fn(tx, …)` on a consistent snapshot. It must not write, and it must be short: a few rows that an
        index finds, because it may run on the event loop's own thread."""

    async def scan(self, fn: Callable[Concatenate[Tx, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """The same for a read that may take its time: sums, searches, whole tables. Never on the event loop."""

    async def write(self, fn: Callable[Concatenate[Tx, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `fn(tx, …)` in a transaction of its own: committed when this returns, undone when it raises.

        Raises whatever `fn` raises, and `DatabaseUnavailable`.
        """

    def event(self, channel: str) -> asyncio.Event:
        """The event that `tx.wake(channel)` sets on this event loop. The waiter clears it."""

    async def migrate(self) -> list[str]:
        """Bring the schema up to date; the names of the migrations that were applied now."""

    async def close(self) -> None:
        """Finish what was accepted, then close every connection."""
