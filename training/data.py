"""Stage `train-data`: from npm packages by name and version to one compact archive.

Enters: three packages, fetched with the `npm` command so that the user's own registry settings hold; each must have
the pinned integrity hash. Leaves: `data/emoji.zip`, the pictures as they came (RGBA WebP, 256 px) and `index.json`
with what captions need. Small enough to carry to a machine without a network.
"""

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.runs import arguments, root_of

PACKAGES: Mapping[str, str] = {
    "@lobehub/fluent-emoji-3d@1.1.0": (
        "sha512-Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g=="
    ),
    "emojibase-data@17.0.0": (
        "sha512-Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA=="
    ),
    "emojilib@4.0.3": (
        "sha512-KbWiYre9aRSaPbHrHZIz9zmoM+21LAsK1VFJtnTh1VCtWE/rNMDviGhQTmselFl95dhqtGlY22iH0leG5BuW0g=="
    ),
}
PROMPTS = Path(__file__).parent / "prompts"
SIDE = 256  # pixels of every picture
# Left out: country flags, writing, and signs that are writing in all but name. They are many, they look alike, and
# a model of this size would spend itself on them. Faces, hands and people stay in.
LEFT_OUT_SUBGROUPS = frozenset(
    {
        "country-flag",
        "subdivision-flag",
        "alphanum",
        "arrow",
        "av-symbol",
        "currency",
        "gender",
        "keycap",
        "math",
        "other-symbol",
        "punctuation",
        "religion",
        "transport-sign",
        "warning",
        "zodiac",
        "skin-tone",
        "hair-style",
    }
)
LEFT_OUT_WORDS = ("o’clock", "-thirty", "twelve", "chart with upwards", "x-ray")
HELD_OUT_SHARE = 0.05  # of the emoji, for the autoencoder and the upscaler


@dataclass(frozen=True)
class Emoji:
    """One picture and what its sources say about it."""

    code: str  # code points in lower-case hexadecimal, joined by "-", without variation selectors
    file: str  # name inside the archive
    label: str
    tags: tuple[str, ...]
    group: str
    subgroup: str
    tone: str  # skin tone in words, or ""
    parent: str  # code of the emoji without a skin tone; its own where it has none
    held_out: bool


def fetch(package: str, integrity: str, folder: Path) -> Path:
    """The package's archive, fetched if it is not there. `ValueError` where its hash is another."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (package.replace("@", "_").replace("/", "_") + ".tgz")
    if not path.exists():
        npm = shutil.which("npm")
        if npm is None:
            raise FileNotFoundError("npm is needed to fetch the data")
        command = [npm, "pack", "--json", "--pack-destination", str(folder), package]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        (folder / json.loads(told)[0]["filename"].replace("@", "").replace("/", "-")).rename(path)
    check(path, integrity)
    return path


def check(path: Path, integrity: str) -> None:
    """`ValueError` unless the file has the hash, written as in package locks: "sha512-" and base64."""
    kind, _, wanted = integrity.partition("-")
    found = base64.b64encode(hashlib.new(kind, path.read_bytes()).digest()).decode()
    if found != wanted:
        raise ValueError(f"{path.name}: the integrity hash is {kind}-{found}, not the pinned one")


def plain_code(code: str) -> str:
    """A code without variation selectors, in lower case."""
    return "-".join(part for part in code.lower().split("-") if part != "fe0f")


def index(
    names: list[str], emojibase: list[dict[str, Any]], groups: dict[str, Any], emojilib: dict[str, Any]
) -> list[Emoji]:
    """What to keep of the pictures called `names` ("1f34e.webp"), with captions' raw material, ordered by code."""
    pictures = {plain_code(Path(name).stem): name for name in names if name.endswith(".webp")}
    words = {plain_code("-".join(f"{ord(c):x}" for c in key)): value for key, value in emojilib.items()}
    group_names = {g["order"]: g["key"] for g in groups["groups"]}
    subgroup_names = {g["order"]: g["key"] for g in groups["subgroups"]}
    kept = []
    for entry in emojibase:
        code, subgroup = plain_code(entry["hexcode"]), subgroup_names.get(entry.get("subgroup"), "")
        if "group" not in entry or subgroup in LEFT_OUT_SUBGROUPS:
            continue
        if any(word in entry["label"] for word in LEFT_OUT_WORDS):
            continue
        tags = tuple(dict.fromkeys([*entry.get("tags", []), *(w.replace("_", " ") for w in words.get(code, []))]))
        held_out = int(hashlib.sha256(code.encode()).hexdigest()[:8], 16) / 2**32 < HELD_OUT_SHARE
        for variant in (entry, *entry.get("skins", [])):
            own = plain_code(variant["hexcode"])
            if own in pictures and not isinstance(variant.get("tone"), list):
                tone = variant["label"].split(": ")[-1] if "tone" in variant else ""
                kept.append(
                    Emoji(
                        own,
                        pictures[own],
                        entry["label"],
                        tags,
                        group_names[entry["group"]],
                        subgroup,
                        tone.split(", ")[-1],
                        code,
                        held_out,
                    )
                )
    return sorted(kept, key=lambda emoji: emoji.code)


def members(path: Path, wanted: str) -> dict[str, bytes]:
    """Files of a package archive whose path holds `wanted`, by file name."""
    found = {}
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() and wanted in member.name else None
            if file is not None:
                found[Path(member.name).name] = file.read()
    return found


def build(root: Path) -> Path:
    """Fetch, verify, choose, and write `data/emoji.zip` below `root`. Returns its path."""
    packages = [fetch(name, integrity, root / "data" / "packages") for name, integrity in PACKAGES.items()]
    pictures = members(packages[0], "package/assets/")
    english = members(packages[1], "package/en/")
    keywords = members(packages[2], "package/dist/")
    kept = index(
        list(pictures),
        json.loads(english["data.json"]),
        json.loads(english["messages.json"]),
        json.loads(keywords["emoji-en-US.json"]),
    )
    path = root / "data" / "emoji.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        about = {"packages": dict(PACKAGES), "emoji": [vars(emoji) for emoji in kept]}
        archive.writestr("index.json", json.dumps(about, ensure_ascii=False, indent=0))
        for emoji in kept:
            archive.writestr(emoji.file, pictures[emoji.file])
    return path


def read_index(root: Path) -> list[Emoji]:
    """The emoji of the archive, in its order."""
    with zipfile.ZipFile(root / "data" / "emoji.zip") as archive:
        rows = json.loads(archive.read("index.json"))["emoji"]
    return [Emoji(**{**row, "tags": tuple(row["tags"])}) for row in rows]


def read_prompts(name: str) -> Any:
    """A committed list of prompts: "paraphrases" or "sheets"."""
    return json.loads((PROMPTS / f"{name}.json").read_text(encoding="utf-8"))


def main() -> None:
    root = root_of(arguments(__doc__))
    path = build(root)
    emoji = read_index(root)
    plain = [e for e in emoji if not e.tone]
    print(
        f"{path}: {path.stat().st_size / 2**20:.1f} MiB, {len(plain)} emoji, {len(emoji) - len(plain)} with skin tones"
    )


if __name__ == "__main__":
    main()
