"""Stage `train-motion`: which motions a still picture may make.

Enters: `data/motion.zip` and the clips' fitted motions. Leaves `motion.pt`. The network offers several motions for each
picture and learns by the one that came closest, so that it need not settle for the average of all, which is no motion.
Clips that a warp explains badly, that fold, or that fly about are left out. Placed, sized, mirrored and coloured anew;
a share stands on still ground, where only the object and what is close to it may move.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from training import motion_data, motion_fit, runs, text, wording
from training.loop import Average, Loop, autocast, device, fill, frozen
from training.motion_net import CELLS, INNER, SIDE, MotionNet, displacement, phases_of, places, smoothed, warped
from training.muon import Optimiser
from training.nets import Residual
from training.profiles import Budget, Motion, Profile, with_minutes

LEAST_EXPLAINED, MOST_MOVED, MOST_FOLDED = 0.4, 0.09, 0.004
WORDLESS, GROUNDED, RECOLOURED = 0.4, 0.35, 0.4  # shares of the samples
AT_PHASES = 4  # phases at which two motions are compared in a step
LEAST_MOTION = 0.012  # of the side: smaller motions count as this large when errors are weighed
SLOPE, BEND, CHOICE = 0.5, 0.02, 0.05  # weights of the losses beside the first
OTHERS = 0.06  # share of the loss that falls on all modes, at the end; more in the beginning
NAMES = 3  # ways to say a label
EDGE = 2  # cells of a field beyond which a sample's surroundings stay still


@dataclass(frozen=True)
class Clips:
    """What a batch is made of, on the machine that trains."""

    still: Tensor  # (N, 4, S, S) first frames, 0 to 1
    seen: Tensor  # (N, 1, CELLS, CELLS) where something is seen at any phase, 0 to 1
    fields: Tensor  # (N, 4K, CELLS, CELLS)
    words: Tensor  # (N, NAMES, 384)
    frames: Tensor  # (N, PHASES, 4, SIDE, SIDE) bytes; for measuring


@dataclass(frozen=True)
class Batch:
    """Pictures and the motions they make."""

    pictures: Tensor  # (B, 4, SIDE, SIDE)
    words: Tensor  # (B, 384)
    fields: Tensor  # (B, 4K, CELLS, CELLS)
    weight: Tensor  # (B, 1, CELLS, CELLS) how much the motion matters there


def build(settings: Motion) -> MotionNet:
    """The network, fresh."""
    return MotionNet(settings.width, settings.depth, settings.modes, settings.waves)


def folded(moved: Tensor) -> Tensor:
    """Displacements (B, N, 2, h, w): the share of places where the warp turns the picture inside out, (B,)."""
    gx = (moved[..., :-1, 1:] - moved[..., :-1, :-1]) * moved.shape[-1]
    gy = (moved[..., 1:, :-1] - moved[..., :-1, :-1]) * moved.shape[-2]
    area = (1 + gx[:, :, 0]) * (1 + gy[:, :, 1]) - gx[:, :, 1] * gy[:, :, 0]
    return (area < 0).float().mean((1, 2, 3))


def size_of(moved: Tensor, seen: Tensor) -> Tensor:
    """Mean length of displacements (B, N, 2, h, w) where something is seen, in fractions of the side, (B,)."""
    return (moved.norm(dim=2) * seen).mean((1, 2, 3)) / seen.mean((1, 2, 3)).clamp(min=1e-6)


def usable(found: motion_fit.Fit, seen: Tensor) -> Tensor:
    """Which clips a warp explains well enough."""
    rows = []
    for part, mask in zip(found.fields.split(32), seen.split(32), strict=True):
        moved = displacement(part.float(), phases_of(motion_data.PHASES))
        size = size_of(moved, mask)
        rows.append((size < MOST_MOVED) & (folded(moved) < MOST_FOLDED))
    return torch.cat(rows) & (found.error < (1 - LEAST_EXPLAINED) * found.still)


def load(root: Path, encoder: Path, where: torch.device, *, held_out: bool) -> Clips:
    """The clips to learn from, or all that are held out."""
    clips, found = motion_data.read_clips(root), motion_fit.read(root)
    rows = [i for i, clip in enumerate(clips) if clip.held_out == held_out]
    clips = [clips[i] for i in rows]
    whole = motion_data.load(root, clips)
    seen = F.interpolate(whole[:, :, 3].amax(1)[:, None].float() / 255, size=(CELLS, CELLS), mode="area")
    found = motion_fit.Fit(found.fields[rows], found.still[rows], found.error[rows])
    keep = torch.ones(len(rows), dtype=torch.bool) if held_out else usable(found, seen)
    called = [(names * NAMES)[:NAMES] for names in (wording.names(clip.label) for clip in clips)]
    _, pooled = text.Encoder(encoder, 23).encode([one for names in called for one in names])
    words = torch.from_numpy(pooled).float().unflatten(0, (-1, NAMES))
    small = F.interpolate(whole.flatten(0, 1).float(), size=(SIDE, SIDE), mode="area").byte()
    parts = (whole[:, 0].float() / 255, seen, found.fields.float(), words, small.unflatten(0, (len(whole), -1)))
    return Clips(*(part[keep].to(where) for part in parts))


def batch_of(clips: Clips, count: int) -> Batch:
    """Random clips, placed, sized, mirrored, recoloured, some on still ground."""
    where = clips.still.device
    rows = torch.randint(len(clips.still), (count,), device=where)
    scale, mirror = 0.55 + 0.5 * torch.rand(count, device=where), torch.randint(2, (count,), device=where) * 2 - 1
    room = (1.05 - scale).clamp(min=0)
    at = (torch.rand(count, 2, device=where) * 2 - 1) * room[:, None]

    def placed(x: Tensor, side: int, padding: str) -> Tensor:
        stretch = torch.stack([mirror / scale, 1 / scale], 1)
        grid = (places(side, side, where) - at[..., None, None]) * stretch[..., None, None]
        return F.grid_sample(x, grid.permute(0, 2, 3, 1), padding_mode=padding, align_corners=False)

    blurred = F.avg_pool2d(clips.still[rows], 3, stride=1, padding=1, count_include_pad=False)
    pictures = recoloured(placed(0.5 * blurred + 0.5 * clips.still[rows], SIDE, "zeros"))
    way = torch.ones(count, 2, device=where)
    way[:, 0] = mirror
    fields = (
        placed(clips.fields[rows], CELLS, "border").unflatten(1, (-1, 2))
        * (way * scale[:, None])[:, None, :, None, None]
    )
    seen = placed(clips.seen[rows], CELLS, "zeros")
    near = F.avg_pool2d(F.max_pool2d(seen, 2 * EDGE + 1, 1, EDGE), 2 * EDGE + 1, 1, EDGE)
    grounded = (torch.rand(count, 1, 1, 1, device=where) < GROUNDED).float()
    pictures = pictures + grounded * (1 - pictures[:, 3:]) * grounds(count, where)
    fields = fields.flatten(1, 2) * torch.where(grounded > 0, near, 1.0)
    wordless = torch.rand(count, 1, device=where) < WORDLESS
    words = clips.words[rows, torch.randint(NAMES, (count,), device=where)].masked_fill(wordless, 0.0)
    return Batch(pictures, words, fields, 0.02 + near + 0.3 * grounded)


def recoloured(pictures: Tensor) -> Tensor:
    """Some with their colours exchanged, all a little brighter or darker."""
    order = torch.stack([torch.randperm(3, device=pictures.device) for _ in pictures])
    other = pictures[:, :3].gather(1, order[..., None, None].expand_as(pictures[:, :3]))
    chosen = torch.rand(len(pictures), 1, 1, 1, device=pictures.device) < RECOLOURED
    gain = 0.7 + 0.5 * torch.rand(len(pictures), 3, 1, 1, device=pictures.device)
    colour = torch.where(chosen, other, pictures[:, :3]) * gain
    return torch.cat([torch.minimum(colour, pictures[:, 3:]), pictures[:, 3:]], 1)


def grounds(count: int, where: torch.device) -> Tensor:
    """Plain colours and gradients (count, 4, SIDE, SIDE), opaque."""
    ends = torch.rand(count, 2, 3, 1, 1, device=where)
    ends[:, 1] = torch.where(torch.rand(count, 1, 1, 1, device=where) < 0.4, ends[:, 0], ends[:, 1])
    ends = torch.where(torch.rand(count, 1, 1, 1, 1, device=where) < 0.2, torch.ones_like(ends), ends)
    down = torch.linspace(0, 1, SIDE, device=where)[:, None].expand(SIDE, SIDE)
    colour = ends[:, 0] * (1 - down) + ends[:, 1] * down
    return torch.cat([colour, torch.ones_like(colour[:, :1])], 1)


def losses(fields: Tensor, likely: Tensor, batch: Batch, share: float) -> dict[str, Tensor]:
    """Fields (B, M, 4K, 16, 16) and logits against the motions; `share` of the budget is spent. "loss" is the sum."""
    count, modes = fields.shape[:2]
    phases = torch.rand(AT_PHASES, device=fields.device) * 2 * math.pi
    fields = fields.flatten(0, 1)
    wanted, weight = (F.avg_pool2d(x, CELLS // INNER) for x in (batch.fields, batch.weight))
    weight = weight / weight.mean((1, 2, 3), keepdim=True)
    wanted = displacement(wanted, phases)
    away = displacement(fields, phases).unflatten(0, (count, modes)) - wanted[:, None]
    scale = (wanted.square().sum(2) * weight).mean((1, 2, 3)).sqrt() + LEAST_MOTION
    point = ((away.square().sum(3) * weight[:, None]).mean((2, 3, 4)) + 1e-8).sqrt()
    heavy = weight[:, None, None]
    steps = (
        ((away[..., 1:, :] - away[..., :-1, :]).abs() * heavy[..., 1:, :]).mean((2, 3, 4, 5)),
        ((away[..., 1:] - away[..., :-1]).abs() * heavy[..., 1:]).mean((2, 3, 4, 5)),
    )
    error = (point + SLOPE * wanted.shape[-1] / 6 * (steps[0] + steps[1])) / scale[:, None]
    best = error.argmin(1)
    spread = OTHERS + (0.5 - OTHERS) * max(0.0, 1 - 4 * share)
    first = (1 - spread) * error.amin(1).mean() + spread * error.mean()
    bend: Tensor = sum(
        (fields.narrow(d, 2, 14) - 2 * fields.narrow(d, 1, 14) + fields.narrow(d, 0, 14)).abs().mean() for d in (2, 3)
    ) * (fields.shape[-1] ** 2 / 4)
    choice = F.cross_entropy(likely, best)
    return {
        "loss": first + BEND * bend + CHOICE * choice,
        "best": error.amin(1).mean(),
        "choice": choice,
        "bend": bend,
    }


@torch.no_grad()
def measure(net: MotionNet, clips: Clips) -> dict[str, float]:
    """On held-out clips, 0 to 1: how much of the change the best and the likeliest mode explain; sizes of motions."""
    phases = phases_of(clips.frames.shape[1]).to(clips.still.device)
    rows: dict[str, list[Tensor]] = {
        "best": [],
        "likely": [],
        "all": [],
        "still": [],
        "moved": [],
        "true": [],
        "folds": [],
    }
    for start in range(0, len(clips.frames), 8):
        frames = clips.frames[start : start + 8].float() / 255
        seen, words = clips.seen[start : start + 8], clips.words[start : start + 8, 0]
        with autocast(frames.device):
            fields, likely = net(frames[:, 0], words)
        fields = smoothed(fields.float().flatten(0, 1)).unflatten(0, fields.shape[:2])
        moved = [displacement(fields[:, m], phases) for m in range(net.modes)]
        errors = torch.stack([(warped(frames[:, 0], one) - frames).abs().mean((1, 2, 3, 4)) for one in moved], 1)
        chance = torch.softmax(likely.float(), 1)
        rows["best"].append(errors.amin(1))
        rows["likely"].append(errors.gather(1, chance.argmax(1, keepdim=True))[:, 0])
        rows["all"].append((errors * chance).sum(1))
        rows["still"].append((frames - frames[:, :1]).abs().mean((1, 2, 3, 4)))
        rows["moved"].append(torch.stack([size_of(one, seen) for one in moved], 1).mul(chance).sum(1))
        rows["true"].append(size_of(displacement(clips.fields[start : start + 8], phases), seen))
        rows["folds"].append(torch.stack([folded(one) for one in moved], 1).mul(chance).sum(1))
    whole = {name: torch.cat(values) for name, values in rows.items()}
    still = whole["still"].sum()
    return {
        **{f"explained_{name}": float(1 - whole[name].sum() / still) for name in ("best", "likely", "all")},
        "moved": float(whole["moved"].median()),
        "moved_true": float(whole["true"].median()),
        "folds": float(whole["folds"].mean()),
    }


def train(root: Path, settings: Motion, budget: Budget, encoder: Path) -> dict[str, float]:
    """Train until the budget is spent; the last figures on held-out emoji."""
    where = device()
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(0)
    clips, held_out = (load(root, encoder, where, held_out=which) for which in (False, True))
    net = build(settings)
    fill(net, root, "motion")
    net.to(where, memory_format=torch.channels_last)
    optimiser = Optimiser([module for module in net.modules() if isinstance(module, Residual)], net)
    average = Average(net, 0.998)
    loop = Loop(root, "motion", budget, {"net": net, "optimiser": optimiser, "average": average})
    print(f"motion: {len(clips.still)} clips to learn from, {len(held_out.still)} held out", flush=True)

    def look() -> Mapping[str, float]:
        with average.in_place():
            found: dict[str, float] = measure(net, held_out)
            return found

    for share in loop.steps(look):
        batch = batch_of(clips, budget.batch)
        with autocast(where):
            fields, likely = net(batch.pictures, batch.words)
        found = losses(fields.float(), likely.float(), batch, share)
        found["loss"].backward()
        optimiser.step(loop.rate(flat=0.3))
        average.follow()
        loop.tell(**found)
    return loop.history[-1] if loop.history else {}


def trained(root: Path, profile: Profile, where: torch.device) -> MotionNet:
    """The network with averaged weights, frozen."""
    net = build(profile.motion)
    frozen(net, root, "motion", where)
    return net


def main() -> None:
    options = runs.arguments(__doc__)
    root, settings = runs.root_of(options), runs.profile_of(options).motion
    motion_fit.build(root, settings)
    train(root, settings, with_minutes(settings.budget, options.minutes), options.text)


if __name__ == "__main__":
    main()
