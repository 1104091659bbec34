"""SQLite: one writer thread with group commit, readers beside it.

The writer takes the calls that wait, runs them in one transaction and commits once, with `synchronous=FULL`:
one disk flush serves the whole group. Readers have connections of their own and, under WAL, block nobody: short reads
run where they are asked for, long ones on threads.
Other processes may open the same file; then SQLite's own lock decides whose group is next.
"""

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Concatenate

from pixeldojo import clock
from pixeldojo.db import DatabaseUnavailable, P, Row, T, Tx, Value, migrations
from pixeldojo.db.calls import Call, Events, Lane, hand_back

_GROUP = 64  # calls in one commit at most: while one group is flushed, the event loop fills the next
_READ_BATCH = 8
_READERS = 2


class _SqliteTx:
    __slots__ = ("connection", "woken")

    skip_locked = ""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.woken: set[str] = set()

    def all(self, sql: str, *params: Value) -> list[Row]:
        return self.connection.execute(sql, params).fetchall()

    def one(self, sql: str, *params: Value) -> Row | None:
        cursor = self.connection.execute(sql, params)
        row: Row | None = cursor.fetchone()
        cursor.close()  # resets the statement: a RETURNING that is not read to its end would hold the commit
        return row

    def run(self, sql: str, *params: Value) -> int:
        return self.connection.execute(sql, params).rowcount

    def wake(self, channel: str) -> None:
        self.woken.add(channel)


