"""Stage `train-upscaler`: pictures twice and four times as large.

Leaves `upscaler.pt`. Sharp crops of the art are made small by one of several filters, and now and then blurred,
given noise or blocks as JPEG leaves them, or passed through the autoencoder at small size; the network learns the
way back. Both scales share a body.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from training import pictures, runs
from training.loop import Average, Loop, autocast, device, fill, frozen
from training.muon import Optimiser
from training.nets import Residual, Upscaler
from training.profiles import Budget, Profile, with_minutes
from training.profiles import Upscaler as Settings
from training.train_ae import difference, on_ground, psnr

SCALES = (2, 4)
CLEAN_SHARE = 0.5  # of the small pictures, those with nothing done to them
BLOCK = 8
WINDOW, WINDOW_SIGMA = 11, 1.5  # pixels, of the structural similarity


def build(settings: Settings) -> Upscaler:
    """The network, fresh."""
    return Upscaler(settings.width, settings.depth)


def smaller(x: Tensor, scale: int, mode: str) -> Tensor:
    """x made smaller: "area", "bilinear" or "bicubic", the latter two without aliasing."""
    if mode == "area":
        return F.avg_pool2d(x, scale)
    return F.interpolate(x, scale_factor=1 / scale, mode=mode, antialias=True).clamp(-1, 1)


def blocks(x: Tensor, strength: float) -> Tensor:
    """What JPEG does: 8x8 blocks in cosines, rounded the more coarsely the finer they are. Sides in eights."""
    place = torch.arange(BLOCK, device=x.device, dtype=torch.float32)
    basis = torch.cos(torch.pi / BLOCK * (place[None] + 0.5) * place[:, None]) * (2 / BLOCK) ** 0.5
    basis[0] /= 2**0.5
    grid = x.unflatten(-1, (-1, BLOCK)).unflatten(-3, (-1, BLOCK)).transpose(-3, -2)
    waves = torch.einsum("ij,...jk,lk->...il", basis, grid, basis)
    step = strength * (1 + place[:, None] + place[None])
    found = torch.einsum("ji,...jk,kl->...il", basis, (waves / step).round() * step, basis)
    return found.transpose(-3, -2).flatten(-4, -3).flatten(-2, -1)


def degraded(x: Tensor, scale: int) -> Tensor:
    """A small picture made from the sharp one, spoilt or clean; values -1 to 1, colour no more than alpha."""
    mode = ("area", "bilinear", "bicubic", "bicubic")[int(torch.randint(4, (1,)))]
    low = smaller(x, scale, mode)
    spoilt = low
    if float(torch.rand(())) < 0.4:
        spoilt = F.avg_pool2d(F.pad(spoilt, (1, 1, 1, 1), mode="replicate"), 3, stride=1) * 0.5 + spoilt * 0.5
    if float(torch.rand(())) < 0.5:
        spoilt = spoilt + 0.04 * torch.rand(len(x), 1, 1, 1, device=x.device) * torch.randn_like(spoilt)
    if float(torch.rand(())) < 0.5 and spoilt.shape[-1] % BLOCK == 0:
        spoilt = torch.cat([blocks(spoilt[:, :3].float(), 0.01 + 0.06 * float(torch.rand(()))), spoilt[:, 3:]], 1)
    clean = torch.rand(len(x), 1, 1, 1, device=x.device) < CLEAN_SHARE
    low = torch.where(clean, low, spoilt).clamp(-1, 1)
    return torch.cat([torch.minimum(low[:, :3], low[:, 3:]), low[:, 3:]], 1)


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity of pictures (B, C, H, W), values -1 to 1, by Gaussian windows of 11 pixels; (B,)."""
    away = torch.arange(WINDOW, device=x.device) - WINDOW // 2
    line = torch.exp(-(away.float() ** 2) / (2 * WINDOW_SIGMA**2))
    kernel = (line[:, None] * line / line.sum() ** 2)[None, None]

    def mean(z: Tensor) -> Tensor:
        return F.conv2d(z.flatten(0, 1)[:, None], kernel)

    mx, my = mean(x), mean(y)
    vx, vy, both = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    small, smaller_still = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    map_ = (2 * mx * my + small) * (2 * both + smaller_still)
    map_ = map_ / ((mx * mx + my * my + small) * (vx + vy + smaller_still))
    return map_.unflatten(0, (len(x), -1)).mean((1, 2, 3, 4))


def measure(net: Upscaler, rows: Tensor) -> dict[str, float]:
    """PSNR and SSIM on white on held-out pictures halved and quartered, and of bicubic enlargement for comparison."""
    found: dict[str, list[Tensor]] = {}
    for some in rows.split(16):
        x = some.float() / 127.5 - 1
        ground = torch.ones(1, 3, 1, 1, device=x.device)
        wanted = on_ground(x, ground)
        for scale in SCALES:
            low = smaller(x, scale, "bicubic")
            with torch.no_grad(), autocast(x.device):
                made = net(low, scale).float().clamp(-1, 1)
            plain = F.interpolate(low, scale_factor=float(scale), mode="bicubic").clamp(-1, 1)
            for name, prefix, one in (("psnr", "", made), ("bicubic", "bicubic_", plain)):
                white = on_ground(one, ground).clamp(-1, 1)
                found.setdefault(f"{name}_{scale}x", []).append(psnr(white, wanted))
                found.setdefault(f"{prefix}ssim_{scale}x", []).append(ssim(white, wanted))
    return {name: float(torch.cat(values).mean()) for name, values in found.items()}


def train(root: Path, settings: Settings, budget: Budget) -> dict[str, float]:
    """Train until the budget is spent; the last figures on held-out emoji."""
    where = device()
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(0)
    data = pictures.load(root, settings.rendered, where)
    net = build(settings)
    fill(net, root, "upscaler")
    net.to(where, memory_format=torch.channels_last)
    optimiser = Optimiser([module for module in net.modules() if isinstance(module, Residual)], net)
    average = Average(net, 0.999)
    loop = Loop(root, "upscaler", budget, {"net": net, "optimiser": optimiser, "average": average})

    def look() -> Mapping[str, float]:
        with average.in_place():
            return measure(net, data.held_out)

    for _ in loop.steps(look):
        sharp = data.batch(budget.batch, settings.crop).contiguous(memory_format=torch.channels_last)
        scale = SCALES[loop.step % 2]
        low, ground = degraded(sharp, scale), torch.rand(len(sharp), 3, 1, 1, device=where)
        with autocast(where):
            made = net(low, scale)
        loss = difference(made.float(), sharp) + 0.5 * difference(
            on_ground(made.float(), ground), on_ground(sharp, ground)
        )
        loss.backward()
        optimiser.step(loop.rate())
        average.follow()
        loop.tell(loss=loss)
    return loop.history[-1] if loop.history else {}


def load(root: Path, profile: Profile, where: torch.device) -> Upscaler:
    """The trained network with averaged weights, frozen."""
    net = build(profile.upscaler)
    frozen(net, root, "upscaler", where)
    return net


def main() -> None:
    options = runs.arguments(__doc__)
    settings = runs.profile_of(options).upscaler
    train(runs.root_of(options), settings, with_minutes(settings.budget, options.minutes))


if __name__ == "__main__":
    main()
