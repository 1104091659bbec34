"""Command `python -m training.meanings`: by what the service tells which thing a prompt means.

Enters: the emoji, `prompts/meanings.json` (short descriptions of each, which don't name it; written for this project,
without a look at the evaluation's paraphrases), and the text encoder. Leaves `meanings.npz` beside it: text states in
8 bits of names and descriptions, and the words that captions consist of; see `pixeldojo.engines.dojo.meaning`.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixeldojo.engines.dojo import meaning
from pixeldojo.engines.dojo.places import LANDS
from training import runs, scenes, text, wording, writer
from training.data import Emoji, read_index, read_prompts
from training.render import COLOURS

MOST_TOKENS = 23  # of a description; as many as the flow reads
TAGS = 7  # of an emoji, that describe it together with its label
# Common words for which captions have others, and the label of what is meant.
ALIASES = {
    "hat": "top hat", "moon": "full moon", "boat": "sailboat", "ball": "soccer ball", "cake": "birthday cake",
    "shoe": "running shoe", "sneaker": "running shoe", "phone": "mobile phone", "computer": "laptop",
    "clock": "alarm clock", "sheep": "ewe", "lamb": "ewe", "sword": "dagger", "puppy": "dog", "kitten": "cat",
    "bunny": "rabbit", "hand": "raised hand", "box": "package", "city": "cityscape", "mug": "hot beverage",
    "coffee": "hot beverage", "tea": "teacup without handle", "knife": "kitchen knife", "fries": "french fries",
    "burger": "hamburger", "flower": "hibiscus", "plane": "airplane", "bike": "bicycle", "wine": "wine glass",
    "beer": "beer mug", "cheese": "cheese wedge", "wizard": "mage", "witch": "woman mage", "queen": "princess",
    "king": "person with crown", "angel": "baby angel", "santa": "Santa Claus", "plant": "potted plant",
    "planet": "ringed planet", "bag": "handbag", "cop": "police officer", "soldier": "guard",
    "spaceship": "rocket", "pumpkin": "jack-o-lantern", "steak": "cut of meat",
    "earth": "globe showing Americas", "lightning": "high voltage", "gun": "water pistol",
    "medal": "sports medal", "letter": "envelope", "mail": "envelope", "music": "musical notes", "toast": "bread",
}  # fmt: skip
# Words that captions put between names.
RELATIONS = "and to of left right next in front behind above on top below under with between wearing from"
LIMBS = ("door", "window", "wing", "eyes", "eye", "ear", "nose", "mouth", "tongue", "leg", "foot", "feather")
QUALITIES = (
    "big small large light dark transparent plain gradient background isolated group image photo illustration logo"
)


def normed(rows: NDArray[Any]) -> NDArray[np.float32]:
    """Rows one long."""
    found: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return found


def known(one: Emoji) -> dict[str, str]:
    """Every name of an emoji that captions use, in lower case; also for several of it, with the name for one."""
    found: dict[str, str] = {}
    for name in {*wording.names(one.label), scenes.HAT_WORDS.get(one.label, one.label)}:
        forms = {name, wording.colourless(name)}
        if one.group == "animals-nature":
            forms |= {form.removesuffix(" face") for form in forms}
        found |= {wording.plural(form).lower(): form.lower() for form in forms}
        found |= {form.lower(): form.lower() for form in forms}
    return found


def kinds() -> Mapping[str, set[str]]:
    """The words of captions that are no names, by what they are for."""
    styles = {word for style in writer.STYLES for word in style.split()} - {"{}", "a", "an", "of"}
    numbers = {word for number, name in scenes.NUMBERS.items() for word in (name, str(number))}
    return {
        "article": {"a", "an", "the"},
        "quality": {*QUALITIES.split(), *styles, *numbers, *writer.FEELINGS, *colours()},
        "relation": set(RELATIONS.split()),
    }


def colours() -> set[str]:
    """Colours by their names, and as others spell them."""
    return {*COLOURS, "grey", "gray"}


def build(emoji: Sequence[Emoji], encoder: text.Encoder) -> Mapping[str, NDArray[Any]]:
    """The arrays of the file. Of each thing a state for its names and tags together, and one for each description."""
    emoji = [one for one in emoji if not one.tone]
    described: Mapping[str, list[str]] = read_prompts("meanings")

    def states(phrases: Iterable[str]) -> NDArray[np.float32]:
        return normed(encoder.encode(list(phrases))[1].astype(np.float32))

    vectors, owners = [], []
    for n, one in enumerate(emoji):
        whole = ", ".join([one.label, *one.tags][: TAGS + 1])
        named = states([*wording.names(one.label), whole])
        rows = [normed(named.mean(0))]
        if one.label in described:
            rows += list(states(described[one.label]))
        vectors += rows
        owners += [n] * len(rows)
    first = {one.label: wording.names(one.label)[0].lower() for one in emoji}
    aliases = [(alias, first[label]) for alias, label in ALIASES.items() if label in first]
    aliases += [(wording.plural(alias), wording.plural(name)) for alias, name in aliases]
    names = sorted((name, n, single) for n, one in enumerate(emoji) for name, single in known(one).items())
    worn = {name for one in emoji if one.label in (*scenes.HATS, *scenes.GLASSES) for name in known(one)}
    limbs = {name for one in emoji if one.subgroup == "body-parts" or one.label in LIMBS for name in known(one)}
    return {
        "vectors": np.rint(127 * np.stack(vectors)).astype(np.int8),
        "owners": np.array(owners, np.int16),
        "things": np.array([wording.with_article(wording.names(one.label)[0]).lower() for one in emoji]),
        "names": np.array([name for name, _, _ in names]),
        "named": np.array([n for _, n, _ in names], np.int16),
        "singles": np.array([single for _, _, single in names]),
        "aliases": np.array(sorted(set(aliases))).reshape(-1, 2),
        "worn": np.array(sorted(worn)),
        "limbs": np.array(sorted(limbs)),
        **{kind: np.array(sorted(words)) for kind, words in kinds().items()},
        "colours": np.array(sorted(colours())),
        "places": np.array(sorted({way for land in LANDS.values() for way in (*land.words, *land.also)})),
    }


def main(line: list[str] | None = None) -> Path:
    options = runs.arguments(__doc__, line)
    path: Path = options.text / meaning.FILE
    np.savez_compressed(
        path, allow_pickle=False, **build(read_index(options.root), text.Encoder(options.text, MOST_TOKENS))
    )
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
    return path


if __name__ == "__main__":
    main()
