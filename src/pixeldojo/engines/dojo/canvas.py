"""From the model's small square to the file: clean ground, aspect ratio, enlarging, encoding.

A float32 (3, 128, 128) array goes in, values 0 to 255; a PNG, WebP or JPEG comes out, without metadata. The
object is never stretched nor cropped: other ratios get more of the ground it stands on. Plain array
arithmetic and Pillow's resampling only, so that equal arrays give equal bytes.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]

# Width and height in pixels: the exact ratio, sides in multiples of 16, never fewer pixels than the square.
SIZES: Mapping[str, tuple[int, int]] = MappingProxyType({
    "1:1": (512, 512),
    "4:3": (640, 480),
    "3:4": (480, 640),
    "3:2": (672, 448),
    "2:3": (448, 672),
    "16:9": (768, 432),
    "9:16": (432, 768),
})  # fmt: skip

CONTENT_TYPES: Mapping[str, str] = MappingProxyType({"png": "image/png", "webp": "image/webp", "jpeg": "image/jpeg"})
ENCODING: Mapping[str, Mapping[str, object]] = MappingProxyType({
    "png": {"compress_level": 1},
    "webp": {"quality": 90, "method": 2},
    "jpeg": {"quality": 92, "subsampling": 0},
})  # fmt: skip

PREVIEW_TYPE = "image/webp"

BORDER = 3  # pixels of the small square that are taken for ground
NEAR_WHITE = 238.0
GROUND_NOISE, OBJECT_CONTRAST = 5.0, 20.0  # distances from the ground's colour, of 255
MARGIN = 7  # pixels of the small square that its objects keep free
STAIRS_SIGMA, EDGE_SIGMA, EDGE_GAIN, EDGE_REACH = 1.2, 2.2, 4.0, 3
RANGE_SIGMA = 1.2


def finish(square: Floats, *, aspect_ratio: str) -> Image.Image:
    """The finished RGB picture from the model's square."""
    width, height = SIZES[aspect_ratio]
    standing, ground = on_plain_ground(square)
    side = square.shape[1]
    wide, tall = side * max(1.0, width / height), side * max(1.0, height / width)
    pad_x, pad_y = int(np.ceil((wide - side) / 2)), int(np.ceil((tall - side) / 2))
    extended = ground + np.pad(standing, ((0, 0), (pad_y, pad_y), (pad_x, pad_x)))
    left, top = pad_x - (wide - side) / 2, pad_y - (tall - side) / 2
    pixels = enlarge(extended, size=(width, height), box=(left, top, left + wide, top + tall))
    return Image.fromarray(np.rint(pixels.clip(0, 255)).astype(np.uint8).transpose(1, 2, 0))


def save(picture: Image.Image, path: Path, *, encoding: str) -> None:
    """Write the picture as "png", "webp" or "jpeg"."""
    picture.save(path, format=encoding.upper(), **ENCODING[encoding])


def preview(square: Floats) -> bytes:
    """The model's square as it is, as a small file of type `PREVIEW_TYPE`."""
    out = io.BytesIO()
    pixels = np.rint(square.clip(0, 255)).astype(np.uint8).transpose(1, 2, 0)
    Image.fromarray(pixels).save(out, format="WEBP", quality=70)
    return out.getvalue()


def on_plain_ground(square: Floats) -> tuple[Floats, Floats]:
    """What stands on the ground, as differences from its colour, and that colour, (3, 1, 1).

    The model paints on one flat colour, which the decoder blurs and speckles. The border's median is that
    colour even where an object touches the border; what is close to it becomes it. Objects keep a margin, so
    the border itself fades into the ground: more of it can then be added without a seam.
    """
    border = np.ones(square.shape[1:], bool)
    border[BORDER:-BORDER, BORDER:-BORDER] = False
    ground: Floats = np.median(square[:, border], axis=1).astype(np.float32).clip(0, 255)
    if ground.min() > NEAR_WHITE:
        ground[:] = 255
    ground = ground[:, None, None]
    off = square - ground
    contrast = (np.abs(off).max(axis=0) - GROUND_NOISE) / (OBJECT_CONTRAST - GROUND_NOISE)
    index = np.arange(square.shape[1])
    from_edge = np.minimum(index, index[::-1]) + 0.5  # to a pixel's middle
    margin = eased(from_edge / MARGIN)
    standing: Floats = off * eased(contrast) * margin[:, None] * margin[None, :]
    return standing, ground


def eased(value: NDArray[np.floating]) -> Floats:
    """0 below 0, 1 above 1, and a smooth rise between."""
    bounded = value.clip(0, 1).astype(np.float32)
    return bounded * bounded * (3 - 2 * bounded)


def enlarge(pixels: Floats, *, size: tuple[int, int], box: tuple[float, float, float, float]) -> Floats:
    """The part `box` of the picture at `size`, with the edges drawn sharp again.

    Plain resampling shows the small grid as blur and stairs. So: smooth the stairs away, enlarge, and push
    every pixel away from its surroundings' mean, but never beyond the values found nearby, so that edges
    become steep without halos.
    """
    smooth = blur(pixels, sigma=STAIRS_SIGMA)
    low, high = nearby_range(smooth)
    large = resample(smooth, size=size, box=box)
    surroundings = resample(blur(smooth, sigma=EDGE_SIGMA), size=size, box=box)
    floor = resample(blur(low, sigma=RANGE_SIGMA), size=size, box=box)
    ceiling = resample(blur(high, sigma=RANGE_SIGMA), size=size, box=box)
    sharp = large + np.float32(EDGE_GAIN) * (large - surroundings)
    return sharp.clip(np.minimum(floor, large), np.maximum(ceiling, large))


def nearby_range(pixels: Floats, *, reach: int = EDGE_REACH) -> tuple[Floats, Floats]:
    """The lowest and highest value within `reach` pixels of each, by channel."""
    low, high = pixels, pixels
    for axis in (1, 2):
        low = np.minimum.reduce(shifted(low, axis=axis, reach=reach))
        high = np.maximum.reduce(shifted(high, axis=axis, reach=reach))
    return low, high


def blur(pixels: Floats, *, sigma: float) -> Floats:
    """Gaussian blur along both sides; the border is continued."""
    reach = round(3 * sigma)
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-(offsets**2) / (2 * sigma * sigma))
    weights = (weights / weights.sum()).astype(np.float32)
    for axis in (1, 2):
        views = shifted(pixels, axis=axis, reach=reach)
        total = weights[0] * views[0]
        for weight, view in zip(weights[1:], views[1:], strict=True):
            total += weight * view
        pixels = total
    return pixels


def shifted(pixels: Floats, *, axis: int, reach: int) -> list[Floats]:
    """The array moved by −reach … reach along an axis, the border continued, as views of one copy."""
    length = pixels.shape[axis]
    pads = [(reach, reach) if axis == each else (0, 0) for each in range(3)]
    padded = np.pad(pixels, pads, mode="edge")
    window = [slice(None)] * 3
    views = []
    for start in range(2 * reach + 1):
        window[axis] = slice(start, start + length)
        views.append(padded[tuple(window)])
    return views


def resample(pixels: Floats, *, size: tuple[int, int], box: tuple[float, float, float, float]) -> Floats:
    """Each channel's `box` at `size` (width, height), bicubic, without rounding to whole values."""
    channels = [
        np.asarray(Image.fromarray(channel).resize(size, Image.Resampling.BICUBIC, box=box))
        for channel in np.ascontiguousarray(pixels, dtype=np.float32)
    ]
    return np.stack(channels)
