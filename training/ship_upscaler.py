"""Command `python -m training.ship_upscaler`: the trained upscaler becomes the embedded model `dojo-upscale`.

Enters: a run's `upscaler.pt` and data. Leaves `upscale2.onnx` and `upscale4.onnx` where the service reads them, and in
docs/models a sheet beside bicubic enlargement and `dojo-upscale.json`: PSNR on white on held-out emoji, measured
through the very graphs, and how the network was trained.
"""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from training import pictures, runs, train_upscaler
from training.evaluate import SHEETS
from training.export import CPU, Larger, write
from training.profiles import Profile
from training.sheets import on_board, on_colour, sheet
from training.train_ae import psnr

NAME = "dojo-upscale"
SHOWN, CELL = 4, 256


def export(root: Path, profile: Profile, out: Path) -> dict[int, Path]:
    """The graphs by scale."""
    net = train_upscaler.load(root, profile, CPU)
    paths = {scale: out / f"upscale{scale}.onnx" for scale in train_upscaler.SCALES}
    square = {0: "batch", 2: "height", 3: "width"}
    for scale, path in paths.items():
        write(Larger(net, scale), {"picture": torch.rand(1, 4, 64, 64)}, "larger", {"picture": square}, path)
    return paths


def larger(graph: onnxruntime.InferenceSession, x: Tensor) -> Tensor:
    """Pictures (B, 4, H, W) of 0 to 1 through a graph."""
    return torch.from_numpy(np.concatenate([graph.run(None, {"picture": one[None].numpy()})[0] for one in x]))


def compare(paths: dict[int, Path], rows: Tensor, folder: Path) -> dict[str, float]:
    """PSNR of both graphs and of bicubic enlargement; a sheet of the first pictures, on a checkerboard."""
    x = rows.float() / 255
    columns: list[Tensor] = []
    figures: dict[str, float] = {}
    for scale, path in paths.items():
        graph = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        low = train_upscaler.smaller(x * 2 - 1, scale, "bicubic") / 2 + 0.5
        low = torch.cat([torch.minimum(low[:, :3], low[:, 3:]), low[:, 3:]], 1)
        plain = F.interpolate(low, scale_factor=float(scale), mode="bicubic").clamp(0, 1)
        for name, found in (("bicubic", plain), ("psnr", larger(graph, low))):
            white = [torch.stack([on_colour(one) for one in part]) * 2 - 1 for part in (found, x)]
            figures[f"{name}_{scale}x"] = round(float(psnr(white[0], white[1]).mean()), 2)
            columns.append(found)
    columns.append(x)
    words = ["bicubic, 2x", f"{NAME}, 2x", "bicubic, 4x", f"{NAME}, 4x", "original"]
    shown = [on_board(column[n]) for n in range(min(SHOWN, len(x))) for column in columns]
    lines = words * min(SHOWN, len(x))
    sheet(shown, lines, folder / f"{NAME}.png", columns=len(words), cell=CELL)
    return figures


def main(line: list[str] | None = None, *, out: Path = runs.EMBEDDED, folder: Path = SHEETS) -> dict[str, float]:
    options = runs.arguments(__doc__, line)
    root = runs.root_of(options)
    paths = export(root, runs.profile_of(options), out)
    figures = compare(paths, pictures.load(root, 0, CPU).held_out, folder)
    facts = {
        **figures,
        "bytes": {path.name: path.stat().st_size for path in paths.values()},
        "training": runs.summary(root, "upscaler"),
    }
    (folder / f"{NAME}.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(figures))
    return figures


if __name__ == "__main__":
    main()
