"""The motion model: from a still picture to a looping motion, and the warp that shows it.

A motion is a grid of coefficients (4K, h, w): for the waves k = 1..K of the phase, sin kφ and 1 − cos kφ, each across
and down. Displacements are fractions of the square's side, and say where a pixel comes from:
frame(φ)(p) = picture(p + Σ coefficient · wave(φ)). All waves are zero at φ = 0 and return there, so the first frame is
the picture and the loop closes, whatever the network says. Pictures are (B, 4, H, W), 0 to 1, colour multiplied by
alpha.
"""

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from training.nets import Residual, unit
from training.text import STATE_WIDTH

SIDE = 64  # pixels of the picture the network sees
CELLS = 32  # cells of the grid of coefficients, each way
INNER = 16  # cells of the grid the network fills; it is drawn finer when it is used
PINNED = 0.12  # share of the side along which an edge that the picture is cut at holds the motion
UNIT = 0.02  # of the side: the size of displacement that the last layers' outputs of one stand for


def waves(phases: Tensor, count: int) -> Tensor:
    """(N,) phases in radians to (N, 2·count): sin φ, 1 − cos φ, sin 2φ, …"""
    turned = phases[:, None] * torch.arange(1, count + 1, device=phases.device, dtype=phases.dtype)
    return torch.stack([turned.sin(), 1 - turned.cos()], -1).flatten(1)


