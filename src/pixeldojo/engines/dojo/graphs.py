"""What lies in this folder: the ONNX graphs as sessions, and what `model.json` says of them.

Knows nothing of prompts and pictures. Every engine of this room opens its graphs here, so threads and memory are
settled in one place.
"""

import contextlib
import ctypes
import os
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
from numpy.typing import NDArray

Floats = NDArray[np.float32]
WEIGHTS = Path(__file__).parent
MOST_THREADS = 8  # each tile and picture in work takes memory, and a container may have fewer cores than it sees


class Spec(msgspec.Struct, frozen=True):
    """The sizes of the image model, as its training wrote them down. Cells are those of the latent."""

    latent_channels: int
    latent_stride: int  # pixels of the picture per cell, each way
    patch: int  # cells per token, each way: sides of a canvas are multiples of it
    text_tokens: int  # of a prompt at most, start and end marks included
    canvases: dict[str, tuple[int, int]]  # what it was trained on, by aspect ratio: height and width in cells
    steps: int
    guidance: float
    shift: float  # the steps near the noise, where the text decides, are so many times shorter than equal ones


def spec(folder: Path = WEIGHTS) -> Spec:
    """The sizes in a folder's `model.json`."""
    return msgspec.json.decode((folder / "model.json").read_bytes(), type=Spec)


def session(path: Path) -> onnxruntime.InferenceSession:
    """One graph on the CPU that runs in the calling thread and keeps no memory between calls."""
    options = onnxruntime.SessionOptions()
    # Pictures and tiles are what is spread over the cores. Two threads in one graph give the same bytes but take a
    # tenth more processor time, twice as much where they spin while they wait.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # The arena would only ever grow. Without it a picture takes 3 % longer and memory stays flat.
    options.enable_cpu_mem_arena = False
    graph = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    _give_back()
    return graph


def _give_back() -> None:
    """Return to the system what unfolding the weights took, twice their size; glibc would keep it for later."""
    with contextlib.suppress(OSError, TypeError, AttributeError):  # other C libraries have no such call
        ctypes.CDLL(None).malloc_trim(0)


def machine_threads() -> int:
    """The cores this process may use, at most `MOST_THREADS`."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS, nor on Windows
        cores = os.cpu_count() or 1
    return min(cores, MOST_THREADS)
