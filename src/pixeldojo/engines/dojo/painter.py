"""From a prompt to a picture at the model's own size: the text encoder, the denoiser, the decoder and the encoder.

Pictures are float32 (4, H, W), 0 to 1, colour multiplied by alpha. Latents are float32 (1, C, H / stride, W / stride)
with mean 0 and deviation 1. One picture a call, always: in a batch the last bits of each would change with its
neighbours.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from pixeldojo.engines.dojo import graphs, meaning, wording
from pixeldojo.engines.dojo.graphs import Floats
from pixeldojo.engines.engine import Refusal

Ending = Callable[[], Floats]  # the latent that a painting would end in if its direction stayed as it is
Tick = Callable[[Ending | None], None]
Seed = int | tuple[int, int]
BENT_UNTIL = 0.6  # of the time from noise to picture


class Text(NamedTuple):
    """A prompt as the denoiser reads it."""

    states: Floats  # (1, text_tokens, width), zeros after the last token
    pooled: Floats  # (1, width)
    lengths: NDArray[np.int64]  # (1,) tokens in use


class Given(NamedTuple):
    """What a picture starts from, for image-to-image and inpainting."""

    latent: Floats
    mask: Floats  # (1, 1, h, w), one where a cell is to stay; zeros everywhere for image-to-image
    strength: float  # 1 begins with noise; less begins on the way from there to the latent


class Painter:
    """The loaded graphs. Any number of threads may paint with them at once.

        painter = Painter()
        text = painter.read("a cat")
        picture = painter.paint(text, cells=painter.spec.canvases["16:9"], seed=1)   # (4, 192, 352)

    The prompt's words for a background are not taken out here; `wording.parted` does that. `canvas.frame` finds the
    cells for any aspect ratio and the part of the canvas that has exactly that ratio.
    """

    def __init__(self, folder: Path = graphs.WEIGHTS) -> None:
        self.spec = graphs.spec(folder)
        self.tokenizer: Tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(self.spec.text_tokens)
        self.meanings = meaning.Meanings(folder / meaning.FILE)
        self._text = graphs.session(folder / "text.int8.onnx")
        self._denoiser = graphs.session(folder / "denoiser.onnx")
        self._decoder = graphs.session(folder / "decoder.onnx")
        self._encoder = graphs.session(folder / "encoder.onnx")

    def read(self, prompt: str) -> Text:
        """The prompt for `paint`, in words that the model knows. Raises `Refusal` where it has no word."""
        return self.understood(prompt)[1]

    def understood(self, prompt: str) -> tuple[str, Text]:
        """The prompt in words that the model knows, in lower case, and that for `paint`. Raises `Refusal`."""
        plain = wording.plain(prompt)
        text = self.encoded(plain)
        said = self.meanings.said(plain, text.pooled[0])
        return said, text if said == plain else self.encoded(said)

    def encoded(self, prompt: str) -> Text:
        """The prompt as it stands. Raises `Refusal` where it has no word."""
        try:
            ids = wording.token_ids(self.tokenizer, prompt=prompt)
        except wording.NoMeaning:
            raise Refusal(
                "prompt: there is no word in it that this model can read: use plain English or emoji, "
                "and say first what is to be seen (some twenty words count)."
            ) from None
        row = np.array([ids], np.int64)
        found, pooled = self._text.run(None, {"ids": row, "mask": np.ones_like(row)})
        states = np.zeros((1, self.spec.text_tokens, found.shape[2]), np.float32)
        states[:, : len(ids)] = found
        return Text(states, pooled, np.array([len(ids)], np.int64))

    def paint(
        self,
        text: Text,
        *,
        cells: tuple[int, int],
        seed: Seed,
        steps: int | None = None,
        guidance: float | None = None,
        tick: Tick = lambda ending: None,
        given: Given | None = None,
    ) -> Floats:
        """One picture (4, stride · h, stride · w) on a canvas of `cells` = (h, w).

        `tick` is called before each step and once before the decoding, and may raise to stop it. From the second
        call on it is given the way to the latent that this would end in; see `show`.
        """
        steps, guidance = steps or self.spec.steps, self.spec.guidance if guidance is None else guidance
        shape = (1, self.spec.latent_channels, *cells)
        noise: Floats = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
        start = given or Given(np.zeros_like(noise), np.zeros((1, 1, *cells), np.float32), 1.0)
        inputs = {
            **text._asdict(),
            "given": start.latent * start.mask,
            "mask": start.mask,
            "positions": positions(cells, self.spec.patch),
            "guidance": np.full(1, guidance, np.float32),
        }
        times = step_times(steps, start.strength, self.spec.shift)
        latent = between(noise, start.latent, times[0])
        kept = start.mask > 0 if start.mask.any() else None

        def walked(latent: Floats, direction: Floats, now: np.float32, to: np.float32) -> Floats:
            there: Floats = latent + (to - now) * direction
            # Cells that are given walk their own straight line.
            return there if kept is None else np.where(kept, between(noise, start.latent, to), there)

        ending: Ending | None = None
        before: Floats | None = None
        for now, then, bend in zip(times, times[1:], bends(times), strict=False):
            tick(ending)
            (direction,) = self._denoiser.run(None, {**inputs, "x": latent, "time": np.full(1, now, np.float32)})
            ending = functools.partial(walked, latent, direction, now, np.float32(1))
            turned = direction if before is None else direction + bend * (direction - before)
            latent, before = walked(latent, turned, now, then), direction
        tick(ending)
        return self.show(latent)

    def show(self, latent: Floats) -> Floats:
        """The picture of a latent."""
        (pictures,) = self._decoder.run(None, {"z": latent})
        picture: Floats = pictures[0]
        return picture

    def encode(self, picture: Floats) -> Floats:
        """The latent of a picture whose sides are multiples of the stride."""
        (latent,) = self._encoder.run(None, {"picture": picture[None]})
        found: Floats = latent
        return found


def step_times(steps: int, strength: float, shift: float) -> Floats:
    """Where the steps begin and end, (steps + 1,): from 0 to 1, or their last part, as long as `strength` says."""
    even = np.linspace(1 - strength, 1, steps + 1)
    times: Floats = (even / (even + shift * (1 - even))).astype(np.float32)
    return times


def bends(times: Floats) -> Floats:
    """For each step how far to turn on the way the direction turned in the step before: Adams and Bashforth's method
    of second order for steps of unequal lengths, as good from 12 steps as Euler's from 20. Nothing in the first step,
    and nothing in the long ones near the picture, where few steps would throw it out of bounds."""
    lengths = np.diff(times)
    turns = np.concatenate([np.zeros(1, np.float32), lengths[1:] / lengths[:-1] / 2])
    return np.where(times[1:] > BENT_UNTIL, np.float32(0), turns)


def between(noise: Floats, latent: Floats, time: np.float32) -> Floats:
    """The point of the straight line from noise, time 0, to latent, time 1."""
    return (1 - time) * noise + time * latent


def positions(cells: tuple[int, int], patch: int) -> Floats:
    """Row and column of every token (tokens, 2), in cells, the middle of the canvas at zero."""
    rows, columns = ((np.arange(side // patch) + 0.5) * patch - side / 2 for side in cells)
    return np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2).astype(np.float32)
