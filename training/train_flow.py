"""Stage `train-flow`: rectified flow from noise to latents, with the caption as a guide.

Leaves `flow.pt`. The straight path between noise (time 0) and latent (time 1) is learnt by its direction. One
caption in ten is left out, so that guidance can compare; of some samples a part of the latent is given, so that
inpainting is learnt; wide and tall canvases come in batches of their own, padded to one length of tokens.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from training import emphasis, latents, runs, text
from training.flow_net import FlowNet
from training.latents import Latents
from training.loop import Average, Loop, autocast, device, fill, frozen
from training.muon import Optimiser
from training.profiles import CANVASES, Flow, Profile, with_minutes
from training.text import Texts

LONGEST = max(height * width for height, width in CANVASES.values())
FIXED_BATCHES = 4


class Samples:
    """Batches of latents, noise, time and text, on the machine that trains."""

    def __init__(
        self, data: Latents, texts: Texts, settings: Flow, where: torch.device, factors: Sequence[Tensor]
    ) -> None:
        self.settings, self.where = settings, where
        self.buckets = [(b, b.latents.to(where), b.captions.to(where), b.counts.to(where)) for b in data.buckets]
        self.texts = texts.to(where)
        self.weights = [(b.weights * by).to(where) for b, by in zip(data.buckets, factors, strict=True)]
        more = [1 + (settings.plain - 1) * b.plain.to(where) for b in data.buckets]
        self.early_weights = [some * by for some, by in zip(self.weights, more, strict=True)]

    def batch(self, count: int, *, early: bool = False) -> dict[str, Any]:
        """Scenes of one canvas, by their weights (those of the first part, if `early`), each with one caption."""
        weights = self.early_weights if early else self.weights
        chosen_bucket = int(torch.multinomial(torch.stack([some.sum() for some in weights]), 1))
        bucket, all_latents, rows, counts = self.buckets[chosen_bucket]
        chosen = torch.multinomial(weights[chosen_bucket], count, replacement=True)
        pick = (torch.rand(count, device=self.where) * counts[chosen]).long()
        return self.around(all_latents[chosen].float(), rows[chosen, pick].long(), bucket.canvas)

    def held_out(self, count: int) -> list[dict[str, Any]]:
        """Batches of square scenes with captions that are never trained on."""
        bucket, all_latents, *_ = self.buckets[0]
        rows = (bucket.held_out >= 0).nonzero().flatten()
        rows = rows[torch.randperm(len(rows))[: count * FIXED_BATCHES]]
        parts = rows.split(count)
        return [
            self.around(
                all_latents[part.to(self.where)].float(), bucket.held_out[part].long().to(self.where), bucket.canvas
            )
            for part in parts
        ]

    def around(self, x: Tensor, captions: Tensor, canvas: tuple[int, int]) -> dict[str, Any]:
        """Everything random about a sample: noise, time, text or none, cells that are given."""
        count, where = len(x), self.where
        states, pooled, lengths = self.texts.take(captions, self.settings.text_tokens)
        lengths = torch.where(torch.rand(count, device=where) < self.settings.no_text, 0, lengths)
        return {
            "x": x,
            "noise": torch.randn_like(x),
            "time": torch.sigmoid(
                self.settings.time_mean + self.settings.time_deviation * torch.randn(count, device=where)
            ),
            "states": states,
            "pooled": pooled,
            "lengths": lengths,
            "canvas": canvas,
            "mask": given_cells(count, canvas, self.settings.inpaint, where),
        }


def given_cells(count: int, canvas: tuple[int, int], share: float, where: torch.device) -> Tensor:
    """(count, 1, H, W): one where a cell is given. Of a `share` of the samples all but a random box, or only one."""
    height, width = canvas
    size = 0.3 + 0.6 * torch.rand(2, count, 1, 1, device=where)
    start = torch.rand(2, count, 1, 1, device=where) * (1 - size)
    y = ((torch.arange(height, device=where) + 0.5) / height)[None, :, None]
    x = ((torch.arange(width, device=where) + 0.5) / width)[None, None, :]
    inside = (y >= start[0]) & (y < start[0] + size[0]) & (x >= start[1]) & (x < start[1] + size[1])
    inside = inside ^ (torch.rand(count, 1, 1, device=where) < 0.8)
    return (inside & (torch.rand(count, 1, 1, device=where) < share))[:, None].float()


def tokens_of(net: FlowNet, noisy: Tensor, x: Tensor, mask: Tensor) -> Tensor:
    """What the network reads: noisy cells, given cells, and which are given."""
    return net.patches(torch.cat([noisy, x * mask, mask], 1))


def padded(net: FlowNet, tokens: Tensor, canvas: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, positions and presence, brought to one length so that one compiled graph serves all canvases."""
    more = LONGEST // net.patch**2 - tokens.shape[1]
    positions = F.pad(net.positions(*canvas), (0, 0, 0, more)).to(tokens.device)
    present = torch.arange(tokens.shape[1] + more, device=tokens.device) < tokens.shape[1]
    return F.pad(tokens, (0, 0, 0, more)), positions, present


