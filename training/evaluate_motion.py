"""What the shipped motion graphs do, in figures and in strips to look at.

Enters: `motion.onnx` and `warp.onnx`, held-out animated emoji, and still emoji for which there is no animation. Here
are measured the bare graphs: the whole picture is fitted into the network's square, and a seed draws one of the motions
by their probabilities alone. What the service does beside (it takes things off their ground, shows the network the
thing alone, likes motions in which much moves, and keeps things within the frame) is in none of these figures.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from training import motion_data, text, train_motion, wording
from training.motion_net import SIDE, displacement, phases_of
from training.sheets import on_board, on_colour, sheet
from training.train_ae import psnr

FRAMES, SHOWN, CELL, STRIP = 48, 6, 128, 8
STEADY_EVERY, MARGIN = 3, 12  # clips; pixels of 96 left free around a shown clip
SEED, RETRIEVED = 5, 100


class Mover:
    """The two graphs and the text encoder, and nothing else."""

    def __init__(self, graphs: Path, encoder: Path) -> None:
        self.motion, self.warp = (
            onnxruntime.InferenceSession(str(graphs / f"{name}.onnx"), providers=["CPUExecutionProvider"])
            for name in ("motion", "warp")
        )
        self.text = text.Encoder(encoder, 23)

    def words(self, prompt: str) -> np.ndarray[Any, Any]:
        """The text state (1, 384), zeros for no prompt."""
        if not prompt:
            return np.zeros((1, text.STATE_WIDTH), np.float32)
        return self.text.encode([prompt])[1].astype(np.float32)

    def fields(self, picture: Tensor, prompt: str = "") -> tuple[Tensor, Tensor]:
        """A picture (4, H, W), 0 to 1: the motions it may make (M, 4K, h, w), and how likely each is (M,)."""
        given = {"picture": fitted(picture)[None].numpy(), "pooled": self.words(prompt)}
        fields, modes = self.motion.run(None, given)
        return torch.from_numpy(fields), torch.from_numpy(modes)

    def frames(self, picture: Tensor, field: Tensor, phases: Tensor) -> Tensor:
        """Frames (N, 4, H, W) of one motion (4K, h, w)."""
        given = {"picture": picture[None].numpy(), "field": field[None].numpy(), "phases": phases.numpy()}
        return torch.from_numpy(self.warp.run(None, given)[0])


def fitted(picture: Tensor) -> Tensor:
    """(4, H, W) centred in the square the network sees, its ratio kept."""
    height, width = picture.shape[1:]
    share = SIDE / max(height, width)
    size = [max(1, round(n * share)) for n in (height, width)]
    small = F.interpolate(picture[None], size=size, mode="bilinear", antialias=True)[0]
    left, top = (SIDE - size[1]) // 2, (SIDE - size[0]) // 2
    return F.pad(small, (left, SIDE - size[1] - left, top, SIDE - size[0] - top))


def drawn(chances: Tensor, seed: int) -> int:
    """The mode a seed picks."""
    return int(torch.multinomial(chances, 1, generator=torch.Generator().manual_seed(seed)))


def _on_white(frames: Tensor) -> Tensor:
    return (frames[:, :3] + 1 - frames[:, 3:]).clamp(0, 1)


def _on_ground(picture: Tensor) -> Tensor:
    """The picture, opaque, before a still gradient."""
    down = torch.linspace(0.35, 0.9, picture.shape[1])[None, :, None]
    ground = torch.cat([down * torch.tensor([0.5, 0.8, 1.0])[:, None, None], torch.ones_like(down)]).expand(
        -1, -1, picture.shape[2]
    )
    return picture + (1 - picture[3:]) * ground


@dataclass(frozen=True)
class Known:
    """Still emoji by which to judge what a frame shows."""

    pictures: Tensor  # (N, 4, 256, 256) bytes
    labels: Sequence[str]
    codes: Sequence[str]
    nearest: Callable[[Tensor], list[list[int]]]  # of each picture the likeliest rows, the first first


@dataclass
class Rows:
    """One number a clip, by name."""

    values: dict[str, list[float]]

    def add(self, **found: float) -> None:
        for name, value in found.items():
            self.values.setdefault(name, []).append(float(value))

    def mean(self, name: str) -> float:
        return float(np.mean(self.values[name]))

    def percentiles(self, name: str) -> dict[str, float]:
        return {f"{name}_percent_p{p}": 100 * float(np.percentile(self.values[name], p)) for p in (10, 50, 90)}


def clip_figures(mover: Mover, root: Path, encoder: Path) -> dict[str, float]:
    """On held-out clips, with the mode a seed picks: see the names."""
    clips = train_motion.load(root, encoder, torch.device("cpu"), held_out=True)
    known = [clip for clip in motion_data.read_clips(root) if clip.held_out]
    phases, rows = phases_of(STRIP), Rows({})
    for n, (picture, clip) in enumerate(zip(clips.still, known, strict=True)):
        true, name = motion_data.load(root, [clip])[0].float() / 255, wording.names(clip.label)[0]
        true = true[:: len(true) // STRIP]
        fields, chances = mover.fields(picture, name)
        frames = [mover.frames(picture, one, phases) for one in fields]
        errors = torch.stack([(one - true).abs().mean() for one in frames])
        chosen = drawn(chances, SEED + n)
        quality = [float(psnr(_on_white(one) * 2 - 1, _on_white(true) * 2 - 1)[1:].mean()) for one in frames]
        still = float(psnr(_on_white(true[:1].expand_as(true)) * 2 - 1, _on_white(true) * 2 - 1)[1:].mean())
        seen, moved = clips.seen[n][None], displacement(fields, phases)
        rows.add(
            still=(true - true[:1]).abs().mean(), best=errors.min(), seeded=errors[chosen],
            likely=errors[chances.argmax()], psnr_still=still, psnr_best=max(quality),
            psnr_likely=quality[int(chances.argmax())],
            moved=train_motion.size_of(moved[chosen][None], seen),
            moved_true=train_motion.size_of(displacement(clips.fields[n][None], phases), seen),
            folds=train_motion.folded(moved[chosen][None]),
        )  # fmt: skip
        if n % STEADY_EVERY == 0:
            rows.add(**steadiness(mover, picture, name, SEED + n))
    return {
        **{
            f"explained_percent_{n}": 100 * (1 - rows.mean(n) / rows.mean("still"))
            for n in ("best", "likely", "seeded")
        },
        **{name: rows.mean(name) for name in ("psnr_still", "psnr_likely", "psnr_best")},
        **rows.percentiles("moved"),
        **rows.percentiles("moved_true"),
        "folded_percent": 100 * rows.mean("folds"),
        "last_step_over_others": rows.mean("last_step"),
        "flicker_levels": 255 * rows.mean("flicker"),
        "flicker_transparent_levels": 255 * rows.mean("flicker_transparent"),
    }


def steadiness(mover: Mover, picture: Tensor, prompt: str, seed: int) -> Mapping[str, float]:
    """The step from the last frame to the first over the mean of the others (far above 1 where the loop jumps), and
    what changes from frame to frame where nothing is to move."""
    phases, found = phases_of(FRAMES), {}
    small = F.pad(picture, (16, 16, 16, 16))
    for name, shown in (("flicker_transparent", small), ("flicker", _on_ground(small))):
        fields, chances = mover.fields(shown, prompt)
        field = fields[drawn(chances, seed)]
        frames = torch.cat([shown[None], mover.frames(shown, field, phases)[1:], shown[None]])
        moved = displacement(field[None], phases_of(motion_data.PHASES))[0].norm(dim=1).amax()
        reach = 2 * int(float(moved) * shown.shape[-1]) + 9
        near = F.max_pool2d(small[None, 3:], reach, 1, reach // 2)[0, 0] > 0.02
        steps = (frames[1:] - frames[:-1]).abs().mean((0, 1))
        found[name] = float(steps[~near].mean()) if bool((~near).any()) else 0.0
        each = (frames[1:] - frames[:-1]).abs().mean((1, 2, 3))
        found["last_step"] = max(found.get("last_step", 0.0), float(each[-1] / each[:-1].mean().clamp(min=1e-9)))
    return found


def retrieval(mover: Mover, known: Known, count: int) -> dict[str, float]:
    """In per cent of `count` emoji, whether the frame in the middle of a loop still shows what the still does."""
    chosen = torch.randperm(len(known.pictures), generator=torch.Generator().manual_seed(SEED))[:count].tolist()
    middles = []
    for i in chosen:
        picture = F.interpolate(known.pictures[i][None].float() / 255, size=(128, 128), mode="area")[0]
        fields, chances = mover.fields(picture, wording.names(known.labels[i])[0])
        middles.append(mover.frames(picture, fields[drawn(chances, i)], torch.tensor([torch.pi]))[0])
    rows = known.nearest(torch.stack(middles))
    return {
        "middle_top1": 100 * float(np.mean([row[0] == i for row, i in zip(rows, chosen, strict=True)])),
        "middle_top5": 100 * float(np.mean([i in row for row, i in zip(rows, chosen, strict=True)])),
    }


def stills(known: Known, animated: Collection[str]) -> dict[str, Tensor]:
    """Six pictures (4, H, W), 0 to 1, to show: of emoji without an animation, half of them opaque, some not square."""
    rows = [n for n, code in enumerate(known.codes) if code not in animated]
    found = {}
    for n, i in enumerate(rows[:: max(1, len(rows) // SHOWN)][:SHOWN]):
        x = F.interpolate(known.pictures[i][None].float() / 255, size=(160, 160), mode="area")[0]
        x = F.pad(x, ((16, 16, 16, 16), (60, 60, 10, 10), (16, 16, 50, 50))[n % 3])
        found[wording.names(known.labels[i])[0]] = _on_ground(x) if n % 2 else x
    return found


def measure(root: Path, known: Known | None, graphs: Path, encoder: Path, path: Path) -> dict[str, float]:
    """All figures, and the strips at `path`. Without still emoji there is no retrieval."""
    mover = Mover(graphs, encoder)
    figures = clip_figures(mover, root, encoder)
    shown: dict[str, Tensor] = {}
    if known is not None:
        figures |= retrieval(mover, known, RETRIEVED)
        shown = stills(known, {clip.code for clip in motion_data.read_clips(root)})
    show(mover, root, shown, path)
    return {name: round(value, 2) for name, value in figures.items()}


def show(mover: Mover, root: Path, stills: Mapping[str, Tensor], path: Path) -> None:
    """Strips: held-out clips, the truth above what the model makes of the first frame; and stills (4, H, W)."""
    pictures: list[Tensor] = []
    words: list[str] = []

    def row(frames: Tensor, name: str) -> None:
        pictures.extend(on_board(frame) if frame[3].min() < 1 else on_colour(frame) for frame in frames)
        words.extend([name] + [""] * (len(frames) - 1))

    held_out = [clip for clip in motion_data.read_clips(root) if clip.held_out]
    held_out = held_out[:: max(1, len(held_out) // SHOWN)][:SHOWN]
    for clip in held_out:
        true = F.pad(motion_data.load(root, [clip])[0].float() / 255, (MARGIN,) * 4)
        true = F.interpolate(true[:: len(true) // STRIP], size=(CELL, CELL), mode="bilinear")
        name = wording.names(clip.label)[0]
        row(true, f"{name}: true")
        fields, chances = mover.fields(true[0], name)
        row(mover.frames(true[0], fields[int(chances.argmax())], phases_of(STRIP)), f"{name}: model")
    for name, still in stills.items():
        fields, chances = mover.fields(still, name)
        row(mover.frames(still, fields[int(chances.argmax())], phases_of(STRIP)), name)
    sheet(pictures, words, path, columns=STRIP, cell=CELL)
