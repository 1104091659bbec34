"""A service in a process of its own, for tests that meet it as its users do; and the samples that it shows.

with serving(folder, PIXELDOJO_TESTCARD="1") as live:
    live.env          # what a client needs
    docs(live.address)  # {"generate": {"curl": "…", "ts": "…", "py": "…"}, …}, read from the page itself
"""

import asyncio
import contextlib
import html.parser
import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pixeldojo
from pixeldojo import opening
from pixeldojo.accounts import service as accounts
from pixeldojo.db import Tx
from pixeldojo.ledger import service as ledger
from pixeldojo.settings import Settings

HOOK = "https://example.com/webhook"  # in the samples; tests put a receiver of their own in its place


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PIXELDOJO_")}


@dataclass(frozen=True, slots=True)
class Live:
    """The service, with the key of an account with credits, one that manages its keys, and one of a poor account."""

    address: str
    key: str
    poor_key: str
    owner_key: str
    folder: Path
    process: "subprocess.Popen[str]"

    @property
    def env(self) -> dict[str, str]:
        """What a client finds in its environment; its home is empty."""
        named = {"PIXELDOJO_BASE_URL": self.address, "PIXELDOJO_API_KEY": self.key}
        named |= {"OWNER_KEY": self.owner_key, "HOME": str(self.folder)}
        return clean_environment() | named

    def text(self, path: str) -> str:
        """What a GET of this path answers."""
        return fetch(self.address + path)


def fetch(url: str) -> str:
    """The text at an address."""
    with urllib.request.urlopen(url, timeout=20) as answer:
        found: str = answer.read().decode()
        return found


def _open(tx: Tx) -> tuple[str, str, str]:
    rich, poor = accounts.get_account(tx, name=accounts.DEFAULT_ACCOUNT), accounts.create_account(tx, name="poor")
    ledger.grant(tx, account_id=rich.id, amount_milli=1_000_000)
    manages = ["account:read", "account:write"]
    return (
        accounts.create_key(tx, account_id=rich.id, name="first")[1],
        accounts.create_key(tx, account_id=poor.id, name="poor")[1],
        accounts.create_key(tx, account_id=rich.id, name="owner", scopes=manages)[1],
    )


async def _open_accounts(settings: Settings) -> tuple[str, str, str]:
    async with opening.open_database_for(settings) as db:
        return await db.write(_open)


def command(*arguments: str | Path, at: Path, env: dict[str, str], timeout_s: float = 60) -> str:
    """What a command prints. Fails with all of its output when the command does."""
    done = subprocess.run(
        [str(each) for each in arguments], cwd=at, env=env,
        capture_output=True, text=True, encoding="utf-8", check=False, timeout=timeout_s,
    )  # fmt: skip
    assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
    return done.stdout


def service_environment(data: Path, **more: str) -> dict[str, str]:
    """That of a service with this data folder on a free port, which may call receivers on this machine."""
    return clean_environment() | {
        "PYTHONPATH": str(Path(pixeldojo.__file__).parents[1]),
        "PIXELDOJO_DATA_DIR": str(data),
        "PIXELDOJO_PORT": "0",
        "PIXELDOJO_RATE_LIMIT": "off",
        "PIXELDOJO_ALLOW_NETWORKS": "127.0.0.0/8",
    } | more  # fmt: skip


@contextlib.contextmanager
def launched(folder: Path, env: dict[str, str]) -> Iterator[tuple[dict[str, str], "subprocess.Popen[str]"]]:
    """What `serve --json` says once it is up, and its process, which is ended with the block."""
    with (folder / "log").open("w") as log, subprocess.Popen(
        [sys.executable, "-m", "pixeldojo", "serve", "--json"], cwd=folder, env=env,
        stdout=subprocess.PIPE, stderr=log, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, (folder / "log").read_text()
            yield json.loads(line), process
        finally:
            process.terminate()


@contextlib.contextmanager
def serving(folder: Path, **more: str) -> Iterator[Live]:
    """A service on a free port, until the block ends."""
    env = service_environment(folder / "data", **more)
    with ThreadPoolExecutor(1) as thread:  # the caller's may have a loop already
        keys = thread.submit(lambda: asyncio.run(_open_accounts(Settings(data_dir=folder / "data")))).result()
    with launched(folder, env) as (told, process):
        yield Live(told["address"], *keys, folder, process)


class _Samples(html.parser.HTMLParser):
    """Reads the code in `<div data-sample><div data-tab>…<code>`."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, dict[str, str]] = {}
        self._sample = self._tab = ""
        self._depth = self._inside = 0
        self._reads = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "div":
            self._depth += 1
        if sample := given.get("data-sample"):
            self._sample, self._inside = sample, self._depth
            assert sample not in self.found, f"{sample} is shown twice"
            self.found[sample] = {}
        self._tab = given.get("data-tab") or self._tab
        if tag == "code" and self._sample:
            self._reads = True
            self.found[self._sample][self._tab] = ""

    def handle_endtag(self, tag: str) -> None:
        self._reads &= tag != "code"
        if tag == "div":
            if self._depth == self._inside:
                self._sample = self._tab = ""
            self._depth -= 1

    def handle_data(self, data: str) -> None:
        if self._reads:
            self.found[self._sample][self._tab] += data


def docs(address: str) -> dict[str, dict[str, str]]:
    """Every sample of `/docs`: by name, then by language (`curl`, `ts`, `py`)."""
    reader = _Samples()
    reader.feed(fetch(f"{address}/docs"))
    assert all(text.strip() for sample in reader.found.values() for text in sample.values())
    return reader.found


def blocks(text: str) -> list[str]:
    """The shell samples of a Markdown text."""
    found = re.findall(r"^( *)```sh\n(.*?)^ *```$", text, re.M | re.S)
    return ["".join(line.removeprefix(pad) for line in code.splitlines(keepends=True)) for pad, code in found]


@contextlib.contextmanager
def receiver() -> Iterator[tuple[str, list[bytes]]]:
    """A webhook's address, and the bodies that came to it."""
    arrived: list[bytes] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            arrived.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/webhook", arrived
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
