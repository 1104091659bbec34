"""The process an engine lives in: `python -m pixeldojo.engines.child FAMILY OPTIONS`.

It speaks JSON lines over its standard input and output, and has no other line to the service.

    in   {"op": "run", "params": …, "inputs": {name: path}, "outDir": path}   {"op": "cancel"}
    out  {"say": "ready"}   {"say": "progress", "fraction": 0.5}
         {"say": "preview", "contentType": "image/webp", "picture": base64}
         {"say": "done", "outputs": […], "seconds": 0.3}
         {"say": "refused", "message": …}   {"say": "cancelled"}
         {"say": "crashed", "message": "ValueError", "trace": …, "detail": …}

End of input means that the service is gone: the process ends at once, even in the middle of a job.
"""

import contextlib
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from pixeldojo.engines import engine as engines

_PROGRESS_EVERY_S = 0.05
_PREVIEW_EVERY_S = 0.5
_PREVIEW_BYTES = 64 * 1024


class _Line:
    """Sends messages to the service; safe from any thread."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._lock = threading.Lock()

    def say(self, what: str, **fields: Any) -> None:
        with self._lock:
            try:
                self._out.write(msgspec.json.encode({"say": what, **fields}) + b"\n")
                self._out.flush()
            except OSError:  # nobody listens any more: the same as the end of input, seen first
                os._exit(0)


class _Context:
    """What the engine sees of the world during one job."""

    def __init__(self, line: _Line, inputs: Mapping[str, Path], cancel: threading.Event) -> None:
        self.inputs = inputs
        self._line, self._cancel = line, cancel
        self._next_s = 0.0
        self._preview_s = time.monotonic() + _PREVIEW_EVERY_S

    def progress(self, fraction: float) -> None:
        now = time.monotonic()
        if now >= self._next_s:
            self._next_s = now + _PROGRESS_EVERY_S
            self._line.say("progress", fraction=min(max(float(fraction), 0.0), 1.0))

    def preview_due(self) -> bool:
        return time.monotonic() >= self._preview_s

    def preview(self, picture: bytes, content_type: str) -> None:
        self._preview_s = time.monotonic() + _PREVIEW_EVERY_S
        if len(picture) <= _PREVIEW_BYTES:
            self._line.say("preview", picture=picture, contentType=content_type)

    def cancelled(self) -> bool:
        return self._cancel.is_set()


def _listen(source: BinaryIO, jobs: "queue.SimpleQueue[dict[str, Any]]", cancel: threading.Event) -> None:
    for line in source:
        message = msgspec.json.decode(line)
        if message["op"] == "run":
            cancel.clear()
            jobs.put(message)
        elif message["op"] == "cancel":
            cancel.set()
    os._exit(0)


def _work(engine: engines.Engine, message: dict[str, Any], line: _Line, cancel: threading.Event) -> None:
    inputs = {name: Path(path) for name, path in message["inputs"].items()}
    started = time.perf_counter()
    try:
        outputs = engine.generate(message["params"], Path(message["outDir"]), _Context(line, inputs, cancel))
        line.say("done", outputs=outputs, seconds=time.perf_counter() - started)
    except engines.Refusal as refusal:
        line.say("refused", message=str(refusal))
    except engines.Cancelled:
        line.say("cancelled")
    except Exception as error:  # the edge of the process: whatever it was, it ends this attempt only
        _tell_crash(line, error)


def _tell_crash(line: _Line, error: BaseException) -> None:
    """Where it broke, apart from what the error says: that may hold the prompt, which does not belong in logs."""
    frames = traceback.extract_tb(error.__traceback__)
    trace = " > ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames)
    line.say("crashed", message=type(error).__name__, trace=trace, detail=str(error)[:2000])


def _give_way() -> None:
    """Let the service go first where both want a processor: waking this process must not stop that one."""
    os.nice(5)
    if hasattr(os, "SCHED_BATCH"):
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def main() -> None:
    """Load the engine named on the command line and serve jobs until the input ends."""
    family, options = sys.argv[1], msgspec.json.decode(sys.argv[2])
    _give_way()
    # Libraries may print: keep the line to the service on a descriptor of its own.
    line = _Line(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)
    jobs: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    cancel = threading.Event()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, jobs, cancel), daemon=True).start()
    try:
        engine = engines.build(family, options)
        engine.load()
    except BaseException as error:  # the usual way out would end in an abort: the listener holds standard input
        _tell_crash(line, error)
        os._exit(1)
    line.say("ready")
    while True:
        _work(engine, jobs.get(), line, cancel)


if __name__ == "__main__":
    main()
