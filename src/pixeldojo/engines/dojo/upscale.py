"""The engine family `dojo-upscale`: a picture goes in, the same one twice or four times as large comes out.

Works tile by tile, several at once, one a core. Each tile is drawn with as much of its surroundings as the network
looks at, so there are no seams, and what is held in memory beside the two pictures does not grow with them.
"""

import concurrent.futures
import io
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from pixeldojo.engines.dojo import canvas, sampler
from pixeldojo.engines.engine import Cancelled, Context, Output, Refusal

WEIGHTS = Path(__file__).parent
SCALES = (2, 4)
MOST_SIDE = 4096  # pixels of the output
TILE = 96  # pixels of the input
SURROUNDINGS = 12  # pixels of the input: eleven 3×3 convolutions one after another see eleven to each side
PREVIEW_SIDE = 256

Bytes = NDArray[np.uint8]

_FORMATS = ("PNG", "JPEG", "WEBP")
_ORIENTATION = 0x0112
_TURNS: Mapping[int, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Tile(NamedTuple):
    """A part of the input, in its pixels; the bottom and the right edge are outside."""

    top: int
    left: int
    bottom: int
    right: int


class UpscaleEngine:
    """Larger pictures on the CPU. `threads` is how many tiles are drawn at once; 0 asks the machine."""

    def __init__(self, *, threads: int = 0) -> None:
        self._threads = threads or sampler.machine_threads()
        self._graphs: Mapping[int, onnxruntime.InferenceSession] = {}

    def load(self) -> None:
        """Build the two graphs from the weights beside this file (0.3 MB)."""
        self._graphs = {scale: sampler.session(WEIGHTS / f"upscale{scale}.onnx") for scale in SCALES}

    def generate(self, params: Mapping[str, Any], out_dir: Path, context: Context) -> list[Output]:
        """Enlarge the picture `image_url`; see the card for the parameters."""
        scale, encoding = params["scale"], params["format"]
        small = read(context.inputs["image_url"], scale=scale)
        picture = Image.fromarray(self._enlarged(small, scale, context))
        if encoding == "jpeg":
            picture = on_white(picture)
        elif small[..., 3].min() == 255:
            picture = picture.convert("RGB")
        file = f"0.{encoding}"
        canvas.save(picture, out_dir / file, encoding=encoding)
        seed = params.get("seed", 0)  # nothing here is left to chance
        return [Output(file, "image", canvas.CONTENT_TYPES[encoding], picture.width, picture.height, seed)]

    def _enlarged(self, small: Bytes, scale: int, context: Context) -> Bytes:
        height, width = small.shape[:2]
        large = np.zeros((height * scale, width * scale, 4), np.uint8)
        graph, parts = self._graphs[scale], list(tiles(height, width))
        with ThreadPoolExecutor(self._threads, thread_name_prefix="upscale") as pool:
            drawing = [pool.submit(draw, graph, small, large, tile) for tile in parts]
            try:
                for done, each in enumerate(concurrent.futures.as_completed(drawing), 1):
                    each.result()
                    if context.cancelled():
                        raise Cancelled
                    context.progress(done / (len(parts) + 1))
                    if context.preview_due():
                        context.preview(preview(large), canvas.PREVIEW_TYPE)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)  # whatever went wrong, no tile begins after it
        return large


def read(path: Path, *, scale: int) -> Bytes:
    """The picture as the camera held it, uint8 (height, width, 4). Of an animation, the first frame.

    Raises `Refusal` for what is no picture, and for one that would become too large, before it is decoded.
    """
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=_FORMATS) as image:
            check_size(*image.size, scale=scale)
            image.load()
            return np.asarray(turned(with_alpha(image), image))
    except Refusal:
        raise
    except Exception:  # a decoder given hostile data may raise anything, and all of it means the same
        raise Refusal("image_url: the picture is damaged or incomplete: send a whole PNG, JPEG or WebP file.") from None


def check_size(width: int, height: int, *, scale: int) -> None:
    """Refuse what would be larger than `MOST_SIDE` at this scale."""
    if max(width, height) * scale <= MOST_SIDE:
        return
    remedy = f"send one of at most {MOST_SIDE // scale} pixels a side"
    if max(width, height) * SCALES[0] <= MOST_SIDE:
        remedy += f", or ask for scale {SCALES[0]}"
    raise Refusal(
        f"image_url: the picture of {width} × {height} pixels would become {width * scale} × {height * scale}, "
        f"and the limit is {MOST_SIDE} pixels a side: {remedy}."
    )


