"""From prompts to pictures with the trained networks, in PyTorch: for evaluation and for looking."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pixeldojo.engines.dojo import layout, meaning
from pixeldojo.engines.dojo.painter import bends, step_times
from training import latents, text, train_ae, train_flow
from training.flow_net import FlowNet
from training.loop import autocast, device
from training.nets import unit
from training.profiles import CANVASES, LATENT_STRIDE, Profile

AT_ONCE = 50


@dataclass(frozen=True)
class Given:
    """For inpainting and image-to-image: a standard latent (B, C, H, W), and one where its cells are to stay."""

    latent: Tensor
    mask: Tensor  # (B, 1, H, W)
    strength: float = 1.0  # 1 begins with noise; less begins on the way from the latent


@dataclass(frozen=True)
class Sampling:
    """How a picture is drawn. `shift` makes the steps near the noise, where the text decides, so many times shorter
    than equal ones, and those near the picture longer."""

    steps: int = 12
    guidance: float = 4.0
    shift: float = 3.0

    def times(self, strength: float = 1.0) -> list[float]:
        """Where the steps begin and end: from 0 to 1, or their last part, as long as `strength` says."""
        found: list[float] = step_times(self.steps, strength, self.shift).tolist()
        return found


def walked(x: Tensor, times: Sequence[float], ask: Callable[[Tensor, float], Tensor]) -> Tensor:
    """Where `x` comes to by the directions that `ask` gives for a point and a time, stepping as the service does."""
    before = None
    for now, then, turn in zip(times, times[1:], bends(np.array(times, np.float32)).tolist(), strict=False):
        found = ask(x, now)
        x = x + (then - now) * (found if before is None else found + turn * (found - before))
        before = found
    return x


class Painter:
    """The networks of one run, ready to draw."""

    def __init__(self, root: Path, profile: Profile, encoder: Path, *, stage: str = "flow") -> None:
        self.where = device()
        self.net: FlowNet = train_flow.load(root, profile, self.where, stage=stage)
        self.autoencoder: nn.ModuleDict = train_ae.load(root, profile.autoencoder, self.where)
        self.mean, self.deviation = (part.to(self.where)[:, None, None] for part in latents.standard(root))
        self.text = text.Encoder(encoder, profile.flow.text_tokens)
        self.meanings = meaning.Meanings(encoder / meaning.FILE)
        self.most, self.distilled = profile.flow.text_tokens, stage == "distil"

    def said(self, prompts: Sequence[str]) -> list[str]:
        """The prompts in words that the model knows."""
        _, meant = self.text.encode(prompts)
        pairs = zip(prompts, meant.astype(np.float32), strict=True)
        return [self.meanings.said(prompt.lower(), state) for prompt, state in pairs]

    def words(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Token states, pooled states and lengths of the prompts, said as the service says them to the model."""
        states, pooled = self.text.encode(self.said(prompts))
        lengths = torch.tensor([len(one) for one in states])
        whole = torch.zeros(len(prompts), self.most, text.STATE_WIDTH)
        for row, one in zip(whole, states, strict=True):
            row[: len(one)] = torch.from_numpy(one)
        return whole.to(self.where), torch.from_numpy(pooled).float().to(self.where), lengths.to(self.where)

    @torch.no_grad()
    def paint(
        self,
        prompts: Sequence[str],
        *,
        canvas: str = "1:1",
        how: Sampling = Sampling(),
        seed: int = 0,
        given: Given | None = None,
    ) -> Tensor:
        """Pictures (B, 4, H, W), floats 0 to 1, colour multiplied by alpha; composed as the service does it."""
        if given is not None:
            return self.whole(prompts, canvas=canvas, how=how, seed=seed, given=given)
        said = self.said(prompts)
        found = [layout.read(prompt, self.meanings) for prompt in said]
        whole = [each is None or (canvas == "1:1" and layout.alone(each)) for each in found]
        direct = [prompt for prompt, one in zip(said, whole, strict=True) if one]
        apart = [each for each, one in zip(found, whole, strict=True) if each is not None and not one]
        parts = [layout.paintings(each, seed) for each in apart]
        drawn = iter(self.whole(direct, canvas=canvas, how=how, seed=seed) if direct else ())
        things = iter(self.whole(sum(parts, ()), canvas="1:1", how=how, seed=seed) if parts else ())
        height, width = (side * LATENT_STRIDE for side in CANVASES[canvas])
        laid = iter(
            [
                layout.laid(each, [next(things).cpu().numpy() for _ in part], (height, width), spread=1, seed=seed)
                for each, part in zip(apart, parts, strict=True)
            ]
        )
        return torch.stack([next(drawn) if one else torch.from_numpy(next(laid)).to(self.where) for one in whole])

    def whole(
        self, prompts: Sequence[str], *, canvas: str, how: Sampling, seed: int, given: Given | None = None
    ) -> Tensor:
        """Each painted in one go, as many at once as fit."""
        drawn = []
        for start in range(0, len(prompts), AT_ONCE):
            some = prompts[start : start + AT_ONCE]
            z = self.latents(some, CANVASES[canvas], how=how, seed=seed + start, given=given)
            drawn.append(self.decode(z))
        return torch.cat(drawn)

    def latents(
        self,
        prompts: Sequence[str],
        canvas: tuple[int, int],
        *,
        how: Sampling,
        seed: int,
        given: Given | None,
    ) -> Tensor:
        """Standard latents."""
        words = self.words(prompts)
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(len(prompts), self.net.channels, *canvas, generator=generator).to(self.where)
        if given is None:
            given = Given(torch.zeros_like(noise), torch.zeros_like(noise[:, :1]))
        times = how.times(given.strength)
        x = (1 - times[0]) * noise + times[0] * given.latent
        x = walked(x, times, lambda x, now: self.direction(x, now, words, how.guidance, given, canvas))
        return x * (1 - given.mask) + given.latent * given.mask

    def direction(
        self,
        x: Tensor,
        time: float,
        words: tuple[Tensor, Tensor, Tensor],
        guidance: float,
        given: Given,
        canvas: tuple[int, int],
    ) -> Tensor:
        """The guided direction. A distilled network knows it; another one is asked with and without text."""
        tokens = train_flow.tokens_of(self.net, x, given.latent, given.mask)
        states, pooled, lengths = words
        asked = torch.full_like(pooled[:, 0], guidance if self.distilled else 0.0)
        rest = (states, pooled, lengths, asked)
        if not self.distilled and guidance != 1:
            tokens = torch.cat([tokens, tokens])
            rest = (
                torch.cat([states] * 2),
                torch.cat([pooled] * 2),
                torch.cat([lengths, 0 * lengths]),
                torch.cat([asked] * 2),
            )
        positions = self.net.positions(*canvas).to(self.where)
        with autocast(self.where):
            found = self.net(tokens, positions, torch.full_like(rest[3], time), *rest).float()
        if len(tokens) > len(x):
            with_text, without = found.chunk(2)
            found = without + guidance * (with_text - without)
        return self.net.cells(found, canvas[0])

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Pictures of standard latents."""
        from_standard = unit(z * self.deviation + self.mean)
        with autocast(self.where):
            y = self.autoencoder["decoder"](from_standard.contiguous(memory_format=torch.channels_last)).float()
        y = ((y + 1) / 2).clamp(0, 1)
        return torch.cat([torch.minimum(y[:, :3], y[:, 3:]), y[:, 3:]], 1)

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """Standard latents of pictures, floats 0 to 1."""
        return (latents.encode(self.autoencoder, pictures.to(self.where)) - self.mean) / self.deviation
