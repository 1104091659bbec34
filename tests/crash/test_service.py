"""The whole service as real processes that are killed and stopped while they work, and started again.

Whatever happens to it, every accepted job ends, is paid for once or refunded once, and nothing is left behind.
"""

import asyncio
import concurrent.futures
import contextlib
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from crash.conftest import GRANTED, alive, engine_pids, open_account, waited
from pixeldojo import app, clock, ids
from pixeldojo.accounts import service as accounts
from pixeldojo.catalogue.card import read_all
from pixeldojo.cli import serve_command
from pixeldojo.db import Row, Tx
from pixeldojo.db.open import open_database
from pixeldojo.janitor import Janitor
from pixeldojo.ledger import service as ledger
from pixeldojo.settings import Settings

_RUN = "/api/v1/models/testcard/run"
_DAY_MS = 24 * 3_600_000
_SOURCE = Path(app.__file__).parents[1]


@dataclass
class _Books:
    """What the database says once nothing runs."""

    jobs: dict[str, Row]  # id → (status, attempt, cost, refunded)
    entries: Counter[tuple[str, str]]  # (job, kind)
    balance: int
    wrong: list[tuple[str, int, int]]


def _read_books(tx: Tx, account_id: str) -> _Books:
    rows = tx.all("SELECT id, status, attempt, cost_milli, refunded_milli FROM jobs")
    entries = tx.all("SELECT job_id, kind FROM entries WHERE job_id IS NOT NULL")
    return _Books(
        jobs={row[0]: row[1:] for row in rows},
        entries=Counter((job_id, kind) for job_id, kind in entries),
        balance=ledger.balance(tx, account_id=account_id),
        wrong=ledger.audit(tx),
    )


