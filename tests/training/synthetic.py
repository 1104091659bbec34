"""A small archive in the recipe's form, with drawn shapes for pictures, so that tests need no network and no art."""

import io
import json
import zipfile
from pathlib import Path

from PIL import Image, ImageDraw

from training.data import Emoji

WORN = ("crown", "top hat", "graduation cap", "billed cap", "rescue worker’s helmet", "military helmet", "woman’s hat")
AROUND = (
    "glasses", "sunglasses", "goggles", "sun", "cloud", "deciduous tree", "tulip", "evergreen tree", "snowflake",
    "snowman without snow", "cactus", "palm tree", "spiral shell", "crescent moon", "star", "ringed planet", "comet",
    "coral", "bubbles", "tropical fish",
)  # fmt: skip
PLAIN = ("cat face", "house", "red apple", "robot", "orange", "key", "balloon", "chair", "mushroom", "umbrella")
COLOURS = ("#d03030", "#e0a020", "#30a050", "#3060d0", "#9040b0")


def emoji(n: int, label: str, *, tone: str = "", held_out: bool = False) -> Emoji:
    code = f"{0x1F400 + n:x}"
    group = "animals-nature" if label.endswith("face") else "objects"
    return Emoji(code, f"{code}.webp", label, ("thing", f"tag {n}"), group, "tool", tone, code, held_out)


def every_emoji() -> list[Emoji]:
    """All that the scenes need by name, some more, two held out, one with a skin tone."""
    labels = (*WORN, *AROUND, *PLAIN)
    rows = [emoji(n, label, held_out=label in ("key", "chair")) for n, label in enumerate(labels)]
    return [*rows, emoji(len(rows), "waving hand", tone="dark skin tone")]


def picture(n: int) -> bytes:
    """A shape with a hole in it, different for every n."""
    image = Image.new("RGBA", (256, 256))
    draw = ImageDraw.Draw(image)
    box = (20 + n % 5 * 8, 30, 236 - n % 3 * 20, 226 - n % 4 * 10)
    shape = (draw.ellipse, draw.rectangle, draw.rounded_rectangle)[n % 3]
    shape(box, fill=COLOURS[n % len(COLOURS)])
    draw.ellipse((110, 90 + n, 140, 120 + n), fill=(0, 0, 0, 0))
    file = io.BytesIO()
    image.save(file, "WEBP", lossless=True)
    return file.getvalue()


def archive(root: Path) -> Path:
    """Write the archive below `root`; returns `root`."""
    (root / "data").mkdir(parents=True)
    rows = every_emoji()
    with zipfile.ZipFile(root / "data" / "emoji.zip", "w") as file:
        file.writestr("index.json", json.dumps({"emoji": [vars(row) for row in rows]}))
        for n, row in enumerate(rows):
            file.writestr(row.file, picture(n))
    return root
