"""The three graphs and the loop between them: token ids and a seed go in, a small picture comes out.

Flow matching: the latent moves from noise (t = 0) to the picture (t = 1) along the velocity that the denoiser
predicts. One picture a call, always: the int8 graphs choose their activation scales over the whole batch,
so in a batch every picture would change with its neighbours.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from pixeldojo.engines.dojo import wording

Floats = NDArray[np.float32]

TEXT_TOKENS = 14  # what the denoiser attends to
TEXT_WIDTH = 384
LATENT_SHAPE = (1, 64, 16)  # an 8 × 8 grid, row by row, of 16 channels


class Sampler:
    """The loaded graphs. Any number of threads may draw with them at once."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(wording.MAX_IDS)
        self._text = session(folder / "text.int8.onnx")
        self._denoiser = session(folder / "denoiser.int8.onnx")
        self._decoder = session(folder / "decoder.fp16.onnx")

    def read(self, ids: list[int]) -> dict[str, NDArray[np.generic]]:
        """The denoiser's text inputs for one prompt, as pairs: row 0 with the prompt, row 1 without it."""
        row = np.array([ids], np.int64)
        states, pooled = self._text.run(None, {"ids": row, "mask": np.ones_like(row)})
        used = min(len(ids), TEXT_TOKENS)
        padded = np.zeros((2, TEXT_TOKENS, TEXT_WIDTH), np.float32)
        padded[:, :used] = states[:, :used]
        return {
            "txt": padded,
            "pool": np.repeat(pooled, 2, axis=0),
            "ln": np.array([used, 0], np.int64),  # 0 switches the text off
        }

    def draw(
        self,
        text: dict[str, NDArray[np.generic]],
        *,
        seed: int,
        steps: int,
        guidance: float,
        tick: Callable[[Floats | None], None],
    ) -> Floats:
        """One picture, float32 (3, 128, 128), 0 to 255 but not clipped.

        `tick` is called before each step and once before the decoding, and may raise to stop it. From the second
        call on it is given the latent that this would end in if the velocity stayed as it is; see `show`.
        """
        latent: Floats = np.random.default_rng(seed).standard_normal(LATENT_SHAPE, dtype=np.float32)
        times = np.linspace(0, 1, steps + 1, dtype=np.float32)
        ending: Floats | None = None
        for step in range(steps):
            tick(ending)
            now, then = times[step], times[step + 1]
            inputs = {"x": np.repeat(latent, 2, axis=0), "t": np.full(2, now, np.float32), **text}
            (velocity,) = self._denoiser.run(None, inputs)
            wanted, unguided = velocity[:1], velocity[1:]
            velocity = unguided + np.float32(guidance) * (wanted - unguided)
            ending = latent + (1 - now) * velocity
            latent = latent + (then - now) * velocity
        tick(ending)
        return self.show(latent)

    def show(self, latent: Floats) -> Floats:
        """The picture of a latent, as `draw` gives it."""
        (pixels,) = self._decoder.run(None, {"z": latent})
        picture: Floats = (pixels[0] + np.float32(1)) * np.float32(127.5)
        return picture


def session(path: Path) -> onnxruntime.InferenceSession:
    """One graph on the CPU that runs in the calling thread and keeps no memory between calls."""
    options = onnxruntime.SessionOptions()
    # With one thread nothing depends on how the machine splits a sum, so bytes don't depend on its cores.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # The arena would only ever grow. Without it a picture takes 3 % longer and memory stays flat.
    options.enable_cpu_mem_arena = False
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def machine_threads() -> int:
    """The cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS, nor on Windows
        return os.cpu_count() or 1