class Service:
    """`pixeldojo serve` on one data folder: started, killed, and started again."""

    def __init__(self, folder: Path, **more: str) -> None:
        self.folder = folder
        self.models = folder.parent / "models"
        self.models.mkdir()
        for card in read_all(None):  # no real weights: they would only take time
            engine = msgspec.structs.replace(card.engine, family="testcard", options={})
            data = msgspec.json.encode(msgspec.structs.replace(card, engine=engine))
            (self.models / f"{card.api_id}.json").write_bytes(data)
        wanted = {
            "DATA_DIR": str(folder), "MODELS_DIR": str(self.models), "TESTCARD": "1", "RATE_LIMIT": "off",
            "LEASE_S": "1", "JANITOR_INTERVAL_S": "0.2", "LOG_FORMAT": "json", **more,
        }  # fmt: skip
        outside = {name: value for name, value in os.environ.items() if not name.startswith("PIXELDOJO_")}
        self.environment = outside | {"PYTHONPATH": str(_SOURCE)} | {f"PIXELDOJO_{k}": v for k, v in wanted.items()}
        self.process: subprocess.Popen[bytes] | None = None
        self.open_files: int | None = None  # a limit to start it under
        self.address = ""
        self.account_id, self.key = self.ask_database(self._open)
        self.headers = {"authorization": f"Bearer {self.key}"}

    @staticmethod
    def _open(tx: Tx) -> tuple[str, str]:
        caller = open_account(tx)
        return caller.account_id, accounts.create_key(tx, account_id=caller.account_id, name="http")[1]

    def ask_database(self, fn: Callable[..., Any], *args: Any) -> Any:
        async def ask() -> Any:
            db = open_database(f"sqlite:///{self.folder}/pixeldojo.db")
            try:
                await db.migrate()
                return await db.write(fn, *args)
            finally:
                await db.close()

        return asyncio.run(ask())

    def books(self) -> _Books:
        found: _Books = self.ask_database(_read_books, self.account_id)
        return found

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def launch(self) -> None:
        """Start it and don't wait."""
        command = [sys.executable, "-m", "pixeldojo", "serve", "--port", "0", "--json"]
        self.out = self.folder.parent / f"out-{ids.new('run')}"
        with self.out.open("wb") as out, self.out.with_suffix(".log").open("wb") as log:
            self.process = subprocess.Popen(
                command, env=self.environment, stdout=out, stderr=log, cwd=self.folder, preexec_fn=self._narrow
            )

    def _narrow(self) -> None:
        if self.open_files is not None:
            _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (self.open_files, most))

    def start(self) -> None:
        self.launch()

        def told() -> Any:
            assert self.process is not None
            assert self.process.poll() is None, self.log
            text = self.out.read_bytes()
            return msgspec.json.decode(text) if text.endswith(b"\n") else None

        self.address = waited(told)["address"]

    @property
    def log(self) -> str:
        return self.out.with_suffix(".log").read_text(errors="replace")

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def ended(self, *, within_s: float = 10.0) -> int:
        """The exit status, once it ended and all its engines with it."""
        assert self.process is not None
        return self.process.wait(within_s)

    def kill(self) -> None:
        pids = engine_pids(self.pid)
        self.signal(signal.SIGKILL)
        assert self.ended() == -signal.SIGKILL
        waited(lambda: not any(alive(pid) for pid in pids), patience_s=5)

    def stop(self, *, within_s: float = 10.0) -> float:
        """End it politely; how long it took."""
        pids = engine_pids(self.pid)
        began = time.monotonic()
        self.signal(signal.SIGTERM)
        assert self.ended(within_s=within_s) == 0, self.log
        took = time.monotonic() - began
        assert not any(alive(pid) for pid in pids)
        assert not (self.folder / "service.json").exists()
        assert list((self.folder / "work").iterdir()) == []
        return took

    def client(self) -> httpx2.Client:
        return httpx2.Client(base_url=self.address, headers=self.headers, timeout=10)

    def submit(self, client: httpx2.Client, prompt: str = "bars", **more: Any) -> str:
        response = client.post(_RUN, json={"prompt": prompt, **more})
        assert response.status_code == 202, response.text
        job_id: str = response.json()["jobId"]
        return job_id

    def job(self, client: httpx2.Client, job_id: str) -> Any:
        response = client.get(f"/api/v1/jobs/{job_id}")
        assert response.status_code == 200, response.text
        return response.json()

    def all_ended(self, client: httpx2.Client, wanted: list[str], *, patience_s: float = 30.0) -> list[Any]:
        """Every one of these jobs, completed or failed."""
        found: dict[str, Any] = {}

        def look() -> bool:
            for job_id in wanted:
                if job_id not in found and (job := self.job(client, job_id))["completedAt"]:
                    found[job_id] = job
            return len(found) == len(set(wanted))

        waited(look, patience_s=patience_s, pause_s=0.05)
        return [found[job_id] for job_id in wanted]

    def check(self, accepted: list[str], jobs: list[Any]) -> None:
        """Books and files say the same as the answers, and no job came from nowhere. The service runs."""
        with httpx2.Client(timeout=10) as stranger:
            for job in jobs:
                for asset in job.get("assets", []):
                    picture = stranger.get(asset["url"])
                    assert picture.status_code == 200
                    assert len(picture.content) == asset["bytes"]
                    assert picture.content.startswith(b"\x89PNG")
        self.stop()
        books = self.books()
        assert books.wrong == []
        assert set(books.jobs) == set(accepted)
        paid = 0
        for job_id, (status, attempt, cost, refunded) in books.jobs.items():
            assert status in ("completed", "failed")
            assert 1 <= attempt <= 3
            assert books.entries[job_id, "charge"] == 1
            assert books.entries[job_id, "refund"] == (1 if status == "failed" else 0)
            assert refunded == (cost if status == "failed" else 0)
            paid += cost - refunded
        assert books.balance == GRANTED - paid
        completed = {job["jobId"] for job in jobs if job["status"] == "completed"}
        kept = {path.name for path in (self.folder / "assets").iterdir() if any(path.iterdir())}
        assert completed <= kept


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service that is not started yet; whatever is left of it ends with the test."""
    folder = tmp_path / "data"
    folder.mkdir()
    service = Service(folder)
    yield service
    if service.process is not None and service.process.poll() is None:
        service.process.kill()
        service.process.wait()


def _sweep_a_day_later(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """After their time every file is gone, those of failed attempts too."""
    now = clock.now_ms()
    monkeypatch.setattr(clock, "now_ms", lambda: now + _DAY_MS + 60_000)

    async def sweep() -> None:
        settings = Settings(data_dir=service.folder, testcard=True, roles=("janitor",))
        async with app.open_house(settings) as house:
            while await Janitor(house).step():
                pass

    asyncio.run(sweep())
    assert list((service.folder / "assets").iterdir()) == []


# --- killed


def test_a_killed_service_loses_nothing(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    service.start()
    with service.client() as client:
        done = [service.submit(client) for _ in range(3)]
        service.all_ended(client, done)
        slow = [service.submit(client, "!slow") for _ in range(2)]
        quick = [service.submit(client, num_outputs=1 + n % 4) for n in range(12)]
        bad = [service.submit(client, "!refuse"), service.submit(client, "!crash")]
        waited(lambda: sum(service.job(client, job_id)["status"] == "processing" for job_id in slow) == 2)
        pids = engine_pids(service.pid)
        assert pids
    service.kill()
    assert not any(alive(pid) for pid in pids)
    assert (service.folder / "service.json").exists(), "a killed service can't remove its notice"
    service.start()
    accepted = [*done, *slow, *quick, *bad]
    with service.client() as client:
        jobs = service.all_ended(client, accepted)
        assert [job["status"] for job in jobs] == ["completed"] * (len(accepted) - 2) + ["failed"] * 2
    service.check(accepted, jobs)
    _sweep_a_day_later(service, monkeypatch)


def test_a_job_whose_service_is_killed_every_time_is_refunded(service: Service) -> None:
    job_id = ""
    for attempt in range(1, 4):
        service.start()
        with service.client() as client:
            job_id = job_id or service.submit(client, "!hang")
        waited(lambda: service.books().jobs[job_id][:2] == ("processing", attempt), pause_s=0.1)  # noqa: B023
        service.kill()
    service.start()
    with service.client() as client:
        (job,) = service.all_ended(client, [job_id])
        assert (job["status"], job["error"]["code"]) == ("failed", "worker_lost")
        assert service.all_ended(client, [service.submit(client)])[0]["status"] == "completed"
    service.stop()
    books = service.books()
    assert books.wrong == []
    assert books.balance == GRANTED - 1_000


# --- stopped


def test_a_stop_hands_back_even_a_job_that_hangs(service: Service) -> None:
    service.start()
    with service.client() as client:
        hanging = [service.submit(client, "!hang") for _ in range(2)]
        waiting = [service.submit(client) for _ in range(3)]
        waited(lambda: all(service.job(client, job_id)["status"] == "processing" for job_id in hanging))
        assert service.stop() < 3
    books = service.books()
    assert {books.jobs[job_id][:2] for job_id in [*hanging, *waiting]} == {("pending", 0)}
    assert books.wrong == []


def test_a_second_signal_does_no_harm(service: Service) -> None:
    service.start()
    with service.client() as client:
        job_id = service.submit(client, "!hang")
        waited(lambda: service.job(client, job_id)["status"] == "processing")
        pids = engine_pids(service.pid)
    service.signal(signal.SIGTERM)
    time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        service.signal(signal.SIGTERM)
    assert service.ended() == 0, service.log
    assert not any(alive(pid) for pid in pids)
    assert service.books().jobs[job_id][:2] == ("pending", 0)


def test_a_stop_waits_for_nobody_who_waits(service: Service) -> None:
    """Listeners and waiting submits are let go at once; they ask again, of whoever serves then."""
    service.start()
    with service.client() as client, concurrent.futures.ThreadPoolExecutor() as pool:
        job_id = service.submit(client, "!hang")
        waited(lambda: service.job(client, job_id)["status"] == "processing")
        waiting = pool.submit(client.post, _RUN, json={"prompt": "!hang"}, headers={"prefer": "wait=30"})
        with client.stream("GET", f"/api/v1/jobs/{job_id}/events") as events:
            lines = events.iter_lines()
            assert any(line.startswith("event: ") for line in lines)
            waited(lambda: len(service.books().jobs) == 2)
            assert service.stop() < 3
            assert not any(line.startswith("event: completed") for line in lines)  # and the stream has an end
        assert waiting.result(5).status_code == 202
    assert "Traceback" not in service.log


def test_room_for_many_connections_is_made(service: Service) -> None:
    service.open_files = 256
    service.start()
    limits = Path(f"/proc/{service.pid}/limits").read_text()
    service.stop()
    (now, most) = re.search(r"Max open files +(\d+) +(\d+)", limits).groups()  # type: ignore[union-attr]
    assert int(now) == min(65_536, int(most)) > 256


@pytest.mark.parametrize("wait_s", [0.3, 0.5])
def test_a_stop_during_the_start_leaves_nothing(service: Service, wait_s: float) -> None:
    service.launch()
    time.sleep(wait_s)
    pids = engine_pids(service.pid)
    service.signal(signal.SIGTERM)
    # Before the program has said what a signal means to it, the system's own meaning holds.
    assert service.ended() in (0, -signal.SIGTERM), service.log
    assert "Traceback" not in service.log
    waited(lambda: not any(alive(pid) for pid in pids), patience_s=5)
    service.start()
    with service.client() as client:
        assert service.all_ended(client, [service.submit(client)])[0]["status"] == "completed"
    service.stop()


def _grow(service: Service, job: Any, size: int) -> None:
    """Make the job's picture large enough that its download takes a while."""
    path = service.folder / "assets" / job["jobId"] / "0.png"
    with path.open("r+b") as file:
        file.truncate(size)


