"""The engine family `dojo-upscale`: a picture goes in, the same one twice or four times as large comes out."""

import contextlib
import functools
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pixeldojo.engines.dojo import canvas, enlarge, graphs, reading
from pixeldojo.engines.dojo.enlarge import Bytes
from pixeldojo.engines.engine import Cancelled, Context, Output, Refusal

MOST_SIDE = 4096  # pixels of the output
PREVIEW_SIDE = 256


class UpscaleEngine:
    """Larger pictures on the CPU. `threads` is how many tiles are drawn at once; 0 asks the machine."""

    def __init__(self, *, threads: int = 0) -> None:
        self._threads = threads or graphs.machine_threads()
        self._enlarger: enlarge.Enlarger | None = None

    def load(self) -> None:
        """Build the two graphs from the weights beside this file (0.3 MB)."""
        self._enlarger = enlarge.Enlarger()

    def generate(self, params: Mapping[str, Any], out_dir: Path, context: Context) -> list[Output]:
        """Enlarge the picture `image_url`; see the card for the parameters."""
        scale, encoding = params["scale"], params["format"]
        allow = functools.partial(check_size, scale=scale)
        small = np.asarray(reading.read(context.inputs["image_url"], name="image_url", allow=allow))
        picture = Image.fromarray(self._enlarged(small, scale, context))
        if encoding == "jpeg":
            picture = canvas.on_ground(picture, canvas.WHITE)
        elif small[..., 3].min() == 255:
            picture = picture.convert("RGB")
        file = f"0.{encoding}"
        canvas.save(picture, out_dir / file, encoding=encoding)
        seed = params.get("seed", 0)  # nothing here is left to chance
        return [Output(file, "image", canvas.CONTENT_TYPES[encoding], picture.width, picture.height, seed)]

    def _enlarged(self, small: Bytes, scale: int, context: Context) -> Bytes:
        assert self._enlarger is not None, "load() comes first"
        large = enlarge.blank(small, scale)
        count = len(list(enlarge.tiles(*small.shape[:2])))
        with (
            ThreadPoolExecutor(self._threads, thread_name_prefix="upscale") as pool,
            contextlib.closing(self._enlarger.tile_by_tile(small, large, pool)) as parts,
        ):
            for done, _ in enumerate(parts, 1):
                if context.cancelled():
                    raise Cancelled
                context.progress(done / (count + 1))
                if context.preview_due():
                    context.preview(preview(large), canvas.PREVIEW_TYPE)
        return large


def check_size(width: int, height: int, *, scale: int) -> None:
    """Refuse what would be larger than `MOST_SIDE` at this scale."""
    if max(width, height) * scale <= MOST_SIDE:
        return
    remedy = f"send one of at most {MOST_SIDE // scale} pixels a side"
    if max(width, height) * enlarge.SCALES[0] <= MOST_SIDE:
        remedy += f", or ask for scale {enlarge.SCALES[0]}"
    raise Refusal(
        f"image_url: the picture of {width} × {height} pixels would become {width * scale} × {height * scale}, "
        f"and the limit is {MOST_SIDE} pixels a side: {remedy}."
    )


def preview(large: Bytes) -> bytes:
    """What is drawn so far, every so manyth pixel, as a small file of type `canvas.PREVIEW_TYPE`."""
    step = -(-max(large.shape[:2]) // PREVIEW_SIDE)
    return canvas.preview(Image.fromarray(np.ascontiguousarray(large[::step, ::step])))
