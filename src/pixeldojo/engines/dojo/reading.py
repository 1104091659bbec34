"""Input pictures of any kind as upright RGBA pixels. A file that was checked by nobody comes in.

Colour profiles and metadata are not kept. What is large is read in bands and reduced on the way, so that a photograph
costs little more than its decoder.
"""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from pixeldojo.engines.engine import Refusal

MOST_PIXELS = 2**24  # to be decoded
_BAND = 2**20  # pixels that are converted at a time
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


def no_limit(width: int, height: int) -> None:
    """Any size that can be read at all."""


def read(
    path: Path, *, name: str, allow: Callable[[int, int], None] = no_limit, enough: int = MOST_PIXELS
) -> Image.Image:
    """The picture as the camera held it, mode RGBA. Of an animation, the first frame.

    Where its shorter side has at least twice `enough` pixels, it is reduced by a whole factor to no less than `enough`.
    Raises `Refusal`, which begins with the parameter's `name`, for what is no picture and for one that is too large;
    `allow` is asked about width and height, and may refuse, before anything is decoded.
    """
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=_FORMATS) as image:
            allow(*image.size)
            image.draft(None, (enough, enough))  # a JPEG decoder leaves out what nobody needs
            if image.width * image.height > MOST_PIXELS:
                raise Image.DecompressionBombError
            image.load()
            return turned(reduced(image, max(1, min(image.size) // enough)), image)
    except Refusal:
        raise
    except Image.DecompressionBombError:
        raise Refusal(f"{name}: the picture is too large: send one of at most {MOST_PIXELS:,} pixels.") from None
    except Exception:  # a decoder given hostile data may raise anything, and all of it means the same
        raise Refusal(f"{name}: the picture is damaged or incomplete: send a whole PNG, JPEG or WebP file.") from None


def reduced(image: Image.Image, factor: int) -> Image.Image:
    """The picture as RGBA and smaller by a whole factor, perhaps 1, band by band: some modes take much to convert."""
    width, height = (-(-side // factor) for side in image.size)
    small = Image.new("RGBA", (width, height))
    rows = max(1, _BAND // (image.width * factor))
    for top in range(0, height, rows):
        box = (0, top * factor, image.width, min((top + rows) * factor, image.height))
        small.paste(with_alpha(image.crop(box)).reduce(factor), (0, top))
    return small


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


def is_opaque(picture: Image.Image) -> bool:
    """Whether nothing of an RGBA picture is transparent."""
    low, _ = picture.getchannel("A").getextrema()
    return low == 255
