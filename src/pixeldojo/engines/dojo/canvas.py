"""Where a picture lies on the model's canvas, and the way from there to a file: enlarging, ground, encoding.

The model paints on canvases of whole tokens. A `Frame` is the middle of one that has the aspect ratio asked for, and
the size it leaves in. Plain array arithmetic and Pillow's resampling only, so that equal arrays give equal bytes.
"""

import io
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageColor

from pixeldojo.engines.dojo import enlarge
from pixeldojo.engines.dojo.enlarge import Bytes
from pixeldojo.engines.dojo.graphs import Floats, Spec
from pixeldojo.engines.engine import Refusal

Colour = tuple[int, int, int]  # 8-bit sRGB
Ground = tuple[Colour, ...]  # a colour, or the two ends of a gradient from top to bottom

WHITE: Ground = ((255, 255, 255),)
AUTO, TRANSPARENT = "auto", "transparent"  # what the parameter `background` may be beside a colour
OPAQUE: Mapping[str, str] = MappingProxyType({"jpeg": "png or webp", "mp4": "webp"})  # and what to ask for instead
CONTENT_TYPES: Mapping[str, str] = MappingProxyType({"png": "image/png", "webp": "image/webp", "jpeg": "image/jpeg"})
ENCODING: Mapping[str, Mapping[str, object]] = MappingProxyType({
    "png": {"compress_type": zlib.Z_RLE},  # for such pictures as small as the slowest way, and the quickest
    "webp": {"quality": 90, "method": 2},
    "jpeg": {"quality": 92, "subsampling": 0},
})  # fmt: skip
PREVIEW_TYPE = "image/webp"

# Alpha that is nearly nothing or nearly all is meant to be so; what the decoder adds there is noise.
_CLEAR, _SOLID = 12 / 255, 243 / 255
# What decides between canvases: the share that is cropped, and beside it
_SIZE_MATTERS, _UNTRAINED = 0.3, 0.05


class Frame(NamedTuple):
    """A part of a canvas with an exact aspect ratio, and the size of the file in pixels."""

    cells: tuple[int, int]  # of the canvas: height and width
    box: tuple[float, float, float, float]  # left, top, right, bottom, in pixels of the canvas
    size: tuple[int, int]  # width and height

    @property
    def scale(self) -> int:
        """How many times the canvas has to be enlarged for that size: 1, 2 or 4."""
        left, top, right, bottom = self.box
        wanted = max(self.size) / max(right - left, bottom - top)
        return next((scale for scale in (1, *enlarge.SCALES) if scale >= wanted), enlarge.SCALES[-1])

    @property
    def canvas(self) -> tuple[int, int]:
        """Height and width of the whole canvas in pixels; the box lies in its middle."""
        left, top, right, bottom = self.box
        return round(top + bottom), round(left + right)

    def at_canvas_size(self) -> "Frame":
        """The same part as large as the canvas shows it."""
        left, top, right, bottom = self.box
        return self._replace(size=(round(right - left), round(bottom - top)))


def frame(spec: Spec, ratio: float, *, side: int) -> Frame:
    """The frame for a width that is `ratio` times the height, the longer side of the file `side` pixels.

    Taken is the canvas that loses least, with a liking for the sizes that the model was trained on. A canvas between
    them is as good as they are, since positions are counted from its middle.
    """
    trained = set(spec.canvases.values())
    sides = range(min(map(min, trained)), max(map(max, trained)) + 1, spec.patch)
    area = max(height * width for height, width in trained)

    def cost(cells: tuple[int, int]) -> float:
        height, width = cells
        shape = width / height / ratio
        lost = 1 - min(shape, 1 / shape)
        return lost + _SIZE_MATTERS * abs(math.log(height * width / area)) + _UNTRAINED * (cells not in trained)

    cells = min(((height, width) for height in sides for width in sides), key=cost)
    height, width = (side * spec.latent_stride for side in cells)
    wide, tall = min(width, height * ratio), min(height, width / ratio)
    left, top = (width - wide) / 2, (height - tall) / 2
    size = (side, round(side / ratio)) if ratio >= 1 else (round(side * ratio), side)
    return Frame(cells, (left, top, left + wide, top + tall), (max(size[0], 1), max(size[1], 1)))


def ratio_of(name: str) -> float:
    """The number that "16:9" stands for."""
    width, height = map(int, name.split(":"))
    return width / height


def ground_of(params: Mapping[str, Any], otherwise: Ground | None) -> Ground | None:
    """What to lay behind what is transparent, None for nothing, by the parameters `background` and `format`.

    `otherwise` where nothing is asked for. In a format without transparency nothing is white, and asking for it is
    refused. Raises `Refusal`.
    """
    background, encoding = params["background"], params["format"]
    if background == TRANSPARENT:
        if encoding in OPAQUE:
            raise Refusal(
                f"background: {encoding.upper()} has no transparency: ask for the format {OPAQUE[encoding]}, "
                "or name a colour."
            )
        return None
    if background != AUTO:
        try:
            return (ImageColor.getrgb(background)[:3],)
        except ValueError:
            raise Refusal(
                f"background: {background!r} is no colour: say transparent, a CSS name such as skyblue, or #rrggbb."
            ) from None
    return WHITE if otherwise is None and encoding in OPAQUE else otherwise


def cleaned(picture: Floats) -> Bytes:
    """The model's picture as uint8 (height, width, 4), colour not multiplied, without specks in what is clear."""
    alpha = picture[3:]
    better = ((alpha - np.float32(_CLEAR)) / np.float32(_SOLID - _CLEAR)).clip(0, 1)
    colour = picture[:3] * (better / np.maximum(alpha, np.float32(_CLEAR)))
    return enlarge.divided(np.concatenate([colour, better]))


def fitted(large: Bytes, where: Frame) -> Image.Image:
    """The frame's part of an enlarged canvas at the frame's size, mode RGBA."""
    scale = large.shape[0] / where.canvas[0]
    left, top, right, bottom = (edge * scale for edge in where.box)
    # This filter has no negative lobes, so it draws no halos.
    return Image.fromarray(large).resize(where.size, Image.Resampling.HAMMING, box=(left, top, right, bottom))


def on_ground(picture: Image.Image, ground: Ground) -> Image.Image:
    """The picture as RGB."""
    below = Image.new("RGB", picture.size, ground[0])
    if len(ground) > 1:
        rows = np.rint(np.linspace(ground[0], ground[-1], picture.height)).astype(np.uint8)
        below = Image.fromarray(rows[:, None].repeat(picture.width, axis=1))
    below.paste(picture, mask=picture.getchannel("A"))
    return below


def save(picture: Image.Image, path: Path, *, encoding: str) -> None:
    """Write the picture as "png", "webp" or "jpeg", without metadata."""
    picture.save(path, format=encoding.upper(), **ENCODING[encoding])


def preview(picture: Image.Image) -> bytes:
    """The picture as a small file of type `PREVIEW_TYPE`."""
    out = io.BytesIO()
    picture.save(out, format="WEBP", quality=70)
    return out.getvalue()
