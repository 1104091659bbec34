"""Captions as numbers: the frozen text encoder's token states, worked out once and kept.

The encoder is the ONNX graph the service ships (`text.int8.onnx`), so training sees exactly what the service will
compute. States are kept end to end in one array, since most captions are short.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

STATE_WIDTH = 384
AT_ONCE = 64


@dataclass(frozen=True)
class Texts:
    """Token states of many captions, end to end, and the pooled state of each."""

    states: Tensor  # (sum of lengths, 384)
    starts: Tensor  # (captions,)
    lengths: Tensor  # (captions,)
    pooled: Tensor  # (captions, 384)

    def to(self, where: torch.device) -> "Texts":
        return Texts(*(part.to(where) for part in (self.states, self.starts, self.lengths, self.pooled)))

    def take(self, rows: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
        """States (B, most, 384) with zeros at the end, pooled (B, 384), tokens used (B,)."""
        lengths = self.lengths[rows].clamp(max=most)
        place = torch.arange(most, device=rows.device)[None]
        used = place < lengths[:, None]
        index = (self.starts[rows][:, None] + place).clamp(max=len(self.states) - 1)
        return self.states[index].float() * used[..., None], self.pooled[rows].float(), lengths


class Encoder:
    """The text encoder. Keeps at most `most` tokens of a caption."""

    def __init__(self, folder: Path, most: int, *, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(
            folder / "text.int8.onnx", options, providers=["CPUExecutionProvider"]
        )
        self.tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(most)

    def encode(self, captions: Sequence[str]) -> tuple[list[NDArray[np.float16]], NDArray[np.float16]]:
        """Each caption's token states (T, 384), and the pooled states (captions, 384)."""
        rows = [one.ids for one in self.tokenizer.encode_batch([caption.lower() for caption in captions])]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        states: list[Any] = [None] * len(rows)
        pooled = np.zeros((len(rows), STATE_WIDTH), np.float16)
        # The graph quantises a whole batch with one scale, so captions of one length go together, unpadded, one
        # by one: the service encodes a prompt alone, and gets these very numbers.
        for i in order:
            ids = np.array([rows[i]], np.int64)
            found, whole = self.session.run(None, {"ids": ids, "mask": np.ones_like(ids)})
            states[i], pooled[i] = found[0].astype(np.float16), whole[0]
        return states, pooled


def encode_all(captions: Sequence[str], folder: Path, most: int, *, threads: int) -> Texts:
    """All captions, on so many threads."""
    encoder = Encoder(folder, most)
    parts = [captions[i : i + AT_ONCE] for i in range(0, len(captions), AT_ONCE)]
    with ThreadPoolExecutor(threads) as pool:
        done = list(pool.map(encoder.encode, parts))
    states = [one for found, _ in done for one in found]
    lengths = torch.tensor([len(one) for one in states])
    return Texts(
        torch.from_numpy(np.concatenate(states)),
        lengths.cumsum(0) - lengths,
        lengths,
        torch.from_numpy(np.concatenate([pooled for _, pooled in done])),
    )


def save(path: Path, texts: Texts) -> None:
    torch.save(vars(texts), path)


def load(path: Path) -> Texts:
    return Texts(**torch.load(path, weights_only=True, mmap=True))
