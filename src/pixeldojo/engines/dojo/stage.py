"""Where a clip is played: a picture of any size goes in, the clip's first frame comes out, never stretched.

A picture that stands on plain ground (transparent, or one colour all around) gets more of it where the shape differs;
any other is cut around its middle. Also takes what stands on plain ground off it, so that it can move and the ground
stay.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from PIL import Image

from pixeldojo.engines.dojo import reading
from pixeldojo.engines.dojo.graphs import Floats

# Width and height at the resolution 256: the exact ratio, even as yuv420p needs it, never more pixels than the square.
SIZES: Mapping[str, tuple[int, int]] = MappingProxyType({
    "1:1": (256, 256),
    "4:3": (288, 216),
    "3:4": (216, 288),
    "3:2": (312, 208),
    "2:3": (208, 312),
    "16:9": (320, 180),
    "9:16": (180, 320),
})  # fmt: skip
RESOLUTIONS = (256, 512)

NEAR = 0.01  # a picture's shape that is so close to one of the ratios is taken for it
WIDEST = 16 / 9

EDGE_SIDE = 128  # pixels of the small copy whose edge is looked at
CLEAR_SHARE, PLAIN_SHARE = 0.5, 0.97  # how much of the edge must be transparent, or of one colour
CLEAR, SOLID = 16, 240  # alpha
ALIKE = 10  # of 255: how far ground may be from its colour
STANDS_OUT = (12.0, 40.0)  # of 255: what is nearer to the ground's colour is ground, what is farther is not

SEEN = 0.05  # alpha
ROOM = 1.06  # the side of an emoji's canvas over the emoji
LEAST_THING = 0.3  # of the frame's longer side: what is smaller moves as if it were so large
MARGIN = 0.1  # of a painted frame on each side where the thing is whole, to move into

Colour = tuple[int, int, int, int]


class Span(NamedTuple):
    """Where a thing lies on a canvas, one way, in pixels."""

    start: int
    end: int
    length: int  # of the canvas

    @property
    def cut(self) -> tuple[bool, bool]:
        """Whether the canvas ends within the thing, before and after."""
        return self.start == 0, self.end == self.length

    @property
    def needed(self) -> float:
        """How many times as long a canvas has `MARGIN` where the thing is whole."""
        return max(1.0, (self.end - self.start) / (self.length * (1 - MARGIN * self.cut.count(False))))

    def on(self, times: float) -> "Span":
        """The thing on such a canvas: at the edge that cuts it, or as near to where it was as the margins allow."""
        length, thing = round(self.length * times), self.end - self.start
        before, after = self.cut
        if before or after:
            start = 0 if before else length - thing
        else:
            margin = min(round(length * MARGIN), (length - thing) // 2)
            start = min(max(self.start + (length - self.length) // 2, margin), length - thing - margin)
        return Span(start, start + thing, length)


class Square(NamedTuple):
    """A square part of the frame, which may reach beyond it, in pixels."""

    left: float
    top: float
    side: float


class Scene(NamedTuple):
    """The first frame in two parts: what may move, and what lies behind it and does not.

    `layer` is float32 (4, height, width), 0 to 1, colour multiplied by alpha; `plate` (3, height, width), or None where
    the picture has nothing of its own to show there.
    """

    layer: Floats
    plate: Floats | None

    @property
    def whole(self) -> Square:
        """The square around the frame."""
        height, width = self.layer.shape[1:]
        side = max(height, width)
        return Square((width - side) / 2, (height - side) / 2, side)

    @property
    def thing(self) -> Square:
        """The square around what is to be seen in the layer, with as little room as the emoji have in theirs."""
        rows, columns = (np.flatnonzero(self.layer[3].max(axis=axis) > SEEN) for axis in (1, 0))
        if not len(rows):
            return self.whole
        top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
        side = max(max(bottom - top, right - left) * ROOM, self.whole.side * LEAST_THING)
        return Square((left + right - side) / 2, (top + bottom - side) / 2, side)

    def view(self, part: Square, cells: int) -> Floats:
        """What is to be seen in a part of the layer, small: (4, cells, cells), nothing where that is beyond it."""
        height, width = self.layer.shape[1:]
        pad = math.ceil(max(0, -part.left, -part.top, part.left + part.side - width, part.top + part.side - height))
        left, top = part.left + pad, part.top + pad
        box = (left, top, left + part.side, top + part.side)
        channels = [
            Image.fromarray(np.pad(channel, pad)).resize((cells, cells), Image.Resampling.BOX, box=box)
            for channel in self.layer
        ]
        return np.stack([np.asarray(channel) for channel in channels])


def size_of(aspect_ratio: str | None, *, resolution: int, shape: tuple[int, int] = (1, 1)) -> tuple[int, int]:
    """Width and height of the clip. Without a ratio they follow `shape`, at most as far as 16:9 or 9:16."""
    scale = resolution // RESOLUTIONS[0]
    if aspect_ratio is None:
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
    ground = edge_colour(picture)
    if ground is None:
        return Scene(values(covering(picture, size)), plate=None)
    shown = values(contained(picture, size, ground))
    # What is transparent amid a colour has nothing behind it that could stay: all of that picture may move.
    return lifted(shown[:3], ground) if reading.is_opaque(picture) else Scene(shown, plate=None)


def lifted(picture: Floats, ground: Colour) -> Scene:
    """An opaque picture (3, height, width) apart from its plain ground, so that one over the other is the picture.

    What stands out from the ground is the layer, with as much alpha at its edges as it takes; of the ground every pixel
    stays as it is, its noise too.
    """
    colour = np.array(ground[:3], np.float32)[:, None, None] / np.float32(255)
    off = picture - colour
    distance = np.abs(off).max(axis=0) * np.float32(255)
    low, high = STANDS_OUT
    room = np.where(off > 0, 1 - colour, colour)  # no mixture with the ground is farther from it than its alpha allows
    alpha = np.maximum(
        (np.abs(off) / np.maximum(room, np.float32(1e-3))).max(axis=0), eased((distance - low) / (high - low))
    )
    alpha = np.where(distance > low, alpha.clip(0, 1), np.float32(0))
    plate = np.where(alpha > 0, colour, picture)
    layer = (picture - (1 - alpha) * plate).clip(0, alpha)
    return Scene(np.concatenate([layer, alpha[None]]), plate)


def edge_colour(picture: Image.Image) -> Colour | None:
    """The colour all around the edge, (0, 0, 0, 0) where that is transparent, None where the edge shows something."""
    small = picture.copy()
    small.thumbnail((EDGE_SIDE, EDGE_SIDE), Image.Resampling.BOX)
    pixels = np.asarray(small).astype(np.int64)
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    if (edge[:, 3] < CLEAR).mean() >= CLEAR_SHARE:
        return 0, 0, 0, 0
    red, green, blue = (round(level) for level in np.median(edge[:, :3], axis=0))
    alike = (np.abs(edge[:, :3] - (red, green, blue)).max(axis=1) <= ALIKE) & (edge[:, 3] >= SOLID)
    return (red, green, blue, 255) if alike.mean() >= PLAIN_SHARE else None


def roomy(picture: Image.Image) -> Image.Image:
    """A picture on transparent ground with at least `MARGIN` around the thing, which is moved or made smaller for it.

    What an edge cuts off stays at that edge. A picture without transparent ground stays as it is.
    """
    found = picture.getchannel("A").point([0] * CLEAR + [255] * (256 - CLEAR)).getbbox()
    if found is None or edge_colour(picture) != (0, 0, 0, 0):
        return picture
    across, down = Span(found[0], found[2], picture.width), Span(found[1], found[3], picture.height)
    times = 1.0 if all(across.cut) or all(down.cut) else max(across.needed, down.needed)
    wide, tall = across.on(times), down.on(times)
    if (wide, tall) == (across, down):
        return picture
    room = Image.new("RGBA", (wide.length, tall.length))
    room.paste(picture.crop(found), (wide.start, tall.start))
    return resized(room, picture.size)


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


def eased(value: Floats) -> Floats:
    """0 below 0, 1 above 1, and a smooth rise between."""
    bounded: Floats = value.clip(0, 1)
    return bounded * bounded * (3 - 2 * bounded)


def values(picture: Image.Image) -> Floats:
    """An RGBA picture as float32 (4, height, width), 0 to 1, colour multiplied by alpha."""
    found: Floats = np.asarray(picture).transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    found[:3] *= found[3:]
    return found
