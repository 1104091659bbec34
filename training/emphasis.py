"""How much more often the flow learns from what it drew badly; `study.py` says what that is."""

import json
from pathlib import Path

import torch
from torch import Tensor

from training import captions
from training.data import read_index
from training.latents import Latents
from training.profiles import CANVASES

FILE = "study.json"
SURE = 0.75  # own distance over the nearest other's: below it an emoji is not mistaken, from one on it is
UNLIKE = 0.7  # own distance; one much smaller is of twins, whose pictures are right though each is near the other
MOST = 6.0  # times as often is learnt what is mistaken


def factor(own: float, other: float) -> float:
    """How many times as often an emoji is to be learnt, 1 to MOST, from its picture's distances to it and to others."""
    mistaken = min(1.0, max(0.0, (own / max(other, 1e-6) - SURE) / (1 - SURE)))
    return 1 + (MOST - 1) * mistaken * min(1.0, own / UNLIKE)


def factors(root: Path, data: Latents) -> list[Tensor]:
    """What to multiply the weights of each bucket's scenes by; ones where nothing was studied."""
    path = root / FILE
    if not path.exists():
        return [torch.ones_like(bucket.weights) for bucket in data.buckets]
    found = json.loads(path.read_text(encoding="utf-8"))
    by_row = [factor(*found[one.parent]) if one.parent in found else 1.0 for one in read_index(root)]
    _, scenes = captions.read(root)
    each: dict[tuple[int, int], list[float]] = {canvas: [] for canvas in CANVASES.values()}
    for scene in scenes:
        each[scene.canvas].append(by_row[scene.layers[0].emoji] if len(scene.layers) == 1 else 1.0)
    return [torch.tensor(each[bucket.canvas[0], bucket.canvas[1]]) for bucket in data.buckets]
