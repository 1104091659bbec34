"""Stage `train-ae`: the autoencoder, RGBA at 256 px to 16x16 cells and back.

Leaves `autoencoder.pt`. Loss: absolute difference of pixels and of their gradients on three scales, of the picture
and of what shows on a random background. Noise on the latent, mirrored and halved latents keep the latent smooth,
which the flow needs. In the last part a patch critic sharpens the decoder while the encoder rests. Where a flow has
learnt the encoder's latents already, the encoder rests from the start, and only the decoder gains.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from training import pictures, runs
from training.loop import Average, Loop, autocast, averages, compiled, device, fill, frozen
from training.muon import Optimiser
from training.nets import Critic, Decoder, Encoder, Residual
from training.profiles import Autoencoder, Budget, with_minutes

HELD_OUT_SHOWN = 64
HALVED_EVERY = 4  # steps


def build(settings: Autoencoder) -> nn.ModuleDict:
    """Encoder and decoder, fresh."""
    return nn.ModuleDict(
        {
            "encoder": Encoder(settings.channels, settings.encoder, settings.encoder_depth),
            "decoder": Decoder(settings.channels, settings.decoder, settings.decoder_depth),
        }
    )


def on_ground(x: Tensor, ground: Tensor) -> Tensor:
    """Three colours, -1 to 1, of a picture laid over a background (B, 3, 1, 1) of 0 to 1."""
    alpha = (x[:, 3:] + 1) / 2
    return x[:, :3] + (1 - alpha) * ground * 2


def difference(found: Tensor, wanted: Tensor) -> Tensor:
    """Absolute difference of values and of gradients, on three scales."""
    gap, total = (found - wanted).float(), torch.zeros((), device=found.device)
    for scale in range(3):
        steps = (gap[..., 1:] - gap[..., :-1]).abs().mean() + (gap[..., 1:, :] - gap[..., :-1, :]).abs().mean()
        total = total + gap.abs().mean() + steps * (1.0 if scale == 0 else 0.5)
        gap = F.avg_pool2d(gap, 2)
    return total


def psnr(found: Tensor, wanted: Tensor) -> Tensor:
    """Peak signal to noise in decibels, each picture for itself, of values -1 to 1."""
    return 10 * torch.log10(4 / (found - wanted).float().pow(2).flatten(1).mean(1).clamp(min=1e-9))


def measure(model: nn.Module, rows: Tensor) -> dict[str, float]:
    """PSNR on white at 256 px, and on white and on a dark ground after both are halved to 128 px."""
    sums: dict[str, list[Tensor]] = {"psnr_256": [], "psnr_128": [], "psnr_128_dark": []}
    for some in rows.split(16):
        x = some.float() / 127.5 - 1
        with torch.no_grad(), autocast(x.device):
            y = model["decoder"](model["encoder"](x)).float().clamp(-1, 1)
        for name, level in (("white", 1.0), ("dark", 0.15)):
            ground = torch.full((1, 3, 1, 1), level, device=x.device)
            a, b = on_ground(y, ground).clamp(-1, 1), on_ground(x, ground)
            if name == "white":
                sums["psnr_256"].append(psnr(a, b))
            key = "psnr_128" if name == "white" else "psnr_128_dark"
            sums[key].append(psnr(F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)))
    return {name: float(torch.cat(found).mean()) for name, found in sums.items()}


class Trainer:
    """Networks, optimisers and what one step of each kind is."""

    def __init__(self, settings: Autoencoder, where: torch.device, root: Path) -> None:
        self.settings, self.where = settings, where
        fresh = build(settings)
        fill(fresh, root, "autoencoder")
        self.model = fresh.to(where, memory_format=torch.channels_last)
        self.critic = Critic().to(where, memory_format=torch.channels_last)
        self.optimisers = {
            name: Optimiser([module for module in half.modules() if isinstance(module, Residual)], half)
            for name, half in self.model.items()
        }
        self.critic_optimiser = torch.optim.AdamW(self.critic.parameters(), lr=4e-4, betas=(0.5, 0.9), fused=True)
        self.average = Average(self.model, 0.999)
        self.encode = compiled(self.model["encoder"], where)
        self.decode = compiled(self.model["decoder"], where)

    def parts(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "critic": self.critic,
            "critic_optimiser": self.critic_optimiser,
            "average": self.average,
            **self.optimisers,
        }

    def rest_encoder(self) -> None:
        """Make the encoder its average, which is what the flow was shown and what will be shipped."""
        with torch.no_grad():
            for parameter, mean in zip(self.average.live, self.average.mean, strict=True):
                if any(parameter is own for own in self.model["encoder"].parameters()):
                    parameter.copy_(mean)

    def _latent(self, x: Tensor) -> Tensor:
        z = self.encode(x)
        strength = self.settings.noise * torch.rand(len(x), 1, 1, 1, device=self.where)
        return z + (strength * torch.randn_like(z)).to(z.dtype)

    def step(self, x: Tensor, number: int, rate: float, *, sharpen: bool, rest: bool) -> dict[str, Tensor]:
        """One step; the numbers to tell."""
        x = x.contiguous(memory_format=torch.channels_last)
        ground = torch.rand(len(x), 3, 1, 1, device=self.where)
        half = len(x) // 2
        with autocast(self.where):
            with torch.set_grad_enabled(not rest):
                z = self._latent(x)
            z = torch.cat([z[:half].flip(-1), z[half:]])
            x = torch.cat([x[:half].flip(-1), x[half:]])
            y = self.decode(z)
            loss = difference(y, x) + 0.5 * difference(on_ground(y, ground), on_ground(x, ground))
            told = {"loss": loss}
            if number % HALVED_EVERY == 0 and not rest:
                loss = loss + 0.25 * difference(self.model["decoder"](F.avg_pool2d(z, 2)), F.avg_pool2d(x, 2))
            if sharpen:
                loss = loss - self.settings.adversarial * self.critic(on_ground(y, ground)).mean()
        loss.backward()
        for name in ("decoder",) if rest else ("decoder", "encoder"):
            self.optimisers[name].step(rate)
        self.average.follow()
        if sharpen:
            told["critic"] = self._teach_critic(on_ground(x, ground), on_ground(y.detach(), ground))
        return told

    def _teach_critic(self, real: Tensor, made: Tensor) -> Tensor:
        with autocast(self.where):
            loss = F.relu(1 - self.critic(real)).mean() + F.relu(1 + self.critic(made)).mean()
        self.critic_optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.critic_optimiser.step()
        return loss


def train(root: Path, settings: Autoencoder, budget: Budget) -> dict[str, float]:
    """Train until the budget is spent; the last figures on held-out emoji."""
    where = device()
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(0)
    trainer = Trainer(settings, where, root)
    data = pictures.load(root, settings.rendered, where)
    shown = data.held_out[:HELD_OUT_SHOWN]
    loop = Loop(root, "autoencoder", budget, trainer.parts())
    count = sum(p.numel() for p in trainer.model.parameters())
    print(f"autoencoder: {count / 1e6:.2f} M parameters, {len(data.plain)} emoji, {len(shown)} held out", flush=True)

    def look() -> Mapping[str, float]:
        with trainer.average.in_place():
            return measure(trainer.model, shown)

    learnt = averages(root, "flow") is not None
    if learnt:
        trainer.rest_encoder()
    for share in loop.steps(look):
        sharpen = settings.adversarial > 0 and share >= settings.adversarial_from
        batch = data.batch(budget.batch, settings.crop)
        rate = loop.rate(flat=0.4)
        loop.tell(**trainer.step(batch, loop.step, rate, sharpen=sharpen, rest=sharpen or learnt))
    return loop.history[-1] if loop.history else {}


def load(root: Path, settings: Autoencoder, where: torch.device) -> nn.ModuleDict:
    """The trained networks, with averaged weights, frozen."""
    model = build(settings)
    frozen(model, root, "autoencoder", where)
    return model


def main() -> None:
    options = runs.arguments(__doc__)
    settings = runs.profile_of(options).autoencoder
    train(runs.root_of(options), settings, with_minutes(settings.budget, options.minutes))


if __name__ == "__main__":
    main()
