"""Stage `train-captions`: the scenes, their captions, and the captions' token states.

Leaves `scenes.json` and `texts.pt`. A share of the captions is held out: the flow never sees them, and the loss on
them says whether it understands or remembers.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from zlib import crc32

from training import runs, scenes, text
from training.data import read_index, read_prompts
from training.profiles import Profile
from training.render import Ground, Layer, Scene, atlas, boxes

HELD_OUT_OF = 50  # one caption of so many is held out
PARAPHRASES = frozenset(row["prompt"] for row in read_prompts("paraphrases"))


def held_out(caption: str) -> bool:
    """Whether the flow must not see this caption: one in fifty, and what the evaluation asks as a paraphrase."""
    return caption in PARAPHRASES or crc32(caption.encode()) % HELD_OUT_OF == 0


def build(root: Path, profile: Profile, encoder: Path) -> list[Scene]:
    """Write the scenes and the states of all their captions."""
    emoji = read_index(root)
    made = scenes.write(emoji, boxes(atlas(root, emoji)), profile.scenes, composed=profile.composed)
    captions = sorted({caption for scene in made for caption in scene.captions})
    states = text.encode_all(captions, encoder, profile.flow.text_tokens, threads=os.cpu_count() or 1)
    text.save(root / "texts.pt", states)
    whole = {"captions": captions, "scenes": [asdict(scene) for scene in made]}
    (root / "scenes.json").write_text(json.dumps(whole), encoding="utf-8")
    runs.record(
        root,
        "captions",
        {
            "scenes": len(made),
            "captions": len(captions),
            "held_out": sum(map(held_out, captions)),
            "tokens": int(states.lengths.sum()),
        },
    )
    return made


def read(root: Path) -> tuple[list[str], list[Scene]]:
    """The captions in the order of `texts.pt`, and the scenes."""
    whole = json.loads((root / "scenes.json").read_text(encoding="utf-8"))
    return whole["captions"], [_scene(row) for row in whole["scenes"]]


def _scene(row: dict[str, Any]) -> Scene:
    height, width = row["canvas"]
    layers: Sequence[dict[str, Any]] = row["layers"]
    parts: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row["ground"].items()}
    placed = tuple(Layer(**layer) for layer in layers)
    return Scene((height, width), placed, Ground(**parts), tuple(row["captions"]), row["weight"])


def main() -> None:
    options = runs.arguments(__doc__)
    made = build(runs.root_of(options), runs.profile_of(options), options.text)
    print(f"{len(made)} scenes")


if __name__ == "__main__":
    main()
