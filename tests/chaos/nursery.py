"""`python nursery.py CLOCKS`: forks `pixeldojo` processes from one that has imported everything already.

A start then takes a twentieth of the processor's time, so a storm spends it on work that can be interrupted. Each child
is a process like any other: its own environment, output, clock and end.

    in   {"name": "worker", "slot": 1, "arguments": ["serve", …], "environment": {…}, "folder": …, "log": …}
    out  {"started": "worker", "pid": 12}   {"up": 12}   {"ended": 12, "code": -9}

CLOCKS is a file of signed 64-bit milliseconds; the one at a child's slot is added to what the real clock says, and may
change while it runs. The program has one name for the time, `clock.now_ms`, and this replaces it.
"""

import contextlib
import gc
import importlib.util
import json
import mmap
import os
import selectors
import signal
import struct
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

from pixeldojo import clock
from pixeldojo.cli import main as cli

_NEEDED = ("uvloop", "psycopg", "pixeldojo.app", "pixeldojo.cli.serve_command")  # by a service


class Nursery:
    """Starts children as it is told, and tells of their first word and their end. Its own end is theirs."""

    def __init__(self, clocks: mmap.mmap) -> None:
        self._clocks = clocks
        self._children: dict[int, int] = {}  # the pipe each writes to, and its process id
        self._selector = selectors.DefaultSelector()
        self._asked = b""

    def serve(self) -> None:
        """Work until the input ends."""
        woken, wake = os.pipe()
        os.set_blocking(woken, False)
        os.set_blocking(wake, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        self._selector.register(0, selectors.EVENT_READ)
        self._selector.register(woken, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                data = os.read(key.fd, 65536)
                if key.fd == 0 and not data:
                    return
                if key.fd == 0:
                    self._hear(data)
                elif key.fd == woken:
                    self._bury()
                else:
                    self._relay(key.fd, data)

    def end(self) -> None:
        """Kill those that are left."""
        for pid in self._children.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _hear(self, data: bytes) -> None:
        *lines, self._asked = (self._asked + data).split(b"\n")
        for line in lines:
            wanted = json.loads(line)
            hears, says = os.pipe()
            pid = os.fork()
            if pid == 0:
                _live(wanted, says, self._clocks)
            os.close(says)
            self._children[hears] = pid
            self._selector.register(hears, selectors.EVENT_READ)
            _tell(started=wanted["name"], pid=pid)

    def _relay(self, hears: int, data: bytes) -> None:
        if data:
            _tell(up=self._children[hears])
        else:
            self._selector.unregister(hears)
            os.close(hears)
            del self._children[hears]

    def _bury(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            _tell(ended=pid, code=os.waitstatus_to_exitcode(status))


def _tell(**what: Any) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


def _live(wanted: dict[str, Any], says: int, clocks: mmap.mmap) -> NoReturn:
    """Be the child."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        log = os.open(wanted["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for source, target in ((os.open(os.devnull, os.O_RDONLY), 0), (says, 1), (log, 2)):
            os.dup2(source, target)
        os.closerange(3, 1024)
        os.environ.clear()
        os.environ.update(wanted["environment"])
        os.chdir(wanted["folder"])
        real, at = clock.now_ms, 8 * wanted["slot"]
        clock.now_ms = lambda: real() + int(struct.unpack_from("<q", clocks, at)[0])
        sys.argv = ["pixeldojo", *wanted["arguments"]]
        cli.main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    for name in _NEEDED:
        if importlib.util.find_spec(name) is not None:
            importlib.import_module(name)
    gc.freeze()
    with Path(sys.argv[1]).open("rb") as file:
        nursery = Nursery(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    try:
        nursery.serve()
    finally:
        nursery.end()