class SqliteDatabase:
    """An open SQLite file. `path` is made, with its folder, when it is missing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.touch(mode=0o600)  # before SQLite would: its -wal and -shm files copy the mode
        except OSError as error:
            raise DatabaseUnavailable(f"can't open {path}: {error.strerror}") from error
        self._events = Events()
        self._writes: Lane = queue.SimpleQueue()
        self._reads: Lane = queue.SimpleQueue()
        self._closing = False
        writer = self._connect()
        self._quick = self._connect(timeout_s=0)
        self._quick.execute("PRAGMA query_only=ON")
        self._quick_lock = threading.Lock()  # two event loops in two threads may share this object
        self._threads = [threading.Thread(target=self._write_loop, args=(writer,), name="db-writer", daemon=True)]
        for number in range(_READERS):
            reader = self._connect()
            reader.execute("PRAGMA query_only=ON")
            self._threads.append(
                threading.Thread(target=self._read_loop, args=(reader,), name=f"db-reader-{number}", daemon=True)
            )
        for thread in self._threads:
            thread.start()

    def _connect(self, *, timeout_s: float = 30) -> sqlite3.Connection:
        connection = None
        try:
            connection = sqlite3.connect(
                self._path, isolation_level=None, check_same_thread=False, cached_statements=512, timeout=timeout_s
            )
            for pragma in (
                "journal_mode=WAL",
                "synchronous=FULL",
                "foreign_keys=ON",
                "wal_autocheckpoint=4000",  # pages: fewer, larger checkpoints keep the tail of submits short
                "journal_size_limit=67108864",
                "cache_size=-16384",
                "temp_store=MEMORY",
            ):
                connection.execute(f"PRAGMA {pragma}")
        except sqlite3.Error as error:
            if connection is not None:
                connection.close()
            raise DatabaseUnavailable(f"can't open {self._path}: {error}") from error
        return connection

    async def read(self, fn: Callable[Concatenate[Tx, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Database.read`. Runs at once, on the caller's own thread: a hand-over costs more than the read."""
        if self._closing or not self._quick_lock.acquire(blocking=False):
            return await self.scan(fn, *args, **kwargs)
        try:
            self._quick.execute("BEGIN")
            return fn(_SqliteTx(self._quick), *args, **kwargs)
        except sqlite3.OperationalError as error:
            if _is_plain(error):
                raise
        finally:
            _roll_back(self._quick)
            self._quick_lock.release()
        return await self.scan(fn, *args, **kwargs)  # somebody holds the whole file, say: wait on a thread

    async def scan(self, fn: Callable[Concatenate[Tx, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Database.scan`."""
        result: T = await self._put(self._reads, Call(fn, args, kwargs))
        return result

    async def write(self, fn: Callable[Concatenate[Tx, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Database.write`."""
        result: T = await self._put(self._writes, Call(fn, args, kwargs))
        return result

    def _put(self, lane: Lane, call: Call) -> "asyncio.Future[Any]":
        if self._closing:
            raise DatabaseUnavailable("the database is closed")
        lane.put(call)
        return call.future

    def event(self, channel: str) -> asyncio.Event:
        """See `Database.event`."""
        return self._events.new(channel)

    async def migrate(self) -> list[str]:
        """See `Database.migrate`."""
        return await self.write(migrations.apply, "sqlite", clock.now_ms())

    async def close(self) -> None:
        """See `Database.close`."""
        if self._closing:
            return
        self._closing = True
        self._writes.put(None)
        for _ in range(_READERS):
            self._reads.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        with self._quick_lock:
            self._quick.close()

    def _read_loop(self, connection: sqlite3.Connection) -> None:
        tx = _SqliteTx(connection)
        stopping = False
        while not stopping:
            calls, stopping = _take(self._reads, _READ_BATCH)
            for call in calls:
                try:
                    connection.execute("BEGIN")
                    if not call.attempt(tx):
                        _translate(call)
                    connection.execute("COMMIT")
                except sqlite3.Error as error:
                    call.unavailable(error)
                    _roll_back(connection)
            hand_back(calls)
        connection.close()

    def _write_loop(self, connection: sqlite3.Connection) -> None:
        stopping = False
        while not stopping:
            calls, stopping = _take(self._writes, _GROUP)
            woken: set[str] = set()
            if calls:
                _settle(connection, calls, woken)
            hand_back(calls)
            self._events.wake(woken)
        with contextlib.suppress(sqlite3.Error):
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()


def _take(lane: Lane, most: int) -> tuple[list[Call], bool]:
    """Wait for one call, then take all that is there, up to `most`; True when the lane is being closed."""
    first = lane.get()
    if first is None:
        return [], True
    calls = [first]
    while len(calls) < most:
        try:
            call = lane.get_nowait()
        except queue.Empty:
            break
        if call is None:
            return calls, True
        calls.append(call)
    return calls, False


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")


def _translate(call: Call) -> None:
    """A full disk or a long lock becomes `DatabaseUnavailable`; a fault in the SQL stays itself."""
    error = call.outcome[1]
    if isinstance(error, sqlite3.OperationalError) and not _is_plain(error):
        call.unavailable(error)


def _is_plain(error: sqlite3.OperationalError) -> bool:
    """Whether it is a fault in the SQL itself, and no condition of the disk or of other users of the file."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code & 0xFF == sqlite3.SQLITE_ERROR


def _settle(connection: sqlite3.Connection, calls: list[Call], woken: set[str]) -> None:
    """Run `calls` and commit those that succeed, in as few transactions as it takes.

    Nearly always none of a group fails, so the first try goes without savepoints. When one does, the group is
    run again with them; when it is lost even so (a full disk, say), each call gets a transaction of its own.
    """
    if _commit(connection, calls, woken, savepoints=False):
        return
    if len(calls) > 1 and not _commit(connection, calls, woken, savepoints=True):
        for call in calls:
            _commit(connection, [call], woken, savepoints=False)


def _commit(connection: sqlite3.Connection, calls: list[Call], woken: set[str], *, savepoints: bool) -> bool:
    """Run `calls` in one transaction. False when nothing of it was committed."""
    tx = _SqliteTx(connection)
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.Error as error:
        for call in calls:
            call.unavailable(error)
        return True  # nothing ran; one by one, each would wait for the same lock all over again
    try:
        for call in calls:
            if savepoints:
                connection.execute("SAVEPOINT call")
            if not call.attempt(tx):
                _translate(call)
                # Some faults, a full disk for one, undo the whole transaction.
                if not savepoints or not connection.in_transaction:
                    _roll_back(connection)
                    return False
                connection.execute("ROLLBACK TO call")
            if savepoints:
                connection.execute("RELEASE call")
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        _roll_back(connection)
        for call in calls:
            call.unavailable(error)
        return False
    woken |= tx.woken
    return True
