"""The recipe's words and its choice of data. Needs no torch."""

import base64
import hashlib
from pathlib import Path
from typing import Any

import pytest
from synthetic import archive, every_emoji

from training import data, wording


@pytest.mark.parametrize(
    ("noun", "said"),
    [
        ("apple", "an apple"), ("orange", "an orange"), ("unicorn", "a unicorn"), ("ewe", "a ewe"),
        ("grapes", "grapes"), ("octopus", "an octopus"), ("glasses", "glasses"), ("glass of milk", "a glass of milk"),
        ("hourglass not done", "an hourglass not done"), ("sushi", "sushi"), ("Santa Claus", "Santa Claus"),
        ("woman and man holding hands", "a woman and man holding hands"),
        ("one-piece swimsuit", "a one-piece swimsuit"),
        ("blue apple", "a blue apple"), ("face with rolling eyes", "a face with rolling eyes"),
    ],
)  # fmt: skip
def test_articles(noun: str, said: str) -> None:
    assert wording.with_article(noun) == said


@pytest.mark.parametrize(
    ("noun", "several"),
    [
        ("cat", "cats"), ("box", "boxes"), ("strawberry", "strawberries"), ("key", "keys"), ("fox", "foxes"),
        ("mouse", "mice"), ("tomato", "tomatoes"), ("maple leaf", "maple leaves"), ("grapes", "grapes"),
        ("face with rolling eyes", "faces with rolling eyes"),
        ("magnifying glass tilted left", "magnifying glasses tilted left"),
    ],
)  # fmt: skip
def test_plurals(noun: str, several: str) -> None:
    assert wording.plural(noun) == several


def test_labels_are_cleaned_and_lose_their_colours() -> None:
    assert wording.clean("person: blond hair") == "person with blond hair"
    assert wording.clean("woman’s hat") == "woman's hat"
    assert wording.colourless("red apple") == "apple" and wording.colourless("orange") == "orange"
    assert wording.names("locked")[0] == "padlock"


def entry(label: str, code: str, subgroup: int, **more: Any) -> dict[str, Any]:
    return {"label": label, "hexcode": code, "group": 1, "subgroup": subgroup, "tags": ["a tag"], **more}


def test_flags_and_writing_are_left_out_and_tones_kept() -> None:
    groups = {
        "groups": [{"order": 1, "key": "objects"}],
        "subgroups": [
            {"order": 1, "key": "tool"},
            {"order": 2, "key": "country-flag"},
            {"order": 3, "key": "alphanum"},
        ],
    }
    skins = [{"label": "wave: dark skin tone", "hexcode": "1F44B-1F3FF", "tone": 5}]
    rows = [
        entry("wave", "1F44B", 1, skins=skins), entry("flag: Chad", "1F1E6", 2), entry("OK button", "1F197", 3),
        entry("heart", "2764-FE0F", 1), entry("no picture", "1F000", 1),
    ]  # fmt: skip
    names = ["1f44b.webp", "1f44b-1f3ff.webp", "1f1e6.webp", "1f197.webp", "2764-fe0f.webp"]
    kept = data.index(names, rows, groups, {"👋": ["hello_there"]})
    assert [(one.label, one.tone) for one in kept] == [("wave", ""), ("wave", "dark skin tone"), ("heart", "")]
    assert kept[0].tags == ("a tag", "hello there")
    assert kept[1].parent == kept[0].code and kept[1].held_out == kept[0].held_out
    assert kept[2].file == "2764-fe0f.webp"


def test_a_package_with_another_hash_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "package.tgz"
    path.write_bytes(b"good")
    right = "sha512-" + base64.b64encode(hashlib.sha512(b"good").digest()).decode()
    data.check(path, right)
    path.write_bytes(b"bad")
    with pytest.raises(ValueError, match="not the pinned one"):
        data.check(path, right)


def test_the_archive_gives_back_what_went_in(tmp_path: Path) -> None:
    assert data.read_index(archive(tmp_path)) == every_emoji()


def test_there_are_a_hundred_paraphrases_with_answers() -> None:
    rows = data.read_prompts("paraphrases")
    assert len({row["prompt"] for row in rows}) == 100
    assert all(row["labels"] for row in rows)
    assert len(data.read_prompts("sheets")["compositions"]) == 20


def test_descriptions_do_not_hold_a_paraphrase() -> None:
    described = data.read_prompts("meanings")
    phrases = [phrase for some in described.values() for phrase in some]
    assert len(set(phrases)) == len(phrases) > 3_000
    assert not {row["prompt"] for row in data.read_prompts("paraphrases")} & set(phrases)
