"""PostgreSQL: a few threads, each with a connection of its own, and one more that carries wake-ups.

Writers and readers wait in two lanes: a slow listing never holds up a heartbeat, and writes that queue for
one account's row never hold up a poll. Every write is a transaction of its own. Grouping them as on SQLite
would make strangers share their row locks, in any order, and so deadlock; PostgreSQL already flushes the
commits of several connections together.

Wake-ups are sent after the commit, by one connection. A NOTIFY inside the transaction would take a lock that
makes every notifying commit of the whole server wait for the one before it to reach the disk.
"""

import asyncio
import contextlib
import functools
import os
import queue
import random
import re
import selectors
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Concatenate

import psycopg
from psycopg import conninfo, errors, pq
from psycopg.types import numeric

from pixeldojo import clock
from pixeldojo.db import CommitUnknown, DatabaseUnavailable, P, Row, T, Tx, Value, migrations
from pixeldojo.db.calls import Call, Events, Lane, hand_back

_WRITERS = 5
_READERS = 3
_PAUSES_S = (0.01, 0.05, 0.25, 1.0)  # before the second to the fifth try
_BELL_PAUSE_S = 0.5
_CHANNEL = b"pixeldojo"  # one for all: ours travel as its payload

_WRITE = b"BEGIN ISOLATION LEVEL READ COMMITTED"
_READ = b"BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"

_SETTINGS = "-c statement_timeout=30s -c lock_timeout=20s -c idle_in_transaction_session_timeout=60s"
_DEFAULTS = {  # each can be set otherwise in the URL
    "application_name": "pixeldojo",
    "connect_timeout": "5",
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",  # ms: a server that vanished without a word is noticed
    "target_session_attrs": "read-write",  # of several hosts, the one that takes writes
}

_AGAIN = (
    errors.SerializationFailure,
    errors.DeadlockDetected,
    errors.FeatureNotSupported,  # "cached plan must not change result type": another process migrated
)

_TOKENS = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/|\?""", re.DOTALL)


@functools.lru_cache(maxsize=2048)
def _translate(sql: str) -> tuple[bytes, bool]:
    """The statement with `$1`, `$2` … for `?`, and whether it can be prepared: a script can't."""
    count = 0

    def number(match: re.Match[str]) -> str:
        nonlocal count
        if match[0] != "?":
            return match[0]
        count += 1
        return f"${count}"

    return _TOKENS.sub(number, sql).encode(), ";" not in sql.rstrip().removesuffix(";")


class _NumericLoader(psycopg.adapt.Loader):
    """SUM over BIGINT is NUMERIC here and an integer on SQLite: make both an int."""

    def load(self, data: psycopg.abc.Buffer) -> int | float:
        text = bytes(data)
        return float(text) if b"." in text else int(text)


class _BoolDumper(numeric.Int8Dumper):
    def dump(self, obj: bool) -> bytes:  # SQLite stores 0 and 1
        return b"1" if obj else b"0"


class _PostgresTx:
    __slots__ = ("cursor", "error", "woken")

    skip_locked = "FOR UPDATE SKIP LOCKED"

    def __init__(self, cursor: psycopg.Cursor[Row]) -> None:
        self.cursor = cursor
        self.error: psycopg.Error | None = None  # after one, PostgreSQL takes nothing but a rollback
        self.woken: set[str] = set()

    def _execute(self, sql: str, params: tuple[Value, ...]) -> psycopg.Cursor[Row]:
        query, prepare = _translate(sql)
        try:
            return self.cursor.execute(query, params, prepare=prepare)
        except psycopg.Error as error:
            self.error = error
            raise

    def all(self, sql: str, *params: Value) -> list[Row]:
        return self._execute(sql, params).fetchall()

    def one(self, sql: str, *params: Value) -> Row | None:
        return self._execute(sql, params).fetchone()

    def run(self, sql: str, *params: Value) -> int:
        return self._execute(sql, params).rowcount

    def wake(self, channel: str) -> None:
        self.woken.add(channel)


