"""The section of the embedded models: how long pictures take, and what the engine adds to its graphs' own time."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import psutil  # type: ignore[import-untyped]

from bench import load, sections, service

PROMPT = "a red apple"


class _Timed:
    """A session that adds up the processor time of its own calls."""

    def __init__(self, session: Any, spent: list[float]) -> None:
        self._session, self._spent = session, spent

    def run(self, outputs: None, inputs: dict[str, Any]) -> Any:
        started = time.thread_time()
        found = self._session.run(outputs, inputs)
        self._spent.append(time.thread_time() - started)
        return found


class _Deaf:
    """A context nobody listens at."""

    def __init__(self) -> None:
        self.inputs: dict[str, Path] = {}

    def progress(self, fraction: float) -> None:
        """Nobody."""

    def preview_due(self) -> bool:
        return False

    def preview(self, picture: bytes, content_type: str) -> None:
        """Nobody."""

    def cancelled(self) -> bool:
        return False


def _engine_params(**more: Any) -> dict[str, Any]:
    from pixeldojo.catalogue import card

    (mini,) = (each for each in card.read_all(None) if each.api_id == "dojo-mini")
    return mini.defaults | {"prompt": PROMPT, "seed": 1} | more


def _efficiency(*, rounds: int = 15) -> float:
    """The engine's processor time over that of its graph calls in the very same job, on one thread; the median."""
    from pixeldojo.engines.dojo import graphs
    from pixeldojo.engines.dojo.engine import DojoEngine

    spent: list[float] = []
    real = graphs.session
    with mock.patch.object(graphs, "session", lambda path: _Timed(real(path), spent)):
        engine = DojoEngine(threads=1)
        engine.load()
    params = _engine_params()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            spent.clear()
            started = time.process_time()
            engine.generate(params, Path(folder), _Deaf())
            found.append((time.process_time() - started) / sum(spent))
    return statistics.median(found)


def _load_s(*, rounds: int = 3) -> float:
    """From the start of an engine's process until it can take a job."""
    found = []
    for _ in range(rounds):
        started = time.perf_counter()
        command = [sys.executable, "-m", "pixeldojo.engines.child", "dojo", "{}"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None and process.stdin is not None
            assert b"ready" in process.stdout.readline()
            found.append(time.perf_counter() - started)
            process.stdin.close()
    return statistics.median(found)


def _peak_mb(s: service.Service, family: str) -> float:
    """The most memory that the engine process of a family has held, in MB."""
    for child in psutil.Process(s.process.pid).children(recursive=True):
        words = child.cmdline()
        if "pixeldojo.engines.child" in words and family in words:
            status = Path(f"/proc/{child.pid}/status").read_text()
            return int(status.partition("VmHWM:")[2].split()[0]) / 1024
    return float("nan")


async def embedded(*, rounds: int = 15) -> sections.Figures:
    """The embedded models: whole jobs over HTTP, what the service adds to the engine's own time, memory, loading."""
    with service.running() as s:
        line = await load.connect(*s.address)

        async def timed(model: str, count: int, **wanted: Any) -> tuple[list[float], list[float]]:
            """Seconds of so many jobs, and of those the engine's own; the first two only warm it up."""
            whole, own = [], []
            for number in range(count + 2):
                body = json.dumps(wanted | {"seed": number} if model != "dojo-upscale" else wanted).encode()
                started = time.perf_counter()
                job = await sections.whole_job(line, s.key, number, model=model, body=body, poll_s=0.002)
                if number >= 2:
                    whole.append(time.perf_counter() - started)
                    own.append(job["metrics"]["engineSeconds"])
            return whole, own

        whole, own = await timed("dojo-mini", rounds, prompt=PROMPT)
        four, _ = await timed("dojo-mini", 5, prompt=PROMPT, num_outputs=4)
        large, _ = await timed("dojo-mini", 5, prompt=PROMPT, size=1024)
        await timed("dojo-mini", 1, prompt=PROMPT, size=1024, num_outputs=4)
        painted = json.dumps({"prompt": PROMPT, "size": 256, "seed": 1, "background": "transparent"}).encode()
        job = await sections.whole_job(line, s.key, 0, model="dojo-mini", body=painted, poll_s=0.01)
        upscaled, _ = await timed("dojo-upscale", 5, image_url=job["output"]["image"], scale=4)
        clips, _ = await timed("dojo-motion", 3, prompt=PROMPT, duration=2, resolution=256)
        large_clips, _ = await timed("dojo-motion", 1, prompt=PROMPT, duration=2, resolution=512)
        line.close()
        figures = {
            "embedded_overhead": statistics.median(a / b for a, b in zip(whole, own, strict=True)),
            "image_s": statistics.median(whole),
            "image_engine_s": statistics.median(own),
            "image_4_s": statistics.median(four),
            "image_1024_s": statistics.median(large),
            "upscale_s": statistics.median(upscaled),
            "clip_s": statistics.median(clips),
            "clip_512_s": statistics.median(large_clips),
            "clip_rss_mb": _peak_mb(s, "dojo-motion"),
            "engine_rss_mb": _peak_mb(s, "dojo"),
        }
    return figures | {"engine_load_s": _load_s(), "ort_efficiency": _efficiency()}
