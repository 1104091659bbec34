"""Where a stage works and how it is called: the command line, the run's folder, the record of what it did."""

import argparse
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.profiles import PROFILES, Profile

STAGES = ("captions", "autoencoder", "upscaler", "flow", "distil", "motion")
ROOT = Path(__file__).parent / "runs"
EMBEDDED = Path(__file__).parent.parent / "src" / "pixeldojo" / "engines" / "dojo"  # what ships, the text encoder too


def arguments(about: str | None, line: list[str] | None = None) -> argparse.Namespace:
    """The options every stage has."""
    parser = argparse.ArgumentParser(description=(about or "").split("\n")[0])
    parser.add_argument("--root", type=Path, default=ROOT, help="folder of data, checkpoints and records")
    parser.add_argument("--profile", choices=sorted(PROFILES), default="cpu")
    parser.add_argument("--minutes", type=float, help="length of the training instead of the profile's")
    parser.add_argument("--text", type=Path, default=EMBEDDED, help="folder of text.int8.onnx and tokenizer.json")
    return parser.parse_args(line)


def root_of(options: argparse.Namespace) -> Path:
    """The run's folder, made if need be."""
    root: Path = options.root
    root.mkdir(parents=True, exist_ok=True)
    return root


def profile_of(options: argparse.Namespace) -> Profile:
    """The named profile."""
    return PROFILES[options.profile]


def summary(root: Path, stage: str) -> dict[str, Any]:
    """A stage's record without its history: where and how long it ran, its settings, its last line."""
    facts: dict[str, Any] = json.loads((root / f"{stage}.json").read_text(encoding="utf-8"))
    history = facts.pop("history", [])
    return {**facts, "last": history[-1]} if history else facts


def record(root: Path, stage: str, facts: Mapping[str, Any]) -> None:
    """Write `<stage>.json`: settings, losses, hours, versions."""
    whole = {"stage": stage, "python": platform.python_version(), **facts}
    (root / f"{stage}.json").write_text(json.dumps(whole, indent=1, default=str) + "\n", encoding="utf-8")
