"""A real `pixeldojo serve` in a process of its own, pinned to one core, over a throw-away data folder."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CORES = sorted(os.sched_getaffinity(0))
PIXELDOJO = [sys.executable, "-m", "pixeldojo"]


@dataclass(frozen=True)
class Service:
    """A running service: where it is, a key with plenty of credits, and how long it took to be ready."""

    address: tuple[str, int]
    key: str
    process: subprocess.Popen[bytes]
    data_dir: Path
    ready_s: float

    @property
    def rss_mb(self) -> float:
        """The resident memory of the service's own process, in MB."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        return float("nan")


@contextlib.contextmanager
def running(**settings: str) -> Iterator[Service]:
    """A service with these settings (`roles="api"` → `PIXELDOJO_ROLES`); without a worker it gets one core."""
    with tempfile.TemporaryDirectory(prefix="pixeldojo-bench-") as folder:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PIXELDOJO_")}
        environment |= {"PIXELDOJO_DATA_DIR": folder, "PIXELDOJO_TESTCARD": "1", "PIXELDOJO_PORT": "0"}
        environment["PIXELDOJO_RATE_LIMIT"] = "off"  # a section may ask for one
        environment |= {f"PIXELDOJO_{name.upper()}": value for name, value in settings.items()}

        def tool(*words: str) -> dict[str, str]:
            done = subprocess.run([*PIXELDOJO, *words, "--json"], env=environment, check=True, capture_output=True)
            return dict(json.loads(done.stdout))

        key = tool("keys", "create")["key"]
        tool("credits", "grant", "1000000000")
        started = time.perf_counter()
        process = subprocess.Popen(
            [*PIXELDOJO, "serve"],
            env=environment,
            stdout=subprocess.DEVNULL,
            preexec_fn=lambda: (
                os.sched_setaffinity(0, {CORES[0]})
                if "worker" not in settings.get("roles", "worker")
                else os.sched_setaffinity(0, CORES)
            ),
        )
        try:
            address = _wait(Path(folder) / "service.json", process)
            yield Service(address, key, process, Path(folder), time.perf_counter() - started)
        finally:
            process.terminate()
            process.wait(20)


@contextlib.contextmanager
def echo() -> Iterator[tuple[str, int]]:
    """The address of the yardstick server (`bench.echo`), on the same core as a measured service."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.echo"],
        stdout=subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, {CORES[0]}),
    )
    assert process.stdout is not None
    try:
        yield "127.0.0.1", int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()


def _wait(notice: Path, process: subprocess.Popen[bytes]) -> tuple[str, int]:
    """Until /readyz answers 200."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError, ValueError):
            url = json.loads(notice.read_text())["address"]
            with urllib.request.urlopen(url + "/readyz", timeout=5):
                host, port = url.removeprefix("http://").rsplit(":", 1)
                return host, int(port)
        time.sleep(0.01)
    raise RuntimeError("the service did not become ready")
