"""The convolutional networks: the autoencoder's two halves, the patch critic, the upscaler.

Pictures are (B, 4, H, W), red, green, blue, alpha, colour multiplied by alpha, values -1 to 1. Latents are
(B, C, H/16, W/16) with a root mean square of one over the channels of each cell.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


def unit(x: Tensor, dim: int = 1) -> Tensor:
    """x scaled to a root mean square of one along `dim`."""
    return x * torch.rsqrt(x.float().pow(2).mean(dim, keepdim=True) + 1e-6).to(x.dtype)


class Residual(nn.Module):
    """Two 3x3 convolutions beside the identity; they begin as nothing."""

    def __init__(self, width: int, *, normalise: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)
        self.normalise = normalise

    def forward(self, x: Tensor) -> Tensor:
        inner = unit(x) if self.normalise else x
        return x + self.second(F.silu(self.first(inner)))


def _stack(width: int, depth: int, *, normalise: bool) -> list[nn.Module]:
    return [Residual(width, normalise=normalise) for _ in range(depth)]


class Encoder(nn.Module):
    """Picture to latent. `widths` are channels at 1/16, 1/8 and 1/4; the last one of the four is not used."""

    def __init__(self, channels: int, widths: tuple[int, ...], depth: int) -> None:
        super().__init__()
        deep, middle, shallow, _ = widths
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(64, shallow, 3, padding=1),
            *_stack(shallow, depth, normalise=False),
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * shallow, middle, 1),
            *_stack(middle, depth, normalise=True),
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * middle, deep, 1),
            *_stack(deep, depth, normalise=True),
            nn.Conv2d(deep, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return unit(self.layers(x))


class Decoder(nn.Module):
    """Latent to picture. `widths` are channels at 1/16, 1/8, 1/4 and 1/2."""

    def __init__(self, channels: int, widths: tuple[int, ...], depth: int) -> None:
        super().__init__()
        deep, middle, shallow, fine = widths
        self.layers = nn.Sequential(
            nn.Conv2d(channels, deep, 3, padding=1),
            *_stack(deep, depth, normalise=True),
            nn.Conv2d(deep, 4 * middle, 1),
            nn.PixelShuffle(2),
            *_stack(middle, depth, normalise=True),
            nn.Conv2d(middle, 4 * shallow, 1),
            nn.PixelShuffle(2),
            *_stack(shallow, depth, normalise=False),
            nn.Conv2d(shallow, 4 * fine, 1),
            nn.PixelShuffle(2),
            *_stack(fine, depth - 1, normalise=False),
            nn.Conv2d(fine, 16, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z)


class Critic(nn.Module):
    """Says of each patch how much it looks like a real picture. Sees three colours on some background."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for factor in (1, 2):
            layers += [nn.Conv2d(factor * width, 2 * factor * width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(4 * width, 1, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Upscaler(nn.Module):
    """A picture twice and four times as large: a bilinear enlargement and, learnt, what it lacks."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.entry = nn.Conv2d(4, width, 3, padding=1)
        self.body = nn.Sequential(*_stack(width, depth, normalise=False), nn.Conv2d(width, width, 3, padding=1))
        self.twice = nn.Conv2d(width, 4 * 4, 3, padding=1)
        self.fourfold = nn.Conv2d(width, 4 * 16, 3, padding=1)
        for head in (self.twice, self.fourfold):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def forward(self, x: Tensor, scale: int) -> Tensor:
        features = self.entry(x)
        features = features + self.body(features)
        detail = F.pixel_shuffle((self.twice if scale == 2 else self.fourfold)(features), scale)
        return F.interpolate(x, scale_factor=float(scale), mode="bilinear") + detail