class _Line:
    """One thread's connection: made when it is first needed, dropped when it breaks."""

    def __init__(self, connect: Callable[[], psycopg.Connection[Row]], begin: bytes) -> None:
        self._connect, self._begin = connect, begin
        self._connection: psycopg.Connection[Row] | None = None

    def drop(self) -> None:
        """Close the connection; the next call gets a fresh one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._connection is not None

    def transact(self, call: Call, woken: set[str]) -> bool:
        """Run `call` in a transaction. False when nothing came of it, for a reason that may pass."""
        try:
            connection = self._connection = self._connection or self._connect()
            _control(connection, self._begin)
        except psycopg.Error as error:
            self.drop()
            call.unavailable(error)
            return False
        with connection.cursor() as cursor:
            tx = _PostgresTx(cursor)
            returned = call.attempt(tx)
        if returned and tx.error is None:
            return self._commit(connection, call, tx, woken)
        try:
            _control(connection, b"ROLLBACK")
        except psycopg.Error:
            connection.close()
        lost = connection.closed
        if lost or isinstance(tx.error, errors.FeatureNotSupported):
            self.drop()
        if tx.error is None:
            return True  # the function's own exception
        if lost or isinstance(tx.error, psycopg.OperationalError):
            call.unavailable(tx.error)
        elif returned:  # it swallowed the error, but the transaction was lost with it
            call.outcome = (None, tx.error)
        return not (lost or isinstance(tx.error, _AGAIN))

    def _commit(self, connection: psycopg.Connection[Row], call: Call, tx: _PostgresTx, woken: set[str]) -> bool:
        try:
            _control(connection, b"COMMIT")
        except psycopg.Error as error:
            if not connection.closed and connection.pgconn.transaction_status == pq.TransactionStatus.IDLE:
                call.outcome = (None, error)  # refused, by a deferred constraint say: nothing was changed
                if isinstance(error, psycopg.OperationalError):
                    call.unavailable(error)
                return not isinstance(error, _AGAIN)
            self.drop()
            if self._begin == _READ:
                call.unavailable(error)
                return False
            call.unavailable(error, CommitUnknown)
            return True
        woken |= tx.woken
        return True


def _control(connection: psycopg.Connection[Row], command: bytes) -> None:
    """BEGIN, COMMIT or ROLLBACK, past psycopg: it would forget every prepared statement after a ROLLBACK."""
    result = connection.pgconn.exec_(command)
    if result.status != pq.ExecStatus.COMMAND_OK:
        raise errors.error_from_result(result, encoding="utf-8")


class _Bell:
    """Tells other processes what woke here, and this one what woke there: one thread, one connection."""

    def __init__(self, connect: Callable[[], psycopg.Connection[Row]], events: Events) -> None:
        self._connect, self._events = connect, events
        self._lock = threading.Lock()
        self._rings: set[str] = set()
        self._stopping = threading.Event()
        first = self._open()
        self._heard, self._knock = os.pipe()
        os.set_blocking(self._heard, False)
        self._thread = threading.Thread(target=self._loop, args=(first,), name="db-bell", daemon=True)
        self._thread.start()

    def _open(self) -> psycopg.Connection[Row]:
        connection = self._connect()
        try:
            _control(connection, b"LISTEN " + _CHANNEL)
        except psycopg.Error:
            connection.close()
            raise
        return connection

    def ring(self, channels: Iterable[str]) -> None:
        """Send `channels` to the other processes, soon. Those that wait already are sent once."""
        with self._lock:
            first = not self._rings
            self._rings.update(channels)
        if first:
            os.write(self._knock, b"!")

    def stop(self) -> None:
        """Send what waits, then end."""
        self._stopping.set()
        os.write(self._knock, b"!")
        self._thread.join()
        os.close(self._heard)
        os.close(self._knock)

    def _loop(self, connection: psycopg.Connection[Row] | None) -> None:
        while True:
            try:
                if connection is None:
                    connection = self._open()
                    self._events.wake_all()  # whatever rang meanwhile went past us
                self._serve(connection)
                break
            except psycopg.Error:
                if connection is not None:
                    connection.close()
                    connection = None
                if self._stopping.wait(_BELL_PAUSE_S):
                    break
        if connection is not None:
            connection.close()

    def _serve(self, connection: psycopg.Connection[Row]) -> None:
        """Send and hear until `stop`. Raises when the connection is lost."""
        with selectors.DefaultSelector() as selector:
            selector.register(connection.fileno(), selectors.EVENT_READ)
            selector.register(self._heard, selectors.EVENT_READ)
            while True:
                stopping = self._stopping.is_set()
                self._send(connection.pgconn)
                self._hear(connection.pgconn)
                if stopping:
                    return
                selector.select()

    def _send(self, pgconn: pq.abc.PGconn) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._heard, 4096)
        with self._lock:
            rings, self._rings = self._rings, set()
        for channel in rings:
            result = pgconn.exec_params(b"SELECT pg_notify($1, $2)", [_CHANNEL, channel.encode()])
            if result.status != pq.ExecStatus.TUPLES_OK:
                raise errors.error_from_result(result, encoding="utf-8")

    def _hear(self, pgconn: pq.abc.PGconn) -> None:
        pgconn.consume_input()
        heard = set()
        while (notice := pgconn.notifies()) is not None:
            if notice.be_pid != pgconn.backend_pid:  # our own were set at their commit
                heard.add(notice.extra.decode())
        self._events.wake(heard)


class PostgresDatabase:
    """An open PostgreSQL database. Raises `DatabaseUnavailable` when the server can't be reached."""

    def __init__(self, url: str) -> None:
        try:
            given = conninfo.conninfo_to_dict(url)
        except psycopg.ProgrammingError:
            message = "the PostgreSQL URL can't be read; it looks like postgresql://user:password@host:5432/name"
            raise DatabaseUnavailable(message) from None  # the cause quotes the URL, password and all
        self._options: dict[str, Any] = {**_DEFAULTS, **given, "client_encoding": "utf8"}
        self._options["options"] = f"{_SETTINGS} {given.get('options', '')}".strip()
        self._events = Events()
        self._writes: Lane = queue.SimpleQueue()
        self._reads: Lane = queue.SimpleQueue()
        self._closing = False
        self._down = False
        try:
            self._bell = _Bell(self._connect, self._events)
        except psycopg.Error as error:
            where = f"{given.get('host', 'localhost')}:{given.get('port', 5432)}"
            reason = str(error).strip().partition("\n")[0]
            raise DatabaseUnavailable(f"can't use PostgreSQL at {where}: {reason}") from error
        lanes = [(self._writes, _WRITE, "writer")] * _WRITERS + [(self._reads, _READ, "reader")] * _READERS
        self._threads = [
            threading.Thread(target=self._loop, args=(lane, begin), name=f"db-{kind}-{number}", daemon=True)
            for number, (lane, begin, kind) in enumerate(lanes)
        ]
        for thread in self._threads:
            thread.start()

    def _connect(self) -> psycopg.Connection[Row]:
        connection = psycopg.connect(**self._options, autocommit=True, cursor_factory=psycopg.RawCursor)
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != "UTF8" or connection.info.server_version < 140000:
            connection.close()
            raise psycopg.NotSupportedError("it must be version 14 or later, and the database's encoding UTF8")
        connection.prepared_max = 512
        connection.adapters.register_dumper(int, numeric.Int8Dumper)
        connection.adapters.register_dumper(bool, _BoolDumper)
        connection.adapters.register_loader("numeric", _NumericLoader)
        return connection

    async def read(self, fn: Callable[Concatenate[Tx, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Database.read`."""
        result: T = await self._put(self._reads, Call(fn, args, kwargs))
        return result

    async def scan(self, fn: Callable[Concatenate[Tx, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Database.scan`."""
        return await self.read(fn, *args, **kwargs)

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
        return await self.write(_migrate, clock.now_ms())

    async def close(self) -> None:
        """See `Database.close`."""
        if self._closing:
            return
        self._closing = True
        for lane, count in ((self._writes, _WRITERS), (self._reads, _READERS)):
            for _ in range(count):
                lane.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        await asyncio.to_thread(self._bell.stop)

    def _loop(self, lane: Lane, begin: bytes) -> None:
        line = _Line(self._connect, begin)
        while (call := lane.get()) is not None:
            woken: set[str] = set()
            try:
                self._run(line, call, woken)
            except Exception as error:  # none is expected; the caller hears of it and the thread lives on
                line.drop()
                call.unavailable(error)
            hand_back([call])
            if woken:
                self._events.wake(woken)
                self._bell.ring(woken)
        line.drop()

    def _run(self, line: _Line, call: Call, woken: set[str]) -> None:
        """Run `call`, again while that may help. With the server down for long, each gets one try."""
        for pause_s in (*_PAUSES_S, None):
            if line.transact(call, woken):
                self._down = False
                return
            if pause_s is None or (self._down and not line.is_open):
                break
            time.sleep(pause_s * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, no secret
        self._down = not line.is_open


def _migrate(tx: Tx, now_ms: int) -> list[str]:
    tx.run("SET LOCAL statement_timeout = 0")  # an index on a large table takes its time
    tx.run("SET LOCAL lock_timeout = 0")
    return migrations.apply(tx, "postgres", now_ms)