def direction(net: nn.Module, raw: FlowNet, batch: Mapping[str, Any], noisy: Tensor, guidance: Tensor) -> Tensor:
    """The network's answer (B, N, C * p * p) for a batch, padding cut off."""
    tokens = tokens_of(raw, noisy, batch["x"], batch["mask"])
    count = tokens.shape[1]
    tokens, positions, present = padded(raw, tokens, batch["canvas"])
    with autocast(noisy.device):
        found = net(
            tokens, positions, batch["time"], batch["states"], batch["pooled"], batch["lengths"], guidance, present
        )
    return found[:, :count].float()


def flow_loss(net: nn.Module, raw: FlowNet, batch: Mapping[str, Any]) -> Tensor:
    """Mean squared error of the direction."""
    time = batch["time"][:, None, None, None]
    noisy = time * batch["x"] + (1 - time) * batch["noise"]
    found = direction(net, raw, batch, noisy, torch.zeros_like(batch["time"]))
    return (found - raw.patches(batch["x"] - batch["noise"])).pow(2).mean()


def compile_blocks(net: FlowNet, settings: Flow, where: torch.device) -> None:
    """Compile one block; all share its code. The whole network would take minutes to compile.

    On a CPU that takes a C++ compiler and a quarter of a minute, and makes a step 1.3 times as quick.
    """
    if settings.compiled and (where.type == "cuda" or shutil.which("g++")):
        for block in net.blocks:
            block.compile()


def train(root: Path, profile: Profile, minutes: float | None = None) -> dict[str, float]:
    """Train until the budget is spent; the last figures."""
    where, settings = device(), profile.flow
    torch.set_float32_matmul_precision("high")
    budget = with_minutes(settings.budget, minutes)
    data = latents.load(root, profile)
    torch.manual_seed(0)
    net = FlowNet(settings, profile.autoencoder.channels)
    fill(net, root, "flow")
    net.to(where)
    compile_blocks(net, settings, where)
    samples = Samples(data, text.load(root / "texts.pt"), settings, where, emphasis.factors(root, data))
    optimiser, average = Optimiser(net.blocks, net), Average(net, settings.ema)
    fixed = samples.held_out(min(128, budget.batch))
    loop = Loop(root, "flow", budget, {"net": net, "optimiser": optimiser, "average": average})
    scenes = sum(len(bucket.latents) for bucket in data.buckets)
    print(f"flow: {sum(p.numel() for p in net.parameters()) / 1e6:.2f} M parameters, {scenes} scenes", flush=True)

    @torch.no_grad()
    def look() -> Mapping[str, float]:
        with average.in_place():
            return {"held_out": sum(float(flow_loss(net, net, batch)) for batch in fixed) / max(1, len(fixed))}

    for share in loop.steps(look):
        loss = flow_loss(net, net, samples.batch(budget.batch, early=share < settings.plain_until))
        loss.backward()
        optimiser.step(loop.rate(flat=0.65))
        average.follow()
        loop.tell(loss=loss)
    return loop.history[-1] if loop.history else {}


def load(root: Path, profile: Profile, where: torch.device, *, stage: str = "flow") -> FlowNet:
    """The trained network with averaged weights, frozen."""
    net = FlowNet(profile.flow, profile.autoencoder.channels)
    frozen(net, root, stage, where)
    return net


def main() -> None:
    options = runs.arguments(__doc__)
    train(runs.root_of(options), runs.profile_of(options), options.minutes)


if __name__ == "__main__":
    main()
