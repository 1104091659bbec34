"""Stage `train-study`: which emoji the flow draws badly so far; it goes on with more of those.

Enters: a flow trained for a while. Leaves `study.json`: for each emoji without a skin tone how near the picture of its
name comes to the emoji itself, and how near to the nearest other one, in the distance of `features.py`. The flow's next
run reads it. The seeds and the drawing are not those of the evaluation, and all emoji are asked for, not its 200.
"""

import json
from pathlib import Path

import torch
from torch import Tensor

from training import features, runs, wording
from training.emphasis import FILE
from training.evaluate import Gallery
from training.profiles import Profile
from training.sample import AT_ONCE, Painter, Sampling

HOW = Sampling(steps=8)
SEED = 7000


def distances(found: Tensor, gallery: Gallery, rows: range) -> list[tuple[float, float]]:
    """Of each picture the distance to its own emoji, `rows`, and to the nearest other."""
    every = torch.cdist(features.describe(found), gallery.references)
    labels = torch.tensor(gallery.labels, device=every.device)
    pairs = []
    for row, away in zip(rows, every, strict=True):
        own = labels == row
        pairs.append((float(away[own].min()), float(away[~own].min())))
    return pairs


def study(root: Path, profile: Profile, encoder: Path) -> dict[str, tuple[float, float]]:
    """Draw every emoji's name once and write what was found, by code."""
    painter = Painter(root, profile, encoder)
    gallery = Gallery(root, painter.where)
    names = [wording.names(one.label)[0] for one in gallery.emoji]
    found: dict[str, tuple[float, float]] = {}
    for start in range(0, len(names), AT_ONCE):
        rows = range(start, min(start + AT_ONCE, len(names)))
        drawn = painter.whole([names[row] for row in rows], canvas="1:1", how=HOW, seed=SEED + start)
        pairs = distances(drawn, gallery, rows)
        found.update({gallery.emoji[row].code: pair for row, pair in zip(rows, pairs, strict=True)})
    path = root / FILE
    if path.exists():  # what an earlier study found counts as much, lest what was mended is forgotten
        before = json.loads(path.read_text(encoding="utf-8"))
        found = {
            code: ((own + before[code][0]) / 2, (other + before[code][1]) / 2) for code, (own, other) in found.items()
        }
    path.write_text(json.dumps(found), encoding="utf-8")
    return found


def main() -> None:
    options = runs.arguments(__doc__)
    found = study(runs.root_of(options), runs.profile_of(options), options.text)
    lost = sum(own >= other for own, other in found.values())
    print(f"{len(found)} emoji drawn, {lost} of them nearer to another")


if __name__ == "__main__":
    main()
