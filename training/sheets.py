"""Contact sheets: pictures in rows with their words beneath, on white or on a checkerboard."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

CELL, WORDS, GAP = 192, 34, 6  # pixels
SQUARE, DARK, LIGHT = 12, 0.8, 0.95


def on_board(picture: Tensor) -> Tensor:
    """A picture over a checkerboard, (3, H, W)."""
    rows, columns = (torch.arange(size, device=picture.device) // SQUARE for size in picture.shape[1:])
    board = torch.where((rows[:, None] + columns) % 2 == 0, DARK, LIGHT)
    return picture[:3] + (1 - picture[3:]) * board


def on_colour(picture: Tensor, level: float = 1.0) -> Tensor:
    """A picture over white, or over a grey."""
    return picture[:3] + (1 - picture[3:]) * level


def image(picture: Tensor) -> Image.Image:
    """(3, H, W) of 0 to 1 as an image."""
    return Image.fromarray((picture * 255 + 0.5).clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy())


def sheet(pictures: Sequence[Tensor], words: Sequence[str], path: Path, *, columns: int = 8, cell: int = CELL) -> None:
    """Write the pictures, each (3, H, W), shrunk to fit their cell, as a WebP file."""
    rows = -(-len(pictures) // columns)
    whole = Image.new("RGB", (columns * (cell + GAP) + GAP, rows * (cell + WORDS + GAP) + GAP), "white")
    draw, font = ImageDraw.Draw(whole), ImageFont.load_default(12)
    for n, (picture, text) in enumerate(zip(pictures, words, strict=True)):
        x, y = GAP + (n % columns) * (cell + GAP), GAP + (n // columns) * (cell + WORDS + GAP)
        shown = image(picture)
        shown.thumbnail((cell, cell), Image.Resampling.LANCZOS)
        whole.paste(shown, (x + (cell - shown.width) // 2, y + (cell - shown.height) // 2))
        for line, part in enumerate(_lines(text, draw, font, cell)):
            draw.text((x, y + cell + 2 + 15 * line), part, fill="black", font=font)
    path.parent.mkdir(parents=True, exist_ok=True)
    whole.save(path, quality=88, method=4)


def _lines(text: str, draw: ImageDraw.ImageDraw, font: object, width: int) -> list[str]:
    """At most two lines that fit."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if draw.textlength(longer, font=font) <= width:  # type: ignore[arg-type]  # Pillow names its font types late
            lines[-1] = longer
        else:
            lines.append(word)
    return lines[:2]
