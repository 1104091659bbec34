"""What a picture looks like in numbers that no network of ours had a part in: for retrieval and for hues.

The object is cut out by its alpha, scaled to one size, and described by a small OKLab picture, by histograms of
edge directions and by its outline. Pictures are (B, 4, H, W), colour multiplied by alpha, 0 to 1.
"""

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from training.colour import OBJECT_COLOURS, main_hue, to_oklab

SIDE, SMALL, CELLS, DIRECTIONS = 96, 16, 8, 8
EDGE_WEIGHT, OUTLINE_WEIGHT = 1.0, 0.7
HUE_TOLERANCE_DEG = 32.0
LEAST_COLOURED = 0.3  # share of the object that must have the hue
BROWN_MOST_LIGHT = 0.68


def cut_out(pictures: Tensor) -> Tensor:
    """Each object alone, as large as fits into 96x96, shape kept."""
    found = []
    for picture in pictures:
        seen = picture[3] > 0.15
        columns, rows = seen.any(0).nonzero().flatten(), seen.any(1).nonzero().flatten()
        if len(columns) == 0:
            found.append(torch.zeros(4, SIDE, SIDE, device=picture.device))
            continue
        part = picture[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        scale = (SIDE - 2) / max(part.shape[1:])
        size = [max(1, round(n * scale)) for n in part.shape[1:]]
        part = F.interpolate(part[None], size=size, mode="bilinear", antialias=True)[0]
        left, top = (SIDE - size[1]) // 2, (SIDE - size[0]) // 2
        found.append(F.pad(part, (left, SIDE - size[1] - left, top, SIDE - size[0] - top)))
    return torch.stack(found)


def describe(pictures: Tensor) -> Tensor:
    """(B, F): descriptions whose Euclidean distance says how unlike two pictures are."""
    x = cut_out(pictures)
    lab = to_oklab((x[:, :3] + (1 - x[:, 3:]) * 0.5).clamp(0, 1))
    coarse = F.adaptive_avg_pool2d(torch.cat([lab[:, :1], 2 * lab[:, 1:]], 1), SMALL).flatten(1)
    outline = F.adaptive_avg_pool2d(x[:, 3:], SMALL).flatten(1)
    return torch.cat(
        [
            _level(coarse),
            EDGE_WEIGHT * _level(_edges(lab[:, 0])),
            OUTLINE_WEIGHT * _level(outline),
        ],
        1,
    )


def _level(x: Tensor) -> Tensor:
    return x / x.norm(dim=1, keepdim=True).clamp(min=1e-6)


def _edges(light: Tensor) -> Tensor:
    """Histograms of edge directions in 8x8 cells, roots taken so that strong edges do not rule."""
    down = F.pad(light[:, 2:, 1:-1] - light[:, :-2, 1:-1], (1, 1, 1, 1))
    across = F.pad(light[:, 1:-1, 2:] - light[:, 1:-1, :-2], (1, 1, 1, 1))
    size = (down**2 + across**2).sqrt()
    angle = (torch.atan2(down, across) / math.pi % 1) * DIRECTIONS
    bins = torch.stack([size * _near(angle, k) for k in range(DIRECTIONS)], 1)
    return F.adaptive_avg_pool2d(bins, CELLS).flatten(1).sqrt()


def _near(angle: Tensor, k: int) -> Tensor:
    """How much of an edge belongs to direction k; shared linearly between neighbours, around the circle."""
    away = torch.remainder(angle - k + DIRECTIONS / 2, DIRECTIONS) - DIRECTIONS / 2
    return (1 - away.abs()).clamp(min=0)


def ranks(found: Tensor, references: Tensor, labels: list[int]) -> list[list[int]]:
    """Of each description the five nearest different labels; several references may share a label."""
    order = torch.cdist(found, references).argsort(1)[:, :24].tolist()
    return [list(dict.fromkeys(labels[i] for i in row))[:5] for row in order]


def has_colour(pictures: Tensor, colours: list[str]) -> list[bool]:
    """Whether each object has the colour that was asked for: its main hue near the word's, on enough of it."""
    x = pictures.clamp(0, 1)
    lab = to_oklab((x[:, :3] / x[:, 3:].clamp(min=1e-3)).clamp(0, 1))
    hues, shares = main_hue(lab, x[:, 3])
    light = (lab[:, 0] * x[:, 3]).flatten(1).sum(1) / x[:, 3].flatten(1).sum(1).clamp(min=1)
    found = []
    for hue, share, lightness, colour in zip(
        hues.rad2deg().tolist(), shares.tolist(), light.tolist(), colours, strict=True
    ):
        away = abs((hue - OBJECT_COLOURS[colour][2] + 180) % 360 - 180)
        dark = colour != "brown" or lightness < BROWN_MOST_LIGHT
        found.append(away <= HUE_TOLERANCE_DEG and share >= LEAST_COLOURED and dark)
    return found
