"""Command `python -m training.ship_motion`: the trained motion model becomes the embedded video model's graphs.

Enters: a run's `motion.pt` and data. Leaves `motion.onnx` and `warp.onnx` where the service reads them, and in
docs/models `dojo-motion.json`, figures measured through the very graphs, and `dojo-motion.png`, strips of frames.
"""

import argparse
import json
import warnings
from pathlib import Path

import torch

from training import evaluate_motion, runs, train_motion
from training.evaluate import SHEETS, Gallery
from training.export import CPU, OPSET, store_in_bytes
from training.motion_net import CELLS, SIDE, Fields, Warp
from training.profiles import Profile
from training.text import STATE_WIDTH

NAME = "dojo-motion"
MOST_GAIN = 2.0
CURVE = ("step", "minutes", "loss", "best", "explained_best", "moved")


def gain(root: Path, profile: Profile, encoder: Path) -> float:
    """By how much motions must grow to be as large as the data's: what several outcomes have in common is smaller."""
    clips = train_motion.load(root, encoder, CPU, held_out=False)
    few = train_motion.Clips(*(part[:: max(1, len(clips.still) // 96)] for part in vars(clips).values()))
    found = train_motion.measure(train_motion.trained(root, profile, CPU), few)
    needed: float = found["moved_true"] / max(found["moved"], 1e-6)
    return min(MOST_GAIN, max(1.0, needed))


def export(root: Path, profile: Profile, out: Path, gain: float) -> dict[str, Path]:
    """The two graphs by name."""
    net, count = train_motion.trained(root, profile, CPU), profile.motion.waves
    paths = {name: out / f"{name}.onnx" for name in ("motion", "warp")}
    field, phases = 0.02 * torch.randn(1, 4 * count, CELLS, CELLS), torch.tensor([0.0, 1.0])
    square = {2: "height", 3: "width"}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer remarks on every shape it reads
        torch.onnx.export(
            Fields(net, gain).eval(),
            (torch.rand(1, 4, SIDE, SIDE), torch.zeros(1, STATE_WIDTH)),
            str(paths["motion"]),
            input_names=["picture", "pooled"],
            output_names=["fields", "modes"],
            opset_version=OPSET,
            dynamo=False,
        )
        torch.onnx.export(
            Warp().eval(),
            (torch.rand(1, 4, 48, 80), field, phases),
            str(paths["warp"]),
            input_names=["picture", "field", "phases"],
            output_names=["frames"],
            dynamic_axes={"picture": square, "phases": {0: "frames"}, "frames": {0: "frames", **square}},
            opset_version=OPSET,
            dynamo=False,
        )
    store_in_bytes(paths["motion"])
    return paths


def curve(root: Path) -> list[dict[str, float]]:
    """How losses and figures on held-out clips went."""
    history = json.loads((root / "motion.json").read_text(encoding="utf-8"))["history"]
    return [{name: round(line[name], 4) for name in CURVE if name in line} for line in history]


def main(line: list[str] | None = None, *, out: Path = runs.EMBEDDED, folder: Path = SHEETS) -> dict[str, float]:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--gallery", type=Path, default=None, help="run whose emoji.zip names what frames show")
    own, rest = parser.parse_known_args(line)
    options = runs.arguments(__doc__, rest)
    root, profile = runs.root_of(options), runs.profile_of(options)
    by = gain(root, profile, options.text)
    paths = export(root, profile, out, by)
    gallery = own.gallery or root
    known = Gallery(gallery, CPU).known() if (gallery / "data" / "emoji.zip").exists() else None
    figures = evaluate_motion.measure(root, known, out, options.text, folder / f"{NAME}.png")
    facts = {
        **figures,
        "gain": round(by, 3),
        "bytes": {path.name: path.stat().st_size for path in paths.values()},
        "training": runs.summary(root, "motion"),
        "curve": curve(root),
    }
    (folder / f"{NAME}.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(figures))
    return figures


if __name__ == "__main__":
    main()
