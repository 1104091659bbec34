"""What the tests of the embedded engines share: a context that remembers, cards, and pictures of every kind."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

import pixeldojo

MODES = ("1", "L", "LA", "P", "P+tRNS", "RGB", "RGB+tRNS", "RGBA", "CMYK", "YCbCr", "I;16", "I;16+tRNS")
NO_PICTURES: Mapping[str, Path] = {}


def card(api_id: str) -> dict[str, Any]:
    """A card that comes with PixelDojo, as it stands in its file."""
    found: dict[str, Any] = msgspec.json.decode(
        (Path(pixeldojo.__file__).parent / f"catalogue/cards/{api_id}.json").read_bytes()
    )
    return found


def defaults(one: dict[str, Any]) -> dict[str, Any]:
    """What the service fills in for a card's model."""
    return {name: spec["default"] for name, spec in one["schema"]["properties"].items() if "default" in spec}


class Listener:
    """A context that remembers, and cancels once it was asked `patience` times."""

    def __init__(
        self, inputs: Mapping[str, Path] = NO_PICTURES, *, patience: int | None = None, curious: bool = False
    ) -> None:
        self.inputs = inputs
        self.heard: list[float] = []
        self.previews: list[bytes] = []
        self.asked, self.patience, self.curious = 0, patience, curious

    def progress(self, fraction: float) -> None:
        self.heard.append(fraction)

    def preview_due(self) -> bool:
        return self.curious

    def preview(self, picture: bytes, content_type: str) -> None:
        assert content_type == "image/webp"
        self.previews.append(picture)

    def cancelled(self) -> bool:
        self.asked += 1
        return self.patience is not None and self.asked > self.patience


def encoded(picture: Image.Image, form: str = "PNG", **more: Any) -> bytes:
    """The picture as a file."""
    out = io.BytesIO()
    picture.save(out, form, **more)
    return out.getvalue()


def pixels(picture: Image.Image, mode: str = "RGBA") -> NDArray[np.int64]:
    """Its values, in a type that can be subtracted."""
    return np.asarray(picture.convert(mode)).astype(np.int64)


def on_white(picture: Image.Image) -> Image.Image:
    """The picture as RGB."""
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA")).convert("RGB")


def of_mode(picture: Image.Image, mode: str) -> tuple[bytes, bool]:
    """A file of an RGBA picture whose pixels have one of `MODES`, and whether it is transparent where that is."""
    plain = on_white(picture)
    if mode == "P+tRNS":
        return encoded(picture.quantize(16)), True
    if mode == "RGB+tRNS":
        return encoded(plain, transparency=(255, 255, 255)), True
    if mode.startswith("I;16"):
        greys = Image.fromarray(np.asarray(plain.convert("L")).astype(np.uint16) * 257)
        return (encoded(greys, transparency=65_535), True) if mode.endswith("tRNS") else (encoded(greys), False)
    if mode == "P":
        return encoded(plain.quantize(16)), False
    if mode in ("CMYK", "YCbCr"):
        return encoded(plain.convert(mode), "JPEG", quality=95), False
    if mode == "1":
        return encoded(plain.convert("1", dither=Image.Dither.NONE)), False
    return encoded((picture if mode.endswith("A") else plain).convert(mode)), mode.endswith("A")


def stored_turned(upright: Image.Image, orientation: int) -> bytes:
    """A file that holds the picture as a camera held in some way would, and says so in its EXIF data."""
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    stored = upright.transpose(turns[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(stored, exif=exif.tobytes())
