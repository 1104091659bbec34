"""All scenes as latents, worked out once: what the flow trains on.

Leaves `latents.pt`. Latents are shifted and scaled so that every channel has mean 0 and deviation 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from training import captions, train_ae
from training.data import read_index
from training.loop import autocast, carried, device
from training.profiles import CANVASES, Profile
from training.render import atlas, draw

AT_ONCE = 64
MOST_CAPTIONS = 12
MEASURED = 4096  # scenes that mean and deviation are taken from


@dataclass(frozen=True)
class Bucket:
    """The scenes of one canvas."""

    canvas: tuple[int, int]
    latents: Tensor  # (n, C, H, W), half precision
    weights: Tensor  # (n,)
    plain: Tensor  # (n,) whether the scene is a picture as it came
    captions: Tensor  # (n, MOST_CAPTIONS) rows of the captions, those held out not among them
    counts: Tensor  # (n,) how many of them
    held_out: Tensor  # (n,) row of one held-out caption, or -1


@dataclass(frozen=True)
class Latents:
    """All buckets, and what turns a standard latent into the decoder's."""

    buckets: list[Bucket]
    mean: Tensor  # (C,)
    deviation: Tensor  # (C,)


def standard(root: Path) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the latents' channels, from `latents.pt` or from what was kept."""
    path = root / "latents.pt"
    if path.exists():
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return state["mean"], state["deviation"]
    mean, deviation = carried(root)["standard"]
    return mean.float(), deviation.float()


def kept_standard(root: Path) -> tuple[Tensor, Tensor] | None:
    """The same of an encoder carried from another machine; the flow that was kept with it knows no other."""
    found = carried(root).get("standard")
    own = (root / "autoencoder.pt").exists()
    return None if found is None or own else (found[0], found[1])


def measured(buckets: Sequence[Bucket]) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the channels, of some scenes of each canvas."""
    some = [b.latents[torch.randperm(len(b.latents))[:MEASURED]].transpose(0, 1).flatten(1) for b in buckets]
    sample = torch.cat(some, 1).float()
    return sample.mean(1), sample.std(1).clamp(min=1e-3)


def fingerprint(root: Path, profile: Profile) -> float:
    """A number that another encoder would not have; half precision, so that what was kept of one has it too."""
    encoder = train_ae.load(root, profile.autoencoder, torch.device("cpu"))["encoder"]
    return float(sum(part.half().double().abs().sum() for part in encoder.parameters()))


@torch.no_grad()
def encode(model: nn.Module, pictures: Tensor) -> Tensor:
    """Latents of floats 0 to 1."""
    with autocast(pictures.device):
        return model["encoder"]((pictures * 2 - 1).contiguous(memory_format=torch.channels_last)).float()


def build(root: Path, profile: Profile) -> Latents:
    """Draw and encode every scene; write and return the result."""
    where = device()
    torch.manual_seed(0)
    texts, scenes = captions.read(root)
    number = {caption: i for i, caption in enumerate(texts)}
    emoji = read_index(root)
    pictures = atlas(root, emoji).to(where)
    model = train_ae.load(root, profile.autoencoder, where)
    found = []
    for canvas in CANVASES.values():
        some = [scene for scene in scenes if scene.canvas == canvas]
        if not some:
            continue
        rows = [
            encode(model, draw(some[i : i + AT_ONCE], pictures, where)).half().cpu()
            for i in range(0, len(some), AT_ONCE)
        ]
        shown = torch.zeros(len(some), MOST_CAPTIONS, dtype=torch.int32)
        counts, held = torch.zeros(len(some), dtype=torch.int32), torch.full((len(some),), -1, dtype=torch.int32)
        for n, scene in enumerate(some):
            kept = [number[c] for c in scene.captions if not captions.held_out(c)][:MOST_CAPTIONS]
            hidden = [number[c] for c in scene.captions if captions.held_out(c)]
            shown[n, : len(kept)], counts[n] = torch.tensor(kept, dtype=torch.int32), len(kept)
            held[n] = hidden[0] if hidden else -1
        weights = torch.tensor([scene.weight for scene in some]) * (counts > 0)
        plain = torch.tensor([scene.plain for scene in some])
        found.append(Bucket(canvas, torch.cat(rows), weights, plain, shown, counts, held))
    mean, deviation = kept_standard(root) or measured(found)
    for bucket in found:
        for part in bucket.latents.split(1024):  # in place: there are gigabytes
            part.copy_((part.float() - mean[:, None, None]) / deviation[:, None, None])
    whole = Latents(found, mean, deviation)
    buckets = [vars(b) for b in found]
    state = {"buckets": buckets, "mean": mean, "deviation": deviation, "encoder": fingerprint(root, profile)}
    torch.save(state, root / "latents.pt")
    return whole


def load(root: Path, profile: Profile) -> Latents:
    """The latents; made anew where the encoder is another or the scenes are younger."""
    path, scenes = root / "latents.pt", root / "scenes.json"
    if not path.exists() or (scenes.exists() and scenes.stat().st_mtime > path.stat().st_mtime):
        return build(root, profile)
    state = torch.load(path, weights_only=True, mmap=True)
    if state["encoder"] != fingerprint(root, profile):
        return build(root, profile)
    return Latents([Bucket(**row) for row in state["buckets"]], state["mean"], state["deviation"])
