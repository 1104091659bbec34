"""The service under attack: `pixeldojo serve` by role on one data folder, each process started again when it ends.

With it come the levers: signals, the clocks of the processes, the disk their folder lies on.
"""

import asyncio
import contextlib
import json
import mmap
import os
import random
import resource
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import psutil  # type: ignore[import-untyped]

import pixeldojo
from pixeldojo.catalogue.card import read_all

ROLES = ("api", "worker", "courier", "janitor")
RETENTION_S = 6 * 3600
PATIENCE_S = 60.0
_MARK = "CHAOS_SITE"  # in the environment of every process, and so of every orphan
_SCHEDULE = ",".join(map(str, [0, 0.2, 0.5, 1, 1, 2, 2, *[3] * 30]))


def free_port() -> int:
    """A port that nobody listens on, and none of those that the system gives to connections: while the service is down,
    such a port could go to one of its own clients, which would then be connected to itself."""
    for port in random.sample(range(20_000, 32_000), 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise OSError("no port is free")


class Clocks:
    """The clocks of the processes, one for each role and one for the process with all of them; in ms ahead."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(b"\0" * 8 * (len(ROLES) + 1))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self.most_ms = 0

    def set(self, ahead_ms: int, *, slot: int | None = None) -> None:
        """Move every clock, or one."""
        self.most_ms = max(self.most_ms, ahead_ms)
        for each in range(len(ROLES) + 1) if slot is None else (slot,):
            struct.pack_into("<q", self._map, 8 * each, ahead_ms)

    def get(self, slot: int = 0) -> int:
        """How far a clock is ahead."""
        return int(struct.unpack_from("<q", self._map, 8 * slot)[0])


class Process:
    """One process of the service, from the nursery's point of view."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.up = asyncio.Event()
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()


class Nursery:
    """Starts the processes: see `nursery.py`, which runs beside us."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.pid = process.pid
        self._process = process
        self._living: dict[int, Process] = {}
        self._starting: dict[str, asyncio.Future[Process]] = {}
        self._task = asyncio.create_task(self._hear())

    @classmethod
    async def open(cls, clocks: Path, environment: Mapping[str, str]) -> "Nursery":
        """A nursery whose children's clocks are told by the file `clocks`."""
        # -P: what lies beside the program is not for the service to import
        command = [sys.executable, "-P", str(Path(__file__).parent / "nursery.py"), str(clocks)]
        pipe = asyncio.subprocess.PIPE
        return cls(await asyncio.create_subprocess_exec(*command, env=environment, stdin=pipe, stdout=pipe))

    async def start(self, name: str, **wanted: Any) -> Process:
        """Start a process; its name must be its own until it has started."""
        if self._task.done():
            raise RuntimeError(f"the nursery has ended with {self._process.returncode}")
        self._starting[name] = asyncio.get_running_loop().create_future()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"name": name} | wanted).encode() + b"\n")
        return await self._starting[name]

    async def close(self) -> None:
        """End it, and with it every process that it started."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        await self._task

    async def _hear(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            told = json.loads(line)
            if "started" in told:
                process = self._living[told["pid"]] = Process(told["pid"])
                self._starting.pop(told["started"]).set_result(process)
            elif "up" in told and told["up"] in self._living:
                self._living[told["up"]].up.set()
            elif "ended" in told:
                self._living.pop(told["ended"]).ended.set_result(told["code"])
        for waiting in self._starting.values():
            waiting.set_exception(RuntimeError("the nursery has ended"))


class Member:
    """One process of the service, started again whenever it ends."""

    def __init__(self, site: "Site", name: str, port: int) -> None:
        self.site, self.name, self.port = site, name, port
        self.slot = ROLES.index(name) if name in ROLES else len(ROLES)
        self.process: Process | None = None
        self.leaving = False
        self.task = asyncio.create_task(self._keep())

    @property
    def pid(self) -> int | None:
        """The process id, while it runs."""
        return None if self.process is None or self.process.ended.done() else self.process.pid

    @property
    def is_up(self) -> bool:
        """Whether it runs and has said that it answers."""
        return self.process is not None and not self.process.ended.done() and self.process.up.is_set()

    async def up(self) -> None:
        """Wait until it answers."""
        while not self.is_up:  # noqa: ASYNC110 - of this process or of one that follows it
            await asyncio.sleep(0.02)

    def engines(self) -> list[int]:
        """The process ids of its engines."""
        found = []
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.pid).children(recursive=True) if self.pid else []:
                with contextlib.suppress(psutil.NoSuchProcess):
                    if "pixeldojo.engines.child" in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                        found.append(child.pid)
        return found

    def send(self, number: int) -> bool:
        """Send a signal; False when there is no process just now."""
        try:
            if self.pid is not None:
                os.kill(self.pid, number)
                return True
        except ProcessLookupError:  # it has just ended; we hear of it in a moment
            pass
        return False

    async def _keep(self) -> None:
        roles = ",".join(ROLES) if self.name == "all" else self.name
        site = self.site
        while not self.leaving:
            self.process = await site.nursery.start(
                self.name, slot=self.slot, arguments=["serve", "--port", str(self.port), "--json"],
                environment=site.environment | {"PIXELDOJO_ROLES": roles}, folder=str(site.folder),
                log=str(site.logs / f"{self.name}.log"),
            )  # fmt: skip
            code = await self.process.ended
            site.ends[self.name, code] += 1
            if code > 0:  # it could not start: the disk is full, the database away
                await asyncio.sleep(0.2)

    async def stop(self, number: int = signal.SIGTERM, *, within_s: float = 20) -> int:
        """End the process for good; its exit status."""
        self.leaving = True
        told: int | None = None
        async with asyncio.timeout(within_s):
            while not self.task.done():
                if self.pid != told and self.send(number):  # one that was just being started is told when it is there
                    told = self.pid
                await asyncio.wait([self.task], timeout=0.1)
        assert self.process is not None
        return self.process.ended.result()


@dataclass
class Site:
    """One data folder and the processes on it."""

    home: Path  # logs and clocks; never filled
    folder: Path  # what the service calls its data folder
    database: str
    clocks: Clocks
    nursery: Nursery
    environment: dict[str, str]
    mark: str
    disk: Path | None = None  # where a disk of its own is mounted
    members: dict[str, Member] = field(default_factory=dict)
    ends: Counter[tuple[str, int]] = field(default_factory=Counter)
    api_port: int = field(default_factory=free_port)

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    def open(self, names: tuple[str, ...]) -> None:
        """Start a process for each name: a role, or `all`."""
        for name in names:
            port = self.api_port if name in ("api", "all") else 0
            self.members[name] = Member(self, name, port)

    async def close(self, number: int = signal.SIGTERM) -> dict[str, int]:
        """End every process; the exit statuses."""
        members, self.members = self.members, {}
        codes = await asyncio.gather(*(member.stop(number) for member in members.values()))
        return dict(zip(members, codes, strict=True))

    async def up(self) -> None:
        """Wait until every process has started."""
        async with asyncio.timeout(PATIENCE_S):
            for member in self.members.values():
                await member.up()

    def alive(self) -> list[psutil.Process]:
        """Every process of the service, engines and orphans too."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid == self.nursery.pid or process.status() == psutil.STATUS_ZOMBIE:
                    continue
                if process.environ().get(_MARK) == self.mark:
                    found.append(process)
        return found

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """No process goes on until the block ends."""
        members = list(self.members.values())
        for member in members:
            member.send(signal.SIGSTOP)
        try:
            yield
        finally:
            for member in members:
                member.send(signal.SIGCONT)

    def limit_files(self, most: int | None) -> None:
        """No file of any process may grow beyond `most` bytes: what a quota does. None lifts it."""
        for process in [*self.alive(), *self.alive()]:  # twice: a process may start another meanwhile
            with contextlib.suppress(ProcessLookupError, psutil.Error):
                hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)[1]
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (hard if most is None else most, hard))

    @contextlib.contextmanager
    def full_disk(self) -> Iterator[None]:
        """The disk is full until the block ends: really, where there is a disk of its own."""
        if self.disk is None:
            self.limit_files(4096)
            try:
                yield
            finally:
                self.limit_files(None)
            return
        filler = self.disk / "filler"
        try:
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                usage = shutil.disk_usage(self.disk)
                os.posix_fallocate(file.fileno(), 0, max(usage.free - 65536, 4096))
                while file.write(b"\0" * 4096):
                    pass
            yield
        finally:
            filler.unlink(missing_ok=True)

    def log_lines(self) -> Iterator[dict[str, Any]]:
        """What the processes logged. What the engines print is left out."""
        for path in sorted(self.logs.glob("*.log")):
            for line in path.read_text(errors="replace").splitlines():
                try:
                    found = json.loads(line)
                except ValueError:
                    found = None
                if isinstance(found, dict) and "event" in found:
                    yield {"log": path.stem} | found


