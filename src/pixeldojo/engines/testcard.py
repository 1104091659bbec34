"""A test pattern in about a millisecond, for tests and benchmarks. It depends on nothing but its parameters.

The prompt can ask for trouble, so that tests see real processes fail in real ways: `!crash` ends the process,
`!kill` ends it as a system short of memory would, `!raise` raises, `!hang` never ends, `!refuse` refuses, `!slow`
takes two seconds with progress and previews, `!print` prints where a library would; and the outputs it tells of are
wrong: `!outside` lie elsewhere, `!missing` were not made, `!link` are links, `!odd` have no known type, `!nothing`
are none.
"""

import dataclasses
import os
import signal
import struct
import threading
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixeldojo.engines import engine

_SIZES = {"1:1": (256, 256), "4:3": (256, 192), "3:4": (192, 256), "16:9": (256, 144), "9:16": (144, 256)}
_BARS = 8


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, *, seed: int, note: bytes) -> bytes:
    """Colour bars chosen by the seed and the prompt, over a strip that spells the seed in black and white."""
    mixed = zlib.crc32(note, seed)
    palette = b"\0\0\0\xff\xff\xff" + b"".join(
        bytes(((mixed >> bar) * k & 0xFF) for k in (37, 101, 197)) for bar in range(_BARS)
    )
    bars = bytes(2 + x * _BARS // width for x in range(width))
    strip = bytes((seed >> (x * 32 // width)) & 1 for x in range(width))
    rows = (b"\0" + bars) * (height - 16) + (b"\0" + strip) * 16
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", header),
            _chunk(b"PLTE", palette),
            _chunk(b"IDAT", zlib.compress(rows, 1)),
            _chunk(b"IEND", b""),
        )
    )


def _spoilt(prompt: str, out_dir: Path, outputs: list[engine.Output]) -> list[engine.Output]:
    """What the engine says it made, where the prompt asks it to be wrong."""
    path = out_dir / outputs[0].file
    elsewhere = out_dir.parent / "elsewhere.png"
    if prompt.startswith("!nothing"):
        return []
    if prompt.startswith("!missing"):
        path.unlink()
    if prompt.startswith("!odd"):
        return [dataclasses.replace(output, content_type="image/bmp") for output in outputs]
    if prompt.startswith(("!outside", "!link")):
        path.replace(elsewhere)
    if prompt.startswith("!link"):
        path.symlink_to(elsewhere)
    if prompt.startswith("!outside"):
        return [dataclasses.replace(output, file=f"../{elsewhere.name}") for output in outputs]
    return outputs


class TestcardEngine:
    """The engine of the `testcard` model."""

    __test__ = False  # not a test case, whatever pytest makes of the name

    def load(self) -> None:
        """Nothing to load."""

    def generate(self, params: Mapping[str, Any], out_dir: Path, context: engine.Context) -> list[engine.Output]:
        """See `Engine.generate`."""
        prompt = params["prompt"]
        self._trouble(prompt, context)
        width, height = _SIZES[params["aspect_ratio"]]
        note = prompt.encode() + b"".join(path.read_bytes() for _, path in sorted(context.inputs.items()))
        outputs = []
        for number in range(params["num_outputs"]):
            seed = (params["seed"] + number) % 2**32
            name = f"{number}.png"
            (out_dir / name).write_bytes(_png(width, height, seed=seed, note=note))
            outputs.append(engine.Output(name, "image", "image/png", width, height, seed))
        return _spoilt(prompt, out_dir, outputs) if prompt.startswith("!") else outputs

    def _trouble(self, prompt: str, context: engine.Context) -> None:
        if not prompt.startswith("!"):
            return
        if prompt.startswith("!crash"):
            os._exit(13)
        if prompt.startswith("!kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        if prompt.startswith("!print"):
            print('{"say": "done", "outputs": []}', flush=True)  # noqa: T201
            os.write(1, b"not JSON at all\n")
        if prompt.startswith("!raise"):
            raise RuntimeError(f"asked to by {prompt}")
        if prompt.startswith("!refuse"):
            raise engine.Refusal("The prompt asks to be refused.")
        pause = threading.Event()
        while prompt.startswith("!hang"):
            pause.wait(60)
        if prompt.startswith("!slow"):
            for step in range(40):
                if context.cancelled():
                    raise engine.Cancelled
                context.progress(step / 40)
                if context.preview_due():
                    context.preview(_png(32, 32, seed=step, note=prompt.encode()), "image/png")
                pause.wait(0.05)