def displacement(fields: Tensor, phases: Tensor) -> Tensor:
    """Coefficients (B, 4K, h, w) at phases (N,): (B, N, 2, h, w), across and down, in fractions of the side."""
    wave = waves(phases, fields.shape[1] // 4)
    return torch.einsum("nj,bjdhw->bndhw", wave, fields.unflatten(1, (-1, 2)))


def places(height: int, width: int, where: torch.device) -> Tensor:
    """Centres of cells (2, height, width), −1 to 1, across and down."""
    down, across = ((torch.arange(n, device=where, dtype=torch.float32) + 0.5) / n * 2 - 1 for n in (height, width))
    return torch.stack([across[None].expand(height, -1), down[:, None].expand(-1, width)])


def affine(values: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, 2K·6) to coefficients (B, 4K, *size): each wave moves, turns and stretches the whole."""
    own = values.unflatten(1, (-1, 2, 3))
    at = places(*size, values.device)
    return (torch.einsum("bjdc,chw->bjdhw", own[..., :2], at) + own[..., 2, None, None]).flatten(1, 2)


def warped(pictures: Tensor, moved: Tensor) -> Tensor:
    """Square pictures (B, 4, S, S) by displacements (B, N, 2, h, w): frames (B, N, 4, S, S)."""
    side, count = pictures.shape[-1], moved.shape[1]
    fine = F.interpolate(moved.flatten(0, 1), size=(side, side), mode="bilinear")
    grid = (places(side, side, pictures.device) + 2 * fine).permute(0, 2, 3, 1)
    whole = pictures.repeat_interleave(count, 0)
    return F.grid_sample(whole, grid, mode="bilinear", padding_mode="zeros", align_corners=False).unflatten(
        0, (-1, count)
    )


class Down(nn.Module):
    """Half the size."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * before, after, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class MotionNet(nn.Module):
    """A picture (B, 4, 64, 64) and its words (B, 384) to `modes` motions each and how likely they are.

    Every mode is one way the picture may move: the whole by an affine motion, its parts by a smooth grid, both held by
    a mask where nothing moves. Zeros for words are no words.
    """

    def __init__(self, width: int, depth: int, modes: int, count: int) -> None:
        super().__init__()
        self.modes, self.count, self.width = modes, count, width
        middle, deep = 2 * width, 3 * width
        self.entry = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * 4 + 2, width, 3, padding=1))
        self.fine = nn.Sequential(*(Residual(width, normalise=True) for _ in range(depth)))
        self.to_middle = Down(width, middle)
        self.middle = nn.Sequential(*(Residual(middle, normalise=True) for _ in range(depth)))
        self.to_deep = Down(middle, deep)
        self.deep = nn.Sequential(*(Residual(deep, normalise=True) for _ in range(depth)))
        self.words = nn.Linear(STATE_WIDTH, deep)
        self.whole = nn.Sequential(nn.Linear(2 * deep, deep), nn.SiLU())
        self.back = nn.Linear(deep, deep)
        self.up = nn.Conv2d(deep, middle, 1)
        self.join = nn.Sequential(*(Residual(middle, normalise=True) for _ in range(depth)))
        self.grid = nn.Conv2d(middle, modes * 4 * count, 3, padding=1)
        self.mask = nn.Conv2d(middle, modes, 3, padding=1)
        self.moves = nn.Linear(deep, modes * 12 * count)
        self.likely = nn.Linear(deep, modes)

    def forward(self, pictures: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients (B, modes, 4K, 16, 16) and the modes' logits (B, modes)."""
        x = self.entry[0](pictures * 2 - 1)
        at = places(x.shape[2], x.shape[3], x.device).expand(len(x), -1, -1, -1)
        x = self.fine(self.entry[1](torch.cat([x, at], 1)))
        x = self.middle(self.to_middle(x))
        deep = self.to_deep(x) + unit(self.words(words))[..., None, None] * 0.5
        deep = self.deep(deep)
        whole = self.whole(unit(torch.cat([deep.mean((2, 3)), deep.amax((2, 3))], 1)))
        deep = deep + self.back(whole)[..., None, None]
        x = self.join(unit(x + F.interpolate(self.up(deep), scale_factor=2.0, mode="bilinear")))
        grid = self.grid(x).unflatten(1, (self.modes, -1))
        moves = affine(self.moves(whole).flatten(0).unflatten(0, (-1, 12 * self.count)), (INNER, INNER))
        mask = torch.sigmoid(self.mask(x) + 2)
        fields = UNIT * (moves.unflatten(0, (-1, self.modes)) + grid) * mask[:, :, None]
        return fields, self.likely(whole)


def smoothed(x: Tensor) -> Tensor:
    """Twice the cells each way, as a spline: no kinks where cells meet, and straight lines go on beyond the edge."""
    x = torch.cat([2 * x[..., :1] - x[..., 1:2], x, 2 * x[..., -1:] - x[..., -2:-1]], -1)
    x = torch.cat([2 * x[..., :1, :] - x[..., 1:2, :], x, 2 * x[..., -1:, :] - x[..., -2:-1, :]], -2)
    large = F.interpolate(x, scale_factor=2.0, mode="bilinear")
    return F.avg_pool2d(large, 3, stride=1)[..., 1:-1, 1:-1]


class Fields(nn.Module):
    """The first graph: `picture` (1, 4, 64, 64) and `pooled` (1, 384) to `fields` (M, 4K, 32, 32) and `modes` (M)."""

    def __init__(self, net: MotionNet, gain: float) -> None:
        super().__init__()
        self.net, self.gain = net, gain

    def forward(self, picture: Tensor, pooled: Tensor) -> tuple[Tensor, Tensor]:
        fields, likely = self.net(picture, pooled)
        return smoothed(fields[0]) * self.gain, torch.softmax(likely[0], 0)


class Warp(nn.Module):
    """The second graph: `picture` (1, 4, H, W), `field` (1, 4K, h, w), `phases` (N) to `frames` (N, 4, H, W).

    The field covers the square around the picture. Where the picture is cut off by its own edge, the motion is held,
    so that the cut stays where it is.
    """

    def forward(self, picture: Tensor, field: Tensor, phases: Tensor) -> Tensor:
        height, width = picture.shape[2], picture.shape[3]
        square = torch.maximum(torch.as_tensor(height), torch.as_tensor(width))
        share = torch.stack([torch.as_tensor(width) / square, torch.as_tensor(height) / square]).float()
        moved = displacement(field, phases)[0]
        inside = (places(CELLS, CELLS, picture.device) * share[:, None, None]).permute(1, 2, 0)[None]
        flat = moved.flatten(0, 1)[None]
        moved = F.grid_sample(flat, inside, mode="bilinear", padding_mode="border", align_corners=False)[0]
        moved = moved.unflatten(0, (-1, 2)) * self.held(picture[0, 3]) * 2 / share[:, None, None]
        moved = F.interpolate(moved, size=(height, width), mode="bicubic")
        down, across = (
            (torch.arange(n, device=picture.device, dtype=torch.float32) + 0.5) / n * 2 - 1 for n in (height, width)
        )
        grid = torch.stack([moved[:, 0] + across, moved[:, 1] + down[:, None]], -1)
        whole = picture.expand(phases.shape[0], -1, -1, -1)
        y = F.grid_sample(whole, grid, mode="bicubic", padding_mode="border", align_corners=False).clamp(0, 1)
        return torch.cat([torch.minimum(y[:, :3], y[:, 3:]), y[:, 3:]], 1)

    def held(self, alpha: Tensor) -> Tensor:
        """(CELLS, CELLS): 1 where all may move, 0 where an edge of the picture cuts something off."""
        edges = torch.cat(
            [F.interpolate(line[None, None], size=CELLS, mode="linear") for line in (alpha[0], alpha[-1])]
            + [F.interpolate(line[None, None], size=CELLS, mode="linear") for line in (alpha[:, 0], alpha[:, -1])]
        )
        edges = F.avg_pool1d(F.max_pool1d(edges, 3, 1, 1), 5, 1, 2, count_include_pad=False)[:, 0]
        away = torch.arange(CELLS, device=alpha.device, dtype=torch.float32) / (CELLS * PINNED)
        near = 1 - away.clamp(0, 1)
        near = near * near * (3 - 2 * near)
        top, bottom, left, right = edges
        rows = (1 - top * near[:, None]) * (1 - bottom * near.flip(0)[:, None])
        return rows * (1 - left[:, None] * near) * (1 - right[:, None] * near.flip(0))


def phases_of(count: int) -> Tensor:
    """`count` phases over the loop, the first of them zero."""
    return torch.arange(count) * (2 * math.pi / count)
