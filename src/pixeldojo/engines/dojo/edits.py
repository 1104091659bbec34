"""Image-to-image and inpainting: pictures that come in, laid on the model's canvas.

A frame says which part of the canvas the picture covers. Beyond it the picture's border goes on, so that the model sees
no edge there.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from pixeldojo.engines.dojo import canvas, enlarge, reading
from pixeldojo.engines.dojo.graphs import Floats
from pixeldojo.engines.dojo.painter import Given, Painter
from pixeldojo.engines.engine import Refusal

ENOUGH = 1024  # pixels of the shorter side that are kept of a large picture at least
MOST_RATIO = 4  # one side over the other
STRENGTH = 0.7  # of image-to-image, where none is given
OTHER_SHAPE = 0.02  # how far the shapes of a picture and its mask may differ
BORDER = 32  # the border that a ground is filled from is the longer side over this
_SEEN = 8  # of 255: a mask below this paints nothing; JPEG and soft brushes leave such traces


class Edit(NamedTuple):
    """A picture to start from."""

    picture: Image.Image  # RGBA, upright, in the shape asked for
    mask: Image.Image | None  # L, of the same size; white is painted anew


class Around(NamedTuple):
    """What an edit keeps, at the size of the result."""

    picture: Image.Image  # RGBA
    mask: Image.Image  # L; white is painted anew
    ground: Image.Image | None  # RGBA and opaque, goes under what is painted


def read(inputs: Mapping[str, Path], *, ratio: float | None) -> Edit | None:
    """What `image_url` and `mask_url` ask for; None where there is no picture. Raises `Refusal`.

    A picture of another shape than `ratio` is cropped at its middle; where it has transparency, it gets more of it
    instead.
    """
    if "image_url" not in inputs:
        if "mask_url" in inputs:
            raise Refusal("mask_url: a mask needs the picture it belongs to: send image_url too.")
        return None
    picture = reading.read(inputs["image_url"], name="image_url", enough=ENOUGH)
    mask = _mask(inputs["mask_url"], picture) if "mask_url" in inputs else None
    if ratio is not None:
        opaque = reading.is_opaque(picture)
        picture = _shaped(picture, ratio, crop=opaque)
        mask = mask and _shaped(mask, ratio, crop=opaque)
    wide = picture.width / picture.height
    if max(wide, 1 / wide) > MOST_RATIO:
        raise Refusal(
            f"image_url: the picture is too long and narrow: one side may be {MOST_RATIO} times the other at most. "
            "Crop it, or ask for an aspect_ratio."
        )
    return Edit(picture, mask)


def _mask(path: Path, picture: Image.Image) -> Image.Image:
    """The mask in the picture's size: the light in it, where it is not transparent."""
    found = reading.read(path, name="mask_url", enough=ENOUGH)
    if abs(found.width * picture.height / (found.height * picture.width) - 1) > OTHER_SHAPE:
        raise Refusal(
            f"mask_url: the mask has another shape than the picture, {found.width} × {found.height} pixels for "
            f"{picture.width} × {picture.height}: send one of the picture's size."
        )
    grey = Image.alpha_composite(Image.new("RGBA", found.size, "black"), found).convert("L")
    grey = grey.point([0] * _SEEN + list(range(_SEEN, 256)))
    if grey.getbbox() is None:
        raise Refusal("mask_url: nothing in the mask is white, and white is what is painted anew.")
    return grey.resize(picture.size, Image.Resampling.BILINEAR)


def _shaped(picture: Image.Image, ratio: float, *, crop: bool) -> Image.Image:
    """The picture with a width that is `ratio` times its height, as closely as whole pixels allow."""
    width, height = picture.size
    if (width > height * ratio) == crop:
        wide, tall = max(1, round(height * ratio)), height
    else:
        wide, tall = width, max(1, round(width / ratio))
    left, top = (width - wide) // 2, (height - tall) // 2  # less than zero where there is more room
    return picture.crop((left, top, left + wide, top + tall))


def side_of(picture: Image.Image, *, least: int, most: int) -> int:
    """How long the longer side of the result is, where nobody says: as the picture's own, within bounds."""
    return min(max(*picture.size, least), most)