def _mounted(folder: Path) -> bool:
    if not sys.platform.startswith("linux") or os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    command = ["mount", "-t", "tmpfs", "-o", "size=512m", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _environment(home: Path, folder: Path, database_url: str, mark: str) -> dict[str, str]:
    models = home / "models"
    models.mkdir()
    for card in read_all(None):  # no real weights: they would only take time
        engine = msgspec.structs.replace(card.engine, family="testcard", options={}, timeout_s=3)
        data = msgspec.json.encode(msgspec.structs.replace(card, engine=engine))
        (models / f"{card.api_id}.json").write_bytes(data)
    wanted = {
        "DATA_DIR": str(folder), "DATABASE_URL": database_url, "MODELS_DIR": str(models), "TESTCARD": "1",
        "RATE_LIMIT": "off", "LEASE_S": "1", "JANITOR_INTERVAL_S": "0.3", "RETENTION_S": str(RETENTION_S),
        "ALLOW_NETWORKS": "127.0.0.0/8", "WEBHOOK_TIMEOUT_S": "1", "WEBHOOK_RETRY_SCHEDULE": _SCHEDULE,
        "LOG_FORMAT": "json", "LOG_LEVEL": "warning",
    }  # fmt: skip
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PIXELDOJO_")}
    more = {"PYTHONPATH": str(Path(pixeldojo.__file__).parents[1]), _MARK: mark}
    return outside | more | {f"PIXELDOJO_{name}": value for name, value in wanted.items()}


@contextlib.asynccontextmanager
async def opened(home: Path, *, database_url: str = "", own_disk: bool = True) -> AsyncIterator[Site]:
    """A site in `home`, with nothing running yet. Whatever runs at the end is killed."""
    (home / "logs").mkdir(parents=True)
    disk = home / "disk"
    disk.mkdir()
    mounted = own_disk and _mounted(disk)
    folder, mark = disk / "data", secrets.token_hex(8)
    folder.mkdir()
    clocks, environment = Clocks(home / "clocks"), _environment(home, folder, database_url, mark)
    site = Site(
        home=home, folder=folder, database=database_url or f"sqlite:///{folder}/pixeldojo.db", clocks=clocks,
        nursery=await Nursery.open(clocks.path, environment), environment=environment, mark=mark,
        disk=disk if mounted else None,
    )  # fmt: skip
    try:
        yield site
    finally:
        for member in site.members.values():
            member.task.cancel()
        await asyncio.gather(*(member.task for member in site.members.values()), return_exceptions=True)
        await site.nursery.close()
        for process in site.alive():
            with contextlib.suppress(psutil.Error):
                process.kill()
        if mounted:
            await asyncio.to_thread(subprocess.run, ["umount", "-l", str(disk)], check=False)
