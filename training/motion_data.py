"""Stage `train-motion-data`: the animated emoji, as strips of a few frames, in one compact archive.

Enters: four npm packages of animated WebP files (256 px, 2 to 3 s, loops) and the words of `train-data`. Leaves:
`data/motion.zip`: of each emoji that moves a strip of `PHASES` frames, evenly spaced over the loop, beginning with the
first, and `index.json`. Small enough to carry to a machine without a network.
"""

import io
import json
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from training import data
from training.runs import arguments, root_of

PACKAGES: Mapping[str, str] = {
    "@lobehub/fluent-emoji-anim-1@1.0.0": (
        "sha512-/4m31vAuZEQ4aUJ5pxcOU5PVkuJya55GRxUZL7+zgLlxZXpzzE8jPqpDyhZICE3n47nS/Y9M5/vLdizi8201QA=="
    ),
    "@lobehub/fluent-emoji-anim-2@1.0.0": (
        "sha512-S6yzf0RZXrQbXdxCWuHA9BAoLdBRk2flX+ne4TPGEH/qApwisCAKHoAAGjKSlTY3OVeZ9b7t/NEbmpjawnQYJA=="
    ),
    "@lobehub/fluent-emoji-anim-3@1.0.0": (
        "sha512-UzRSUDMjdfdt9vER5bhjHkPqgc3EEgfGtYs6ndvizOTvQOxYQ57ow2RTkWSDZxwW30X4EYBi2eWTS7CXDDoFsg=="
    ),
    "@lobehub/fluent-emoji-anim-4@1.0.0": (
        "sha512-IIkl5ztSd1HrzvIDt/uGsFoC1WODXRdYq5uROrnkyqi9DbToEcJ1nlY86PnoUXeFS9nBCnHfiYk3ouSEGThFmA=="
    ),
}
PHASES = 16  # frames kept of a loop
SIDE = 96  # pixels of a kept frame
LEAST_BYTES = 30_000  # smaller files are still pictures
LEAST_CHANGE = 0.02  # mean difference from the first frame, of 1, over what is not transparent
QUALITY = 92


@dataclass(frozen=True)
class Clip:
    """One animated emoji."""

    code: str
    file: str  # name inside the archive: a strip, frames side by side
    label: str
    seconds: float  # one loop
    change: float  # mean difference from the first frame
    held_out: bool


def frames(file: bytes) -> tuple[NDArray[np.uint8], float]:
    """`PHASES` frames of a loop, bytes (phases, SIDE, SIDE, 4) with straight alpha, and the loop's seconds."""
    with Image.open(io.BytesIO(file)) as film:
        count = getattr(film, "n_frames", 1)
        milliseconds, kept = 0, []
        wanted = {round(k * count / PHASES) for k in range(PHASES)}
        for n in range(count):
            film.seek(n)
            film.load()
            milliseconds += int(film.info.get("duration", 0))
            if n in wanted:
                kept.append(np.asarray(film.convert("RGBA").resize((SIDE, SIDE), Image.Resampling.LANCZOS)))
    return np.stack(kept), milliseconds / 1000


def change(shown: NDArray[np.uint8]) -> float:
    """How much frames differ from the first, 0 to 1, where something is seen at all."""
    values = shown.astype(np.float32) / 255
    values[..., :3] *= values[..., 3:]
    seen = float(values[..., 3].max(0).mean())
    return float(np.abs(values - values[:1]).mean()) / max(seen, 1e-3)


def strip(shown: NDArray[np.uint8]) -> bytes:
    """Frames side by side as a WebP file."""
    file = io.BytesIO()
    Image.fromarray(np.concatenate(list(shown), 1)).save(file, "WEBP", quality=QUALITY, method=3)
    return file.getvalue()


def films(packages: Sequence[Path]) -> dict[str, bytes]:
    """All files that move, by name."""
    found = {}
    for path in packages:
        with tarfile.open(path) as archive:
            for member in archive:
                if member.name.endswith(".webp") and member.size > LEAST_BYTES:
                    file = archive.extractfile(member)
                    found[Path(member.name).name] = file.read() if file else b""
    return found


def build(root: Path) -> Path:
    """Fetch, verify, choose, and write `data/motion.zip` below `root`. Returns its path."""
    folder = root / "data" / "packages"
    moving = films([data.fetch(name, integrity, folder) for name, integrity in PACKAGES.items()])
    emojibase, emojilib = (name for name in data.PACKAGES if name.startswith("emoji"))
    english = data.members(data.fetch(emojibase, data.PACKAGES[emojibase], folder), "package/en/")
    keywords = data.members(data.fetch(emojilib, data.PACKAGES[emojilib], folder), "package/dist/")
    known = data.index(
        list(moving),
        json.loads(english["data.json"]),
        json.loads(english["messages.json"]),
        json.loads(keywords["emoji-en-US.json"]),
    )
    path, clips = root / "data" / "motion.zip", []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for one in known:
            if one.tone:
                continue  # the same motion again
            shown, seconds = frames(moving[one.file])
            if (moved := change(shown)) >= LEAST_CHANGE and len(shown) == PHASES:
                archive.writestr(one.file, strip(shown))
                clips.append(Clip(one.code, one.file, one.label, seconds, round(moved, 4), one.held_out))
        about = {"packages": dict(PACKAGES), "clips": [vars(clip) for clip in clips]}
        archive.writestr("index.json", json.dumps(about, ensure_ascii=False, indent=0))
    return path


def read_clips(root: Path) -> list[Clip]:
    """The clips of the archive, in its order."""
    with zipfile.ZipFile(root / "data" / "motion.zip") as archive:
        return [Clip(**row) for row in json.loads(archive.read("index.json"))["clips"]]


def load(root: Path, clips: Sequence[Clip]) -> Tensor:
    """The frames (N, PHASES, 4, SIDE, SIDE) as bytes, colour multiplied by alpha."""
    whole = np.empty((len(clips), PHASES, 4, SIDE, SIDE), np.uint8)
    with zipfile.ZipFile(root / "data" / "motion.zip") as archive:
        for row, clip in zip(whole, clips, strict=True):
            pixels = np.asarray(Image.open(io.BytesIO(archive.read(clip.file))).convert("RGBA")).astype(np.uint32)
            pixels[..., :3] = (pixels[..., :3] * pixels[..., 3:] + 127) // 255
            row[:] = pixels.astype(np.uint8).reshape(SIDE, PHASES, SIDE, 4).transpose(1, 3, 0, 2)
    return torch.from_numpy(whole)


def main() -> None:
    root = root_of(arguments(__doc__))
    path = build(root)
    clips = read_clips(root)
    print(
        f"{path}: {path.stat().st_size / 2**20:.1f} MiB, {len(clips)} clips, {sum(c.held_out for c in clips)} held out"
    )


if __name__ == "__main__":
    main()
