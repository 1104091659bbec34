"""Stage `fit-motion`: of every clip the motion that explains it best, found clip by clip without a network.

Enters: `data/motion.zip`. Leaves `motion.fields.pt`: coefficients (see `motion_net.py`) by which the first frame,
warped, comes closest to the others, and how close. A smooth motion is asked for: little bending and stretching.
What the model learns from are these; the clips that a warp can't explain are left out.
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from training import motion_data, runs
from training.motion_net import CELLS, affine, displacement, phases_of, warped
from training.profiles import Motion

AT_ONCE = 16  # clips fitted together
STAGES = ((8, 24, 0.45), (16, 48, 1.0))  # cells, pixels, rate
BEND, STRETCH, SIZE = 0.6, 0.02, 0.002
FILE = "motion.fields.pt"


@dataclass(frozen=True)
class Fit:
    """All clips' motions, and mean absolute errors by which to judge them."""

    fields: Tensor  # (N, 4K, CELLS, CELLS), half precision
    still: Tensor  # (N,) error of the first frame shown all along, 0 to 1
    error: Tensor  # (N,) error of the warped first frame


def loss_of(made: Tensor, wanted: Tensor) -> Tensor:
    """Differences that forgive what no warp can explain, on three scales; one number a clip."""
    total, made, wanted = torch.zeros(len(made)), made.flatten(0, 1), wanted.flatten(0, 1)
    for _ in range(3):
        away = ((made - wanted).square() + 1e-4).sqrt()
        total = total + away.unflatten(0, (len(total), -1)).mean((1, 2, 3, 4))
        made, wanted = F.avg_pool2d(made, 2), F.avg_pool2d(wanted, 2)
    return total


def roughness(fields: Tensor, part: Tensor) -> Tensor:
    """How much a motion bends and stretches; fast waves count more. One number a clip."""
    count = fields.shape[1] // 4
    fast = torch.arange(1, count + 1).repeat_interleave(4)[None, :, None, None]
    scale = fields.shape[-1] ** 2 / 8
    across = (fields[..., 2:] - 2 * fields[..., 1:-1] + fields[..., :-2]) * fast * scale
    down = (fields[..., 2:, :] - 2 * fields[..., 1:-1, :] + fields[..., :-2, :]) * fast * scale
    bend = across.square().mean((1, 2, 3)) + down.square().mean((1, 2, 3))
    edge = fields.shape[-1]
    gx, gy = (
        (g * fast * edge).unflatten(1, (-1, 2))
        for g in (fields[..., :-1, 1:] - fields[..., :-1, :-1], fields[..., 1:, :-1] - fields[..., :-1, :-1])
    )
    stretch = gx[:, :, 0].square() + gy[:, :, 1].square() + 0.5 * (gx[:, :, 1] + gy[:, :, 0]).square()
    return BEND * bend + STRETCH * stretch.mean((1, 2, 3)) + SIZE * (part * fast).square().mean((1, 2, 3)) * edge


def fit(frames: Tensor, settings: Motion) -> tuple[Tensor, Tensor, Tensor]:
    """Frames (B, PHASES, 4, S, S), 0 to 1: coefficients, and the two errors of `Fit`."""
    batch, count = len(frames), settings.waves
    phases = phases_of(frames.shape[1])
    moves, grid = torch.zeros(batch, 12 * count), torch.zeros(batch, 4 * count, 4, 4)
    for cells, side, rate in STAGES:
        small = F.interpolate(frames.flatten(0, 1), size=(side, side), mode="bilinear", antialias=True).unflatten(
            0, (batch, -1)
        )
        grid = F.interpolate(grid, size=(cells, cells), mode="bicubic").requires_grad_()
        moves = moves.detach().requires_grad_()
        descent = torch.optim.Adam(
            [{"params": [moves], "lr": 0.01 * rate}, {"params": [grid], "lr": 0.006 * rate}], betas=(0.9, 0.97)
        )
        for step in range(settings.fit_steps):
            for group, base in zip(descent.param_groups, (0.01, 0.006), strict=True):
                group["lr"] = base * rate * 0.5 * (1 + math.cos(math.pi * step / settings.fit_steps)) + 1e-5
            fields = affine(moves, (cells, cells)) + grid
            made = warped(small[:, 0], displacement(fields, phases[1:]))
            loss = (loss_of(made, small[:, 1:]) + roughness(fields, grid)).sum()
            descent.zero_grad()
            loss.backward()
            descent.step()
        grid = grid.detach()
    with torch.no_grad():
        fields = affine(moves, (CELLS, CELLS)) + F.interpolate(grid, size=(CELLS, CELLS), mode="bicubic")
        made = warped(small[:, 0], displacement(fields, phases[1:]))
        error, still = ((x - small[:, 1:]).abs().mean((1, 2, 3, 4)) for x in (made, small[:, :1]))
    return fields, still, error


def build(root: Path, settings: Motion) -> Fit:
    """Fit all clips and write the file. Goes on where it was stopped, unless that was with other clips."""
    clips, path = motion_data.read_clips(root), root / FILE
    codes = [clip.code for clip in clips]
    done = torch.load(path, weights_only=True) if path.exists() else {}
    if done.get("codes") != codes:
        done = {"codes": codes, "fields": [], "still": [], "error": []}
    started = time.perf_counter()
    for start in range(len(done["fields"]) * AT_ONCE, len(clips), AT_ONCE):
        frames = motion_data.load(root, clips[start : start + AT_ONCE]).float() / 255
        for name, part in zip(("fields", "still", "error"), fit(frames, settings), strict=True):
            done[name].append(part.half() if name == "fields" else part)
        torch.save(done, path)
        share = 1 - float(torch.cat(done["error"]).mean() / torch.cat(done["still"]).mean())
        print(
            f"{start + len(frames)} of {len(clips)}: {share:.1%} explained, {time.perf_counter() - started:.0f} s",
            flush=True,
        )
    return read(root)


def read(root: Path) -> Fit:
    """What `build` left."""
    done = torch.load(root / FILE, weights_only=True)
    return Fit(*(torch.cat(done[name]) for name in ("fields", "still", "error")))


def main() -> None:
    options = runs.arguments(__doc__)
    build(runs.root_of(options), runs.profile_of(options).motion)


if __name__ == "__main__":
    main()
