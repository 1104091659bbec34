"""Command `python -m training.ship_mini`: a run's exported graphs become the embedded model `dojo-mini`.

Enters: `onnx/` in the run's folder, which `export-models` left, and the run's weights. Leaves the graphs and
`model.json` where the service reads them, and in docs/models a sheet of the same prompts and noise drawn by the
networks in floats and by the graphs, whose weights are stored in 8 bits, with `dojo-mini.json`: how far the two are
apart, and the sizes.
"""

import functools
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from training import runs
from training.data import read_prompts
from training.evaluate import SEED, SHEETS
from training.profiles import CANVASES, Profile
from training.sample import Painter, Sampling, walked
from training.sheets import on_colour, sheet
from training.train_ae import psnr

NAME = "dojo-mini"
FILES = ("denoiser.onnx", "decoder.onnx", "encoder.onnx", "model.json")
SHOWN = 12


def ship(onnx: Path, out: Path) -> dict[str, int]:
    """Put the files where the service reads them; their sizes in bytes. `FileNotFoundError` before an export."""
    for name in FILES:
        shutil.copyfile(onnx / name, out / name)
    return {name: (out / name).stat().st_size for name in FILES}


def by_graphs(folder: Path, noise: Tensor, words: Sequence[Tensor], positions: Tensor) -> Tensor:
    """Pictures (B, 4, H, W) of the noise, one by one, as the service draws them."""
    denoiser, decoder = (
        onnxruntime.InferenceSession(str(folder / name), providers=["CPUExecutionProvider"]) for name in FILES[:2]
    )
    drawn = []
    for n, one in enumerate(noise):
        x = one[None].numpy()
        rest = {
            name: part[n : n + 1].numpy() for name, part in zip(("states", "pooled", "lengths"), words, strict=True)
        }
        rest |= {"given": np.zeros_like(x), "mask": np.zeros_like(x[:, :1]), "positions": positions.numpy()}
        rest |= {"guidance": np.full(1, Sampling.guidance, np.float32)}
        ask = functools.partial(_direction, denoiser, rest)
        drawn.append(decoder.run(None, {"z": walked(one[None], Sampling().times(), ask).numpy()})[0])
    return torch.from_numpy(np.concatenate(drawn))


def _direction(denoiser: onnxruntime.InferenceSession, rest: Mapping[str, Any], x: Tensor, now: float) -> Tensor:
    (found,) = denoiser.run(None, {"x": x.numpy(), "time": np.full(1, now, np.float32), **rest})
    return torch.from_numpy(found)


def compare(root: Path, profile: Profile, stage: str, text: Path, folder: Path) -> Mapping[str, float]:
    """The same pictures drawn in floats and from weights in 8 bits: a sheet of pairs, and PSNR on white in decibels."""
    painter = Painter(root, profile, text, stage=stage)
    prompts = read_prompts("sheets")["objects"][: min(SHOWN, profile.eval_prompts)]
    prompts = [f"a {prompt}" for prompt in prompts]
    canvas = CANVASES["1:1"]
    z = painter.latents(prompts, canvas, how=Sampling(), seed=SEED, given=None)
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(SEED))
    pictures = painter.decode(z)
    graphs = by_graphs(root / "onnx", noise, painter.words(prompts), painter.net.positions(*canvas))
    pairs = [on_colour(part[n]) for n in range(len(prompts)) for part in (pictures, graphs)]
    words = [f"{prompt}, {kind}" for prompt in prompts for kind in ("floats", "8 bits")]
    sheet(pairs, words, folder / f"{NAME}-8bit.webp", columns=8)
    white = [torch.stack([on_colour(one) for one in part]) * 2 - 1 for part in (pictures, graphs)]
    apart = psnr(white[0], white[1])
    return {"psnr_8bit_mean": round(float(apart.mean()), 2), "psnr_8bit_least": round(float(apart.min()), 2)}


def main(line: list[str] | None = None, *, out: Path = runs.EMBEDDED, folder: Path = SHEETS) -> dict[str, Any]:
    options = runs.arguments(__doc__, line)
    root, profile = runs.root_of(options), runs.profile_of(options)
    stage = "distil" if json.loads((root / "onnx" / "model.json").read_text())["distilled"] else "flow"
    sizes = ship(root / "onnx", out)
    facts = {**compare(root, profile, stage, options.text, folder), "bytes": sizes}
    (folder / f"{NAME}.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(facts))
    return facts


if __name__ == "__main__":
    main()
