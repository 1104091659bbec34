"""Runs an engine in a child process, one job at a time, and turns whatever happens into a result or a `Fault`.

The child is started when it is needed, killed when it overruns its time, and replaced after a crash.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import structlog

from pixeldojo import settings
from pixeldojo.catalogue.card import EngineSpec
from pixeldojo.engines.engine import Output

_LOAD_TIMEOUT_S = 120.0
_LINE_BYTES = 16 * 2**20
_PRINTED_BYTES = 8 * 1024
_PREVIEWS = ("image/webp", "image/png", "image/jpeg")
_ENDINGS = ("done", "refused", "cancelled", "crashed")  # after any other message nobody knows what the child is doing


class Fault(Exception):
    """An attempt came to nothing. `permanent`: another attempt would end the same way."""

    def __init__(self, code: str, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.code, self.message, self.permanent = code, message, permanent


class Preview(NamedTuple):
    """How a result will look: a small encoded picture."""

    content_type: str
    picture: bytes


class _Message(msgspec.Struct, rename="camel"):
    say: str
    fraction: float = 0.0
    picture: bytes = b""
    content_type: str = ""
    outputs: list[Output] = []
    seconds: float = 0.0
    message: str = ""
    trace: str = ""
    detail: str = ""


_log = structlog.get_logger()
_decode = msgspec.json.Decoder(_Message).decode


class ChildRunner:
    """One slot for jobs of one model. `folder` is its own: the engine writes results there."""

    def __init__(self, spec: EngineSpec, *, folder: Path) -> None:
        self._spec = spec
        self.folder = folder
        self._process: asyncio.subprocess.Process | None = None
        self._overhearing: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The child's process id, while there is one."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start the child and wait until its engine is loaded. Raises `Fault`."""
        if self._process is not None and self._process.returncode is None:
            return
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "pixeldojo.engines.child", self._spec.family,
                msgspec.json.encode(self._spec.options).decode(),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                limit=_LINE_BYTES,
                env=settings.child_environment(),
                start_new_session=True,  # Ctrl-C is for the service, which then ends its children itself
            )  # fmt: skip
        except OSError as error:  # no memory or no process left, say
            raise Fault("engine_failed", f"The model's process could not be started ({error.strerror})") from error
        assert self._process.stderr is not None
        self._overhearing = asyncio.create_task(self._overhear(self._process.stderr))
        try:
            async with asyncio.timeout(_LOAD_TIMEOUT_S):
                if (message := await self._hear()).say != "ready":
                    raise Fault("engine_failed", f"The model did not load ({message.message or message.say[:40]})")
        except TimeoutError:
            await self.stop()
            raise Fault("engine_failed", "The model did not load in time") from None
        except BaseException:
            await self.stop()
            raise

    async def _overhear(self, errors: asyncio.StreamReader) -> None:
        """What an engine and its libraries print may hold prompts: it is for who debugs, and for no usual log."""
        while printed := await errors.read(_PRINTED_BYTES):
            _log.debug("engine_prints", family=self._spec.family, text=printed.decode(errors="replace"))

    async def generate(
        self,
        params: Mapping[str, Any],
        inputs: Mapping[str, Path],
        *,
        on_progress: Callable[[float], None],
        on_preview: Callable[[Preview], None],
    ) -> tuple[list[Output], float]:
        """Run one job: its outputs (files in `folder`) and the engine's own seconds. Raises `Fault`.

        When this is cancelled, the child is killed: nobody waits for its result.
        """
        await self.start()
        self.clear()
        try:
            self._tell(
                op="run",
                params=params,
                inputs={name: str(path) for name, path in inputs.items()},
                outDir=str(self.folder),
            )
            async with asyncio.timeout(self._spec.timeout_s):
                while (message := await self._hear()).say in ("progress", "preview"):
                    if message.say == "progress":
                        on_progress(message.fraction)
                    elif message.content_type in _PREVIEWS:
                        on_preview(Preview(message.content_type, message.picture))
            if message.say not in _ENDINGS:
                raise Fault("engine_failed", f"The model failed ({message.say[:40]})")
        except TimeoutError:
            await self.stop()
            limit = f"{self._spec.timeout_s:g} s"
            raise Fault("timeout", f"The model did not finish within its time limit of {limit}") from None
        except BaseException:
            await self.stop()
            raise
        return self._result(message)

    def cancel(self) -> None:
        """Ask the engine to stop its job; it answers when it comes to it."""
        if self._process is not None and self._process.returncode is None:
            self._tell(op="cancel")

    def _result(self, message: _Message) -> tuple[list[Output], float]:
        match message.say:
            case "done":
                return message.outputs, message.seconds
            case "refused":
                raise Fault("validation_error", message.message, permanent=True)
            case "cancelled":
                raise Fault("cancelled", "The job was cancelled", permanent=True)
        raise Fault("engine_failed", f"The model failed ({message.message or message.say})")

    def _tell(self, **fields: Any) -> None:
        assert self._process is not None and self._process.stdin is not None
        # The process may be gone and its end not yet noticed; then `_hear` comes to know how it ended.
        with contextlib.suppress(RuntimeError, OSError):
            self._process.stdin.write(msgspec.json.encode(fields) + b"\n")

    async def _hear(self) -> _Message:
        assert self._process is not None and self._process.stdout is not None
        try:
            line = await self._process.stdout.readline()
            if line:
                return self._heard(_decode(line))
        except (ValueError, msgspec.MsgspecError) as error:  # too long, not UTF-8, not JSON, not a message
            raise Fault("engine_failed", "The model's process answered with something else than a message") from error
        _kill(self._process)  # helpers that outlive it hold its pipes, and `wait` waits for their end
        raise Fault("engine_failed", f"The model's process {_ending(await self._process.wait())}")

    def _heard(self, message: _Message) -> _Message:
        if message.say == "crashed":
            _log.error("engine_crashed", family=self._spec.family, error=message.message, trace=message.trace)
            _log.debug("engine_crash_detail", detail=message.detail)
        return message

    def clear(self) -> None:
        """Empty the folder."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in self.folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    async def stop(self) -> None:
        """End the child at once. The next job starts another."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:  # of one that ended long ago, the number may be another's by now
            _kill(process)
        transport = process._transport  # type: ignore[attr-defined]
        for number in range(3):  # `wait` would wait for the end of what nobody reads any more
            if (pipe := transport.get_pipe_transport(number)) is not None:
                pipe.close()
        await process.wait()
        transport.close()


def _kill(process: asyncio.subprocess.Process) -> None:
    """End the process with its whole group: an engine may have started helpers of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _ending(code: int) -> str:
    if code < 0:
        name = signal.Signals(-code).name if -code in {s.value for s in signal.Signals} else str(-code)
        return f"was killed ({name})"
    return f"ended with status {code}"