def with_alpha(image: Image.Image) -> Image.Image:
    """Any mode that our decoders give as RGBA; 16-bit greys keep their upper eight bits."""
    if image.mode.startswith("I"):
        greys = np.asarray(image).astype(np.int64)
        alpha = np.where(greys == image.info.get("transparency", -1), 0, 255)
        levels = np.rint(greys.clip(0, 65_535) / 257)
        return Image.fromarray(np.dstack([levels, levels, levels, alpha]).astype(np.uint8))
    if image.mode == "CMYK":
        image = image.convert("RGB")
    return image.convert("RGBA")


def turned(picture: Image.Image, source: Image.Image) -> Image.Image:
    """The picture upright, if the EXIF data of its source say that the camera was not."""
    try:
        turn = _TURNS.get(source.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged metadata is no reason to refuse a picture
        turn = None
    return picture if turn is None else picture.transpose(turn)


def tiles(height: int, width: int) -> Iterator[Tile]:
    """The parts of a picture, row by row; the last ones are what is left."""
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            yield Tile(top, left, min(top + TILE, height), min(left + TILE, width))


def draw(graph: onnxruntime.InferenceSession, small: Bytes, large: Bytes, tile: Tile) -> None:
    """Enlarge one part of `small` into its place in `large`."""
    scale = large.shape[0] // small.shape[0]
    top, left = max(tile.top - SURROUNDINGS, 0), max(tile.left - SURROUNDINGS, 0)
    around = small[top : tile.bottom + SURROUNDINGS, left : tile.right + SURROUNDINGS]
    (found,) = graph.run(None, {"picture": multiplied(around)})
    rows = slice((tile.top - top) * scale, (tile.bottom - top) * scale)
    columns = slice((tile.left - left) * scale, (tile.right - left) * scale)
    pixels = divided(found[0][:, rows, columns])
    alpha = small[..., 3]
    seen = alpha[max(tile.top - 1, 0) : tile.bottom + 1, max(tile.left - 1, 0) : tile.right + 1]
    if seen.min() == 255:
        pixels[..., 3] = 255
    elif seen.max() == 0:
        pixels[:] = 0
    else:
        settle(pixels, around[..., 3], rows, columns, scale)
    large[tile.top * scale : tile.bottom * scale, tile.left * scale : tile.right * scale] = pixels


def settle(pixels: Bytes, alpha: Bytes, rows: slice, columns: slice, scale: int) -> None:
    """Make opaque what lies amid opaque pixels and clear what lies amid transparent ones.

    The network is off by a level here and there, which nobody sees and every later program stumbles over.
    """
    low, high = canvas.nearby_range(alpha[None].astype(np.float32), reach=1)

    def enlarged(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return mask.repeat(scale, axis=0).repeat(scale, axis=1)[rows, columns]

    pixels[enlarged(low[0] == 255), 3] = 255
    pixels[enlarged(high[0] == 0)] = 0


def multiplied(pixels: Bytes) -> canvas.Floats:
    """What the network reads: (1, 4, height, width), 0 to 1, colour multiplied by alpha."""
    values: canvas.Floats = pixels.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255)
    values[:, :3] *= values[:, 3:]
    return values


def divided(values: canvas.Floats) -> Bytes:
    """The way back: uint8 (height, width, 4). Where there is no alpha, there is no colour."""
    colour, alpha = values[:3], values[3:]
    colour = np.divide(colour, np.maximum(alpha, np.float32(1 / 255)), dtype=np.float32)
    whole = np.rint(np.concatenate([colour, alpha]).clip(0, 1) * np.float32(255)).astype(np.uint8)
    whole[:3] *= whole[3:] > 0
    return np.ascontiguousarray(whole.transpose(1, 2, 0))


def on_white(picture: Image.Image) -> Image.Image:
    """The picture as RGB, for formats without transparency."""
    ground = Image.new("RGB", picture.size, "white")
    ground.paste(picture, mask=picture.getchannel("A"))
    return ground


def preview(large: Bytes) -> bytes:
    """What is drawn so far, every so manyth pixel, as a small file of type `canvas.PREVIEW_TYPE`."""
    step = -(-max(large.shape[:2]) // PREVIEW_SIDE)
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(large[::step, ::step])).save(out, format="WEBP", quality=70)
    return out.getvalue()
