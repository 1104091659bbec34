"""What the convolutional networks train on: plain emoji, recoloured ones, and compositions made at random."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from training.colour import GROUNDS
from training.data import SIDE, Emoji, read_index
from training.profiles import LATENT_STRIDE
from training.render import COLOURS, Ground, Layer, Scene, as_bytes, atlas, draw

SQUARE = (SIDE // LATENT_STRIDE, SIDE // LATENT_STRIDE)
TONED_SHARE = 0.15  # of the plain pictures drawn, those with a skin tone


@dataclass(frozen=True)
class Pictures:
    """Bytes (N, 4, 256, 256), colour multiplied by alpha, on the machine that trains."""

    plain: Tensor
    toned: Tensor
    composed: Tensor
    held_out: Tensor

    def batch(self, count: int, crop: int) -> Tensor:
        """Random pictures or crops of them, mirrored half the time; (count, 4, crop, crop), values -1 to 1."""
        where = self.plain.device
        pools = [self.plain, self.toned, self.composed]
        shares = torch.tensor([0.5 - TONED_SHARE / 2, TONED_SHARE, 0.5 - TONED_SHARE / 2])
        shares = shares * torch.tensor([float(len(pool) > 0) for pool in pools])
        counts = torch.multinomial(shares, count, replacement=True).bincount(minlength=3).tolist()
        rows = torch.cat(
            [p[torch.randint(len(p), (n,), device=where)] for p, n in zip(pools, counts, strict=True) if n]
        )
        if crop < SIDE:
            rows = _crops(rows, crop)
        mirrored = torch.rand(count, 1, 1, 1, device=where) < 0.5
        return torch.where(mirrored, rows.flip(-1), rows).float() / 127.5 - 1


def _crops(rows: Tensor, crop: int) -> Tensor:
    """A random square of each picture, rather where something is than where nothing is."""
    found = []
    for row in rows:
        for _ in range(4):
            y, x = torch.randint(SIDE - crop + 1, (2,)).tolist()
            part = row[:, y : y + crop, x : x + crop]
            if part[3].any():
                break
        found.append(part)
    return torch.stack(found)


def random_scene(source: random.Random, count: int) -> Scene:
    """Up to five objects anywhere, of any size, some recoloured, on any ground. It means nothing."""
    side = float(SIDE)
    kind = source.choice(["none", "none", "none", "plain", "gradient", "land"])
    top, bottom, land = (source.choice(list(GROUNDS.values())) for _ in range(3))
    ground = Ground(kind, top, bottom, land, source.uniform(0.4, 0.85), source.uniform(0, 0.15))
    layers = []
    for _ in range(source.choice([1, 1, 2, 3, 5])):
        large = side * source.choice([0.35, 0.5, 0.7, 0.85, 1.0])
        colour = source.choice(COLOURS) if source.random() < 0.35 else ""
        x, y = (source.uniform(-0.15 * large, side - 0.85 * large) for _ in "xy")
        layers.append(Layer(source.randrange(count), x, y, large, source.random() < 0.5, colour))
    return Scene(SQUARE, tuple(layers), ground, ())


def load(root: Path, composed: int, where: torch.device, *, seed: int = 11) -> Pictures:
    """The split of the emoji into what is trained on and what is held out, and `composed` random scenes."""
    emoji: Sequence[Emoji] = read_index(root)
    whole = atlas(root, emoji)

    def rows(*, toned: bool, held_out: bool) -> Tensor:
        return whole[[i for i, e in enumerate(emoji) if bool(e.tone) == toned and e.held_out == held_out]]

    plain, source = rows(toned=False, held_out=False).to(where), random.Random(seed)
    scenes = [random_scene(source, len(plain)) for _ in range(composed)]
    drawn = [as_bytes(draw(scenes[i : i + 64], plain, where)).cpu() for i in range(0, composed, 64)]
    return Pictures(
        plain=plain,
        toned=rows(toned=True, held_out=False).to(where),
        composed=torch.cat([plain[:0].cpu(), *drawn]).to(where),
        held_out=rows(toned=False, held_out=True).to(where),
    )
