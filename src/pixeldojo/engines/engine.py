"""What an engine is: a pure function from parameters to files, with weights that are loaded once.

An engine knows no database, no settings, no network and no clock. It runs in a process of its own
(`child.py`), so a crash or an out-of-memory kill ends one attempt of one job and nothing else.
A new family is a class with these two methods and a line in `FAMILIES`.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

FAMILIES: Mapping[str, str] = {
    "dojo": "pixeldojo.engines.dojo.engine:DojoEngine",
    "dojo-motion": "pixeldojo.engines.dojo.motion:MotionEngine",
    "dojo-upscale": "pixeldojo.engines.dojo.upscale:UpscaleEngine",
    "testcard": "pixeldojo.engines.testcard:TestcardEngine",
}


class Refusal(Exception):
    """The input can't be done and trying again won't help. The message goes to the caller."""


class Cancelled(Exception):
    """Raised by an engine that saw `context.cancelled()`."""


@dataclass(frozen=True, slots=True)
class Output:
    """One file the engine made. `file` is its bare name inside `out_dir`; sizes are in pixels."""

    file: str
    type: str  # "image" | "video"
    content_type: str
    width: int
    height: int
    seed: int
    duration_s: float | None = None


class Context(Protocol):
    """The engine's line to the world while it works on one job."""

    @property
    def inputs(self) -> Mapping[str, Path]:
        """Local files of the input pictures, by parameter name (`image_url` → a path)."""

    def progress(self, fraction: float) -> None:
        """Report how much is done, 0 to 1. Call it as often as you like."""

    def preview_due(self) -> bool:
        """Whether a preview is wanted now. Quick jobs are never asked for one, so make it only when this is true."""

    def preview(self, picture: bytes, content_type: str) -> None:
        """Show how the result will look: a small encoded picture (WebP, PNG or JPEG; over 64 KiB it is dropped)."""

    def cancelled(self) -> bool:
        """True once nobody wants the result. Check it at every step; then raise `Cancelled`."""


class Engine(Protocol):
    """One loaded model."""

    def load(self) -> None:
        """Read the weights. Called once, before the first job."""

    def generate(self, params: Mapping[str, Any], out_dir: Path, context: Context) -> list[Output]:
        """Make the files that `params` ask for in `out_dir` and describe them in order.

        `params` are validated against the card's schema and complete (defaults and seed filled in).
        Output i uses seed `(seed + i) mod 2³²`, so that any one picture can be made again alone.
        Raises `Refusal` for an input that can't be done, `Cancelled`; anything else is a crash of this attempt.
        """


def build(family: str, options: Mapping[str, Any]) -> Engine:
    """The engine of `family`, not yet loaded. The import is lazy: heavy libraries stay in the child process."""
    module, _, name = FAMILIES[family].partition(":")
    engine: Engine = getattr(importlib.import_module(module), name)(**options)
    return engine