def start(painter: Painter, edit: Edit, frame: canvas.Frame, strength: float | None) -> Given:
    """What the denoiser starts from. Raises `Refusal` where the mask leaves it nothing to paint."""
    latent = painter.encode(enlarge.multiplied(_on_canvas(np.asarray(edit.picture), frame, painter)))
    if edit.mask is None:
        nothing = np.zeros((1, 1, *frame.cells), np.float32)
        return Given(latent, nothing, STRENGTH if strength is None else strength)
    mask = _on_canvas(np.asarray(edit.mask), frame, painter)
    (height, width), stride = frame.cells, painter.spec.latent_stride
    most = mask.reshape(height, stride, width, stride).max(axis=(1, 3))
    kept: Floats = (most < _SEEN).astype(np.float32)[None, None]
    if kept.all():
        raise Refusal(
            "mask_url: what is white in the mask is too small to paint, or outside the part that aspect_ratio keeps."
        )
    return Given(latent, kept, 1.0 if strength is None else strength)


def _on_canvas(pixels: enlarge.Bytes, frame: canvas.Frame, painter: Painter) -> enlarge.Bytes:
    """A picture, (H, W) or (H, W, 4), over the whole canvas: all of it in the frame, and around that its border."""
    height, width = (side * painter.spec.latent_stride for side in frame.cells)
    left, top, right, bottom = frame.box
    across, down = pixels.shape[1] / (right - left), pixels.shape[0] / (bottom - top)
    pad_x, pad_y = int(np.ceil(left * across)), int(np.ceil(top * down))
    padded = np.pad(pixels, [(pad_y, pad_y), (pad_x, pad_x), (0, 0)][: pixels.ndim], mode="edge")
    x, y = pad_x - left * across, pad_y - top * down
    box = (x, y, min(x + width * across, padded.shape[1]), min(y + height * down, padded.shape[0]))
    return np.asarray(Image.fromarray(padded).resize((width, height), Image.Resampling.BICUBIC, box=box))


def around(edit: Edit, size: tuple[int, int], *, opaque: bool) -> Around:
    """What the edit keeps, at `size`. With `opaque` there is a ground: what the picture has around the mask, or,
    without a mask, along its border.
    """
    same = edit.picture.size == size
    picture = edit.picture if same else edit.picture.resize(size, Image.Resampling.BICUBIC)
    if edit.mask is None:
        ground = filled(picture, Image.new("L", size)) if opaque else None
        return Around(picture, Image.new("L", size, 255), ground)
    mask = edit.mask if same else edit.mask.resize(size, Image.Resampling.BILINEAR)
    return Around(picture, mask, filled(picture, mask) if opaque else None)


def finish(painted: Image.Image, kept: Around) -> Image.Image:
    """The painted picture, RGBA, with what the mask leaves untouched laid over it, byte for byte."""
    if kept.ground is not None:
        painted = Image.alpha_composite(kept.ground, painted)
    low, _ = kept.mask.getextrema()
    if low == 255:
        return painted
    mask = np.asarray(kept.mask)[..., None]
    weight = mask.astype(np.float32) / 255
    old, new = (np.asarray(each.convert("RGBa")).astype(np.float32) for each in (kept.picture, painted))
    blended = Image.fromarray(np.rint(old + (new - old) * weight).astype(np.uint8), "RGBa").convert("RGBA")
    return Image.fromarray(np.where(mask > 0, np.asarray(blended), np.asarray(kept.picture)))


def filled(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """A ground in the size of the picture, RGBA and opaque: what the mask leaves of the picture's border goes on
    inwards, ever more coarsely; where it leaves none, everything it leaves. In the middle there are mostly objects.
    """
    seen = (np.asarray(mask) == 0).astype(np.float32)[..., None]
    edge = -(-max(mask.size) // BORDER)
    border = seen.copy()
    border[edge:-edge, edge:-edge] = 0
    weight = border if border.any() else seen
    colour = np.asarray(picture)[..., :3].astype(np.float32) * weight
    levels = []
    while max(weight.shape) > 1:
        levels.append((colour, weight))
        colour, weight = _halved(colour), _halved(weight)
        much = np.maximum(weight, 1)  # a cell of which a quarter is known counts as known
        colour, weight = colour / much, weight / much
    ground = colour if weight.any() else np.full_like(colour, 255)
    for colour, weight in reversed(levels):
        size = (weight.shape[1], weight.shape[0])
        parts = [Image.fromarray(each).resize(size, Image.Resampling.BILINEAR) for each in np.moveaxis(ground, 2, 0)]
        ground = colour + np.stack([np.asarray(part) for part in parts], 2) * (1 - weight)
    return Image.fromarray(np.rint(ground).clip(0, 255).astype(np.uint8)).convert("RGBA")


def _halved(values: Floats) -> Floats:
    """The sums of every two by two of (H, W, C)."""
    height, width = values.shape[0] % 2, values.shape[1] % 2
    even = np.pad(values, [(0, height), (0, width), (0, 0)])
    halves: Floats = even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]
    return halves
