"""Makes the pictures of the documentation with the embedded engines themselves: `python scripts/docs_pictures.py`.

Leaves `docs/images/dojo-mini.png`, one prompt a cell, and `docs/models/dojo-motion-prompts.webp`, six clips of six
prompts as strips of frames. The seed is one for all: nothing is picked.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from PIL import Image, ImageDraw, ImageFont

import pixeldojo
from pixeldojo.engines.dojo.engine import DojoEngine
from pixeldojo.engines.dojo.motion import MotionEngine
from pixeldojo.engines.engine import Engine

ROOT = Path(__file__).parent.parent
CARDS = Path(pixeldojo.__file__).parent / "catalogue" / "cards"
SEED, CELL, GAP, WORDS = 1, 256, 8, 20  # pixels, but for the seed
PICTURES = (
    "a hamburger",
    "a panda on a green background",
    "a cat wearing a crown",
    "a castle at night",
    "a lion and a tiger",
    "a ghost on a purple background",
    "a penguin on the beach",
    "two red apples and a green apple",
)
CLIPS = ("a red heart", "a smiling face with sunglasses", "a penguin", "a bell", "a rocket", "a ghost")
FRAMES, STRIP_CELL = 8, 128


class Silent:
    """A context that nobody listens to."""

    inputs: Mapping[str, Path] = {}

    def progress(self, fraction: float) -> None: ...

    def preview_due(self) -> bool:
        return False

    def preview(self, picture: bytes, content_type: str) -> None: ...

    def cancelled(self) -> bool:
        return False


def made(engine: Engine, api_id: str, folder: Path, **params: Any) -> Path:
    """The first file that the engine makes of these parameters and the card's defaults."""
    properties = msgspec.json.decode((CARDS / f"{api_id}.json").read_bytes())["schema"]["properties"]
    defaults = {name: spec["default"] for name, spec in properties.items() if "default" in spec}
    (output, *_) = engine.generate({**defaults, "seed": SEED, **params}, folder, Silent())
    return folder / output.file


def grid(pictures: Sequence[Image.Image], words: Sequence[str], *, columns: int, cell: int) -> Image.Image:
    """The pictures in rows, the words of each row's first picture, or of every picture, beneath."""
    rows = -(-len(pictures) // columns)
    high = cell + GAP + WORDS
    whole = Image.new("RGB", (columns * (cell + GAP) + GAP, rows * high + GAP), "white")
    draw, font = ImageDraw.Draw(whole), ImageFont.load_default(13)
    for n, picture in enumerate(pictures):
        x, y = GAP + n % columns * (cell + GAP), GAP + n // columns * high
        whole.paste(picture.convert("RGB").resize((cell, cell), Image.Resampling.LANCZOS), (x, y))
        draw.text((x, y + cell + 2), words[n], fill="black", font=font)
    return whole


def stills(engine: Engine, folder: Path) -> Image.Image:
    """One picture of each prompt."""
    pictures = []
    for prompt in PICTURES:
        with Image.open(made(engine, "dojo-mini", folder, prompt=prompt, size=512)) as picture:
            pictures.append(picture.convert("RGB"))
    return grid(pictures, PICTURES, columns=4, cell=CELL)


def strips(engine: Engine, folder: Path) -> Image.Image:
    """Of each clip some frames, evenly spread over its loop."""
    pictures, words = [], []
    for prompt in CLIPS:
        file = made(engine, "dojo-motion", folder, prompt=prompt, resolution=256, duration=2, format="webp")
        with Image.open(file) as clip:
            count = getattr(clip, "n_frames", 1)
            for n in range(FRAMES):
                clip.seek(n * count // FRAMES)
                pictures.append(clip.convert("RGB"))
        words += [prompt] + [""] * (FRAMES - 1)
    return grid(pictures, words, columns=FRAMES, cell=STRIP_CELL)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for engine, draw, path in (
            (DojoEngine(), stills, ROOT / "docs" / "images" / "dojo-mini.png"),
            (MotionEngine(), strips, ROOT / "docs" / "models" / "dojo-motion-prompts.webp"),
        ):
            engine.load()
            draw(engine, Path(folder)).save(path, **({"quality": 88} if path.suffix == ".webp" else {"optimize": True}))


if __name__ == "__main__":
    main()
