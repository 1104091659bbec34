"""Where a clip is played: a picture of any size goes in, the clip's first frame comes out, never stretched.

A picture that stands on plain ground (transparent, or one colour all around) gets more of it where the shape differs;
any other is cut around its middle. Also says which part is the thing that may move, which plain ground never does.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from PIL import Image

from pixeldojo.engines.dojo.canvas import Floats, eased

# Width and height at the resolution 256: the exact ratio, even as yuv420p needs it, and never more pixels than the square.
SIZES: Mapping[str, tuple[int, int]] = MappingProxyType({
    "1:1": (256, 256),
    "4:3": (288, 216),
    "3:4": (216, 288),
    "16:9": (320, 180),
    "9:16": (180, 320),
})  # fmt: skip
RESOLUTIONS = (256, 512)
AUTO = "auto"

NEAR = 0.01  # a picture's shape that is so close to one of the ratios is taken for it
WIDEST = 16 / 9

EDGE_SIDE = 128  # pixels of the small copy whose edge is looked at
CLEAR_SHARE, PLAIN_SHARE = 0.5, 0.97  # how much of the edge must be transparent, or of one colour
CLEAR, SOLID = 16, 240  # alpha
ALIKE = 10  # of 255: how far ground may be from its colour
STANDS_OUT = (12.0, 40.0)  # of 255: what is nearer to the ground's colour is ground, what is farther is not

Colour = tuple[int, int, int, int]


class Scene(NamedTuple):
    """The first frame. `picture` is float32 (4, height, width), 0 to 1, colour multiplied by alpha.

    `thing` (height, width) is how much of each pixel belongs to what may move. `framed` says that the picture fills
    its frame: there is no ground that something could move over.
    """

    picture: Floats
    thing: Floats
    framed: bool


def size_of(aspect_ratio: str, *, resolution: int, shape: tuple[int, int]) -> tuple[int, int]:
    """Width and height of the clip. At `AUTO` they follow `shape`, at most as far as 16:9 or 9:16."""
    scale = resolution // RESOLUTIONS[0]
    if aspect_ratio == AUTO:
        ratio = min(max(shape[0] / shape[1], 1 / WIDEST), WIDEST)
        aspect_ratio = min(SIZES, key=lambda name: abs(math.log(ratio * SIZES[name][1] / SIZES[name][0])))
        named = SIZES[aspect_ratio]
        if abs(ratio * named[1] / named[0] - 1) > NEAR:
            return even(resolution * math.sqrt(ratio)), even(resolution / math.sqrt(ratio))
    width, height = SIZES[aspect_ratio]
    return width * scale, height * scale


def even(length: float) -> int:
    """The even number of pixels just below."""
    return max(2, int(length) // 2 * 2)


def set_up(picture: Image.Image, size: tuple[int, int]) -> Scene:
    """The RGBA picture as the first frame of a clip of this size."""
    ground = ground_of(picture)
    if ground is None:
        return Scene(values(covering(picture, size)), np.ones(size[::-1], np.float32), framed=True)
    shown = values(contained(picture, size, ground))
    if ground[3] == 0:
        return Scene(shown, shown[3], framed=False)
    colour = np.array(ground[:3], np.float32)[:, None, None]
    low, high = STANDS_OUT
    distance = np.abs(shown[:3] * np.float32(255) - colour).max(axis=0)
    return Scene(shown, eased((distance - low) / (high - low)), framed=False)


def ground_of(picture: Image.Image) -> Colour | None:
    """The colour all around the picture's edge, (0, 0, 0, 0) where that is transparent, None where it shows something."""
    small = picture.copy()
    small.thumbnail((EDGE_SIDE, EDGE_SIDE), Image.Resampling.BOX)
    pixels = np.asarray(small).astype(np.int64)
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    if (edge[:, 3] < CLEAR).mean() >= CLEAR_SHARE:
        return 0, 0, 0, 0
    red, green, blue = (round(level) for level in np.median(edge[:, :3], axis=0))
    alike = (np.abs(edge[:, :3] - (red, green, blue)).max(axis=1) <= ALIKE) & (edge[:, 3] >= SOLID)
    return (red, green, blue, 255) if alike.mean() >= PLAIN_SHARE else None


def contained(picture: Image.Image, size: tuple[int, int], ground: Colour) -> Image.Image:
    """All of the picture, as large as it fits, amid its ground."""
    scale = min(size[0] / picture.width, size[1] / picture.height)
    width, height = (max(1, round(length * scale)) for length in picture.size)
    whole = Image.new("RGBA", size, ground)
    whole.paste(resized(picture, (width, height)), ((size[0] - width) // 2, (size[1] - height) // 2))
    return whole


def covering(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture's middle, as much of it as has the shape of `size`."""
    scale = min(picture.width / size[0], picture.height / size[1])
    width, height = size[0] * scale, size[1] * scale
    left, top = (picture.width - width) / 2, (picture.height - height) / 2
    return resized(picture, size, (left, top, left + width, top + height))


def resized(
    picture: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> Image.Image:
    """The picture, or its part `box`, at `size`; as it is where nothing is to be done."""
    return picture.resize(size, Image.Resampling.LANCZOS, box, reducing_gap=3)


def values(picture: Image.Image) -> Floats:
    """An RGBA picture as float32 (4, height, width), 0 to 1, colour multiplied by alpha."""
    found: Floats = np.asarray(picture).transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    found[:3] *= found[3:]
    return found
