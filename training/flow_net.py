"""The flow transformer: a noisy latent, a time and a text to the direction from noise to picture.

Tokens are patches of the latent. Text states join the keys and values of every block. Positions are rotary in two
dimensions, so any canvas fits. Time, pooled text and guidance modulate every block through one shared table.
"""

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from training.profiles import Flow
from training.text import STATE_WIDTH

FREQUENCIES = 64
TEXT_WIDTH = 256  # of the states the blocks read
GIVEN_EXTRA = 1  # channels that say which cells are given, beside the given cells themselves


def rms(x: Tensor) -> Tensor:
    """x with a root mean square of one along its last axis."""
    return x * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-6).to(x.dtype)


def attention(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Weighted means of the values (B, heads, N, width); `mask` is true where a key counts.

    On a CPU spelt out: two plain products, whose way back is 1.3 times as quick as the fused form's.
    """
    if q.is_cuda:
        return F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
    alike = (q @ keys.transpose(-1, -2)).float() * q.shape[-1] ** -0.5
    return alike.masked_fill(~mask, -1e9).softmax(-1).to(values.dtype) @ values


def waves(x: Tensor, most: float) -> Tensor:
    """Sines and cosines of x (B,) at rising frequencies (B, 2 * FREQUENCIES)."""
    steps = torch.arange(FREQUENCIES, device=x.device, dtype=torch.float32) / FREQUENCIES
    angles = x.float()[:, None] * most * torch.exp(-math.log(most * 10) * steps)
    return torch.cat([angles.sin(), angles.cos()], -1)


def turns(positions: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine (N, width / 2) of the rotary angles: half of them for rows, half for columns."""
    quarter = width // 4
    steps = torch.arange(quarter, device=positions.device, dtype=torch.float32) / quarter
    rates = math.pi / 2 * torch.exp(-math.log(60.0) * steps)
    angles = (positions.float()[:, :, None] * rates).flatten(1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary positions on (B, heads, N, width)."""
    cos, sin = (part.to(x.dtype) for part in turn)
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


class Block(nn.Module):
    """Self-attention with the text's keys beside the picture's, then a feed-forward; both modulated."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.text_kv = nn.Linear(TEXT_WIDTH, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.table = nn.Parameter(torch.zeros(6, width))
        self.scales = nn.Parameter(torch.ones(3, width // heads))  # of queries, keys and text keys
        for layer in (self.out, self.down):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.down.bias)

    def forward(self, x: Tensor, modulation: Tensor, text: Tensor, mask: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        table = (modulation + self.table)[:, :, None].to(text.dtype)  # half the bytes to move, under autocast
        shift, scale, gate, shift2, scale2, gate2 = table.unbind(1)
        x = x + gate * self._attend(rms(x).to(text.dtype) * (1 + scale) + shift, text, mask, turn)
        inner = rms(x).to(text.dtype) * (1 + scale2) + shift2
        return x + gate2 * self.down(F.gelu(self.up(inner), approximate="tanh"))

    def _attend(self, x: Tensor, text: Tensor, mask: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        batch, _, width = x.shape
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, width // self.heads)).permute(2, 0, 3, 1, 4).unbind(0)
        shape = (2, self.heads, width // self.heads)
        text_k, text_v = self.text_kv(text).unflatten(-1, shape).permute(2, 0, 3, 1, 4).unbind(0)
        of_q, of_k, of_text = self.scales.to(x.dtype)
        q, k = rotate(rms(q) * of_q, turn), rotate(rms(k) * of_k, turn)
        keys, values = torch.cat([k, rms(text_k) * of_text], 2), torch.cat([v, text_v], 2)
        seen = attention(q.to(values.dtype), keys.to(values.dtype), values, mask)
        return self.out(seen.transpose(1, 2).reshape(batch, -1, width))


class FlowNet(nn.Module):
    """`forward` takes tokens; `patches` and `cells` turn latents (B, C, H, W) into tokens and back."""

    def __init__(self, settings: Flow, channels: int) -> None:
        super().__init__()
        width, self.patch, self.heads = settings.width, settings.patch, settings.heads
        self.channels, self.width = channels, width
        area = settings.patch**2
        self.entry = nn.Linear((2 * channels + GIVEN_EXTRA) * area, width)
        self.time = nn.Sequential(nn.Linear(2 * FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.guidance = nn.Sequential(nn.Linear(2 * FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        nn.init.zeros_(self.guidance[2].weight)
        nn.init.zeros_(self.guidance[2].bias)
        self.pooled = nn.Sequential(nn.Linear(STATE_WIDTH, width), nn.SiLU(), nn.Linear(width, width))
        self.no_pooled = nn.Parameter(torch.zeros(STATE_WIDTH))
        self.read = nn.Linear(STATE_WIDTH, TEXT_WIDTH)
        self.understand = nn.Sequential(nn.Linear(TEXT_WIDTH, TEXT_WIDTH), nn.SiLU(), nn.Linear(TEXT_WIDTH, TEXT_WIDTH))
        self.no_text = nn.Parameter(torch.randn(1, TEXT_WIDTH) * 0.5)  # always present, alone where there is no text
        self.modulation = nn.Linear(width, 6 * width)
        self.blocks = nn.ModuleList(Block(width, settings.heads) for _ in range(settings.depth))
        self.last = nn.Linear(width, 2 * width)
        self.exit = nn.Linear(width, channels * area)
        nn.init.normal_(self.modulation.weight, std=0.02)
        for layer in (self.last, self.exit):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def patches(self, cells: Tensor) -> Tensor:
        """(B, C, H, W) to (B, H/p * W/p, C * p * p)."""
        return F.pixel_unshuffle(cells, self.patch).flatten(2).transpose(1, 2)

    def cells(self, tokens: Tensor, height: int) -> Tensor:
        """The way back; `height` in latent cells."""
        grid = tokens.transpose(1, 2).unflatten(2, (height // self.patch, -1))
        return F.pixel_shuffle(grid, self.patch)

    def positions(self, height: int, width: int) -> Tensor:
        """Row and column of every token (N, 2), the middle of the canvas at zero, in latent cells."""
        rows = (torch.arange(height // self.patch) + 0.5) * self.patch - height / 2
        columns = (torch.arange(width // self.patch) + 0.5) * self.patch - width / 2
        return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).flatten(0, 1)

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        time: Tensor,
        states: Tensor,
        pooled: Tensor,
        lengths: Tensor,
        guidance: Tensor,
        present: Tensor | None = None,
    ) -> Tensor:
        """Direction for every token (B, N, C * p * p).

        `tokens` are patches of the noisy latent, the given latent and the mask; `time` (B,) runs from 0, noise,
        to 1, picture; `states` (B, T, 384); `lengths` (B,) tokens of text used, 0 for none; `guidance` (B,), 0
        where it is not asked for; `present` (N,) marks the tokens that are not padding.
        """
        without = (lengths == 0)[:, None]
        about = self.time(waves(time, 1000.0)) + self.pooled(torch.where(without, self.no_pooled, pooled))
        about = F.silu(about + self.guidance(waves(guidance, 10.0)) * (guidance > 0)[:, None])
        modulation = self.modulation(about).unflatten(-1, (6, self.width))
        text = rms(self.read(states))
        text = text + self.understand(text)
        text = torch.cat([self.no_text.to(text.dtype).expand(tokens.shape[0], 1, -1), text], 1)
        place = torch.arange(text.shape[1], device=tokens.device)
        used = place[None] <= lengths[:, None]
        if present is None:
            present = torch.ones(tokens.shape[1], dtype=torch.bool, device=tokens.device)
        mask = torch.cat([present.expand(tokens.shape[0], -1), used], 1)[:, None, None]
        turn = turns(positions, self.width // self.heads)
        x = self.entry(tokens).float()  # what the blocks add to stays in full precision
        for block in self.blocks:
            x = block(x, modulation, text, mask, turn)
        shift, scale = self.last(about)[:, None].chunk(2, -1)
        return self.exit(rms(x) * (1 + scale) + shift)