def _slow_download(url: str) -> socket.socket:
    """A connection that has asked for `url` and reads next to nothing."""
    parts = httpx2.URL(url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(10)
    connection.connect((parts.host, parts.port))
    connection.sendall(f"GET {parts.raw_path.decode()} HTTP/1.1\r\nHost: {parts.host}\r\n\r\n".encode())
    assert connection.recv(12) == b"HTTP/1.1 200"
    return connection


@pytest.mark.parametrize("client_reads_on", [True, pytest.param(False, marks=pytest.mark.long)])
def test_a_stop_during_a_download(service: Service, client_reads_on: bool) -> None:
    """A client that reads on gets its file; one that has stopped reading holds the service up for seconds only."""
    size = 32 * 2**20
    service.start()
    with service.client() as client:
        (job,) = service.all_ended(client, [service.submit(client)])
        _grow(service, job, size)
        with _slow_download(job["output"]["image"]) as connection:
            service.signal(signal.SIGTERM)
            got = 12
            while client_reads_on and (part := connection.recv(2**20)):
                got += len(part)
            assert service.ended(within_s=9) == 0, service.log
            assert not client_reads_on or got > size


def test_the_address_is_told_even_while_the_database_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def up(_: Settings, *, on_up: Callable[[str], None]) -> None:
        on_up("http://127.0.0.1:1")

    monkeypatch.setattr(app, "serve", up)
    wanted = Settings(database_url=f"sqlite:///{tmp_path}")  # a folder: it can't be opened
    asyncio.run(serve_command._serve(wanted, serve_command._Stopper(), as_json=True))
    assert msgspec.json.decode(capsys.readouterr().out) == {"address": "http://127.0.0.1:1", "key": None}
