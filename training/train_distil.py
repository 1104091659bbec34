"""Stage `train-distil`: guidance learnt by heart, so that drawing asks the network once a step instead of twice.

Enters: `flow.pt`. Leaves `distil.pt`: the same network, which also reads how strong the guidance shall be and
answers with the guided direction.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training import emphasis, latents, runs, text, train_flow
from training.flow_net import FlowNet
from training.loop import Average, Loop, device
from training.muon import Optimiser
from training.profiles import Profile, with_minutes

LEAST, MOST = 1.0, 6.0  # guidance


def target(teacher: FlowNet, batch: Mapping[str, Any], noisy: Tensor, guidance: Tensor) -> Tensor:
    """The teacher's guided direction."""
    off = torch.zeros_like(guidance)
    with torch.no_grad():
        with_text = train_flow.direction(teacher, teacher, batch, noisy, off)
        without = train_flow.direction(teacher, teacher, {**batch, "lengths": 0 * batch["lengths"]}, noisy, off)
    return without + guidance[:, None, None] * (with_text - without)


def train(root: Path, profile: Profile, minutes: float | None = None) -> dict[str, float]:
    """Train until the budget is spent; the last figures."""
    where, settings = device(), profile.flow
    torch.set_float32_matmul_precision("high")
    budget = with_minutes(profile.distil, minutes)
    data = latents.load(root, profile)
    torch.manual_seed(0)
    teacher = train_flow.load(root, profile, where)
    net = train_flow.load(root, profile, where)
    net.train().requires_grad_(True)
    for one in (teacher, net):
        train_flow.compile_blocks(one, settings, where)
    samples = train_flow.Samples(data, text.load(root / "texts.pt"), settings, where, emphasis.factors(root, data))
    optimiser, average = Optimiser(net.blocks, net), Average(net, settings.ema)
    loop = Loop(root, "distil", budget, {"net": net, "optimiser": optimiser, "average": average}, seed=2)
    for _ in loop.steps():
        batch = samples.batch(budget.batch)
        time = batch["time"][:, None, None, None]
        noisy = time * batch["x"] + (1 - time) * batch["noise"]
        guidance = LEAST + (MOST - LEAST) * torch.rand_like(batch["time"])
        wanted = target(teacher, batch, noisy, guidance)
        loss = (train_flow.direction(net, net, batch, noisy, guidance) - wanted).pow(2).mean()
        loss.backward()
        optimiser.step(loop.rate(flat=0.3))
        average.follow()
        loop.tell(loss=loss)
    return loop.history[-1] if loop.history else {}


def main() -> None:
    options = runs.arguments(__doc__)
    train(runs.root_of(options), runs.profile_of(options), options.minutes)


if __name__ == "__main__":
    main()
