"""From a scene's description to pixels: objects placed, recoloured and laid over a ground.

A picture here is (4, H, W), colour multiplied by alpha; bytes (0 to 255) in the atlas, floats (0 to 1) when drawn.
"""

import io
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from training.colour import OBJECT_COLOURS, recolour
from training.data import SIDE, Emoji
from training.profiles import LATENT_STRIDE

COLOURS = list(OBJECT_COLOURS)
Colour = tuple[int, int, int]  # 8-bit sRGB
Box = tuple[float, float, float, float]  # left, top, right, bottom as shares of the side
MOST_SIDE = 4 * SIDE


@dataclass(frozen=True)
class Layer:
    """One object in a scene. Positions are pixels of the canvas; `side` is the emoji's square drawn so large."""

    emoji: int  # row of the atlas
    left: float
    top: float
    side: float
    flip: bool = False
    colour: str = ""  # a key of OBJECT_COLOURS, or as it is


@dataclass(frozen=True)
class Ground:
    """What lies behind: nothing, a colour, a gradient from top to bottom, or sky above land."""

    kind: str = "none"  # none | plain | gradient | land
    top: Colour = (255, 255, 255)
    bottom: Colour = (255, 255, 255)
    land: Colour = (255, 255, 255)
    horizon: float = 0.65  # share of the height above the land
    hill: float = 0.0  # how far the land's edge is bent, share of the height


@dataclass(frozen=True)
class Scene:
    """A picture as a recipe, and the captions that fit it."""

    canvas: tuple[int, int]  # latent cells, height and width
    layers: tuple[Layer, ...]  # from the back to the front
    ground: Ground
    captions: tuple[str, ...]
    weight: float = 1.0

    @property
    def plain(self) -> bool:
        """Whether it is one emoji as it came, perhaps mirrored."""
        (first, *others) = self.layers
        return not others and self.ground.kind == "none" and first.side == SIDE and not first.colour


def atlas(root: Path, emoji: Sequence[Emoji]) -> Tensor:
    """All pictures (N, 4, 256, 256) as bytes, colour multiplied by alpha."""
    whole = np.empty((len(emoji), 4, SIDE, SIDE), np.uint8)
    with zipfile.ZipFile(root / "data" / "emoji.zip") as archive:
        for row, one in zip(whole, emoji, strict=True):
            row[:] = _square(Image.open(io.BytesIO(archive.read(one.file))))
    return torch.from_numpy(whole)


def _square(picture: Image.Image) -> NDArray[np.uint8]:
    """(4, 256, 256), colour multiplied by alpha; pictures of another shape keep it, centred."""
    rgba = picture.convert("RGBA")
    if rgba.size != (SIDE, SIDE):
        fitted = ImageOps.contain(rgba, (SIDE, SIDE), Image.Resampling.LANCZOS)
        rgba = Image.new("RGBA", (SIDE, SIDE))
        rgba.paste(fitted, ((SIDE - fitted.width) // 2, (SIDE - fitted.height) // 2))
    pixels = np.asarray(rgba).astype(np.uint32)
    pixels[..., :3] = (pixels[..., :3] * pixels[..., 3:] + 127) // 255
    return pixels.astype(np.uint8).transpose(2, 0, 1)


def boxes(pictures: Tensor) -> list[Box]:
    """Of each atlas row the box that is not transparent."""
    found: list[Box] = []
    for alpha in pictures[:, 3]:
        seen = alpha > 24
        columns, rows = seen.any(0).nonzero().flatten(), seen.any(1).nonzero().flatten()
        if len(columns) == 0:
            found.append((0.0, 0.0, 1.0, 1.0))
            continue
        left, top, right, bottom = (int(edge) / SIDE for edge in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
        found.append((left, top, right, bottom))
    return found


def _ground(ground: Ground, height: int, width: int, where: torch.device) -> Tensor:
    picture = torch.zeros(4, height, width, device=where)
    if ground.kind == "none":
        return picture
    picture[3] = 1
    down = torch.linspace(0, 1, height, device=where)[None, :, None]
    top, bottom, land = (
        torch.tensor(c, device=where)[:, None, None] / 255 for c in (ground.top, ground.bottom, ground.land)
    )
    picture[:3] = top if ground.kind == "plain" else top + (bottom - top) * down
    if ground.kind == "land":
        across = torch.linspace(-1, 1, width, device=where)[None, None, :]
        edge = (down - ground.horizon - ground.hill * across**2) * height / 1.5
        cover = (edge + 0.5).clamp(0, 1)
        shade = 1.06 - 0.16 * ((down - ground.horizon) / max(1e-3, 1 - ground.horizon)).clamp(0, 1)
        picture[:3] = picture[:3] * (1 - cover) + (land * shade).clamp(0, 1) * cover
    return picture


def _paste(canvas: Tensor, patch: Tensor, left: int, top: int) -> None:
    """Lay a patch over the canvas in place; what sticks out is cut off."""
    height, width = canvas.shape[1:]
    y0, x0 = max(0, top), max(0, left)
    y1, x1 = min(height, top + patch.shape[1]), min(width, left + patch.shape[2])
    if y1 <= y0 or x1 <= x0:
        return
    part = patch[:, y0 - top : y1 - top, x0 - left : x1 - left]
    below = canvas[:, y0:y1, x0:x1]
    below.mul_(1 - part[3:]).add_(part)


def _recoloured(scenes: Sequence[Scene], pictures: Tensor, where: torch.device) -> dict[tuple[int, str], Tensor]:
    """The coloured objects that the scenes ask for, worked out together."""
    wanted = sorted({(layer.emoji, layer.colour) for scene in scenes for layer in scene.layers if layer.colour})
    done: dict[tuple[int, str], Tensor] = {}
    for start in range(0, len(wanted), 16):
        some = wanted[start : start + 16]
        rows = pictures[[emoji for emoji, _ in some]].to(where).float() / 255
        targets = torch.tensor([OBJECT_COLOURS[colour] for _, colour in some], device=where)
        done.update(zip(some, recolour(rows, targets), strict=True))
    return done


@torch.no_grad()
def draw(scenes: Sequence[Scene], pictures: Tensor, where: torch.device) -> Tensor:
    """The scenes (B, 4, H, W), floats 0 to 1. All must have the same canvas."""
    coloured = _recoloured(scenes, pictures, where)
    height, width = (cells * LATENT_STRIDE for cells in scenes[0].canvas)
    drawn = []
    for scene in scenes:
        canvas = _ground(scene.ground, height, width, where)
        for layer in scene.layers:
            key = (layer.emoji, layer.colour)
            patch = coloured[key] if layer.colour else pictures[layer.emoji].to(where).float() / 255
            patch = patch.flip(-1) if layer.flip else patch
            side = max(8, min(MOST_SIDE, round(layer.side)))
            if side != SIDE:
                patch = F.interpolate(patch[None], size=(side, side), mode="bicubic", antialias=True)[0].clamp(0, 1)
                patch[:3] = torch.minimum(patch[:3], patch[3:])
            _paste(canvas, patch, round(layer.left), round(layer.top))
        drawn.append(canvas)
    return torch.stack(drawn)


def as_bytes(pictures: Iterable[Tensor]) -> Tensor:
    """Floats 0 to 1 as bytes."""
    return torch.stack([(picture * 255 + 0.5).clamp(0, 255).to(torch.uint8) for picture in pictures])
