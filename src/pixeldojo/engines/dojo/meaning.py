"""What a prompt means to a model that was told of some 1,400 things.

A prompt in words that the model was told of stays as it is. One that describes a thing without naming it ("a striped
black and white horse") becomes the thing that comes nearest by the text encoder's own sense of likeness; of any other,
words that mean nothing to the model are left out. `training/meanings.py` writes the file with the things.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pixeldojo.engines.dojo.graphs import Floats

FILE = "meanings.npz"
LEAST = 0.5  # likeness: what is less like any thing describes none
SURE, CLEARLY = 0.65, 0.12  # so like must another thing be to replace one that is named, and by so much more like
COLOUR_FIRST = 3  # a colour among so many first words is that of the thing

_WORDS = re.compile(r"[^\W_]+(?:['’.-][^\W_]+)*|[&+]")
_ARTICLE = re.compile(r"\ban? (?=(?!uni|euro|one|use|ewe)([aeiou]|hour|honest|x-ray))?")

# "An oil painting of a cat" asks for a cat; what stands in front of these is about the style.
MEDIUMS = frozenset({
    "image", "picture", "photo", "photograph", "painting", "portrait", "drawing", "sketch", "illustration", "render",
    "rendering", "artwork", "art", "logo", "icon", "sticker", "emoji",
})  # fmt: skip
_WITHOUT = frozenset({"without", "no", "not", "except"})
_SAME = {
    "tiny": "small", "huge": "big", "enormous": "big", "giant": "big", "gigantic": "big", "over": "above",
    "atop": "above", "beneath": "under", "underneath": "under", "beside": "next to", "near": "next to",
    "&": "and", "+": "and",
}  # fmt: skip

NAME, PLACE, ARTICLE, QUALITY, RELATION, STRANGE = "name", "place", "article", "quality", "relation", "strange"


class Part(NamedTuple):
    """One or more words of a prompt, and what they are to the model."""

    kind: str
    text: str


class Meanings:
    """The things in a file that `training/meanings.py` wrote."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as file:
            self._vectors: Floats = file["vectors"].astype(np.float32) / 127  # (N, width), each about 1 long
            self._owners: NDArray[np.int64] = file["owners"].astype(np.int64)  # of each vector, the thing
            self._things: list[str] = file["things"].tolist()  # what to say for each
            self._colours, self._places = (frozenset(file[name].tolist()) for name in ("colours", "places"))
            self._kinds = {word: kind for kind in (ARTICLE, QUALITY, RELATION) for word in file[kind].tolist()}
            self._known: dict[str, frozenset[int]] = {}
            names = [" ".join(_WORDS.findall(name)) for name in file["names"].tolist()]
            for name, thing in zip(names, file["named"].tolist(), strict=True):
                self._known[name] = self._known.get(name, frozenset()) | {thing}
            self.singles: Mapping[str, str] = dict(zip(names, file["singles"].tolist(), strict=True))
            aliases = file["aliases"].tolist()  # other words, and the names for them
            self.worn: frozenset[str] = frozenset(file["worn"].tolist())  # what the model puts on faces
            self.limbs: frozenset[str] = frozenset(file["limbs"].tolist())  # what things have, not what is beside them
        self._aliases = {alias: name for alias, name in aliases if alias not in self._known}
        self._longest = max(len(name.split()) for name in (*self._known, *self._places))

    def said(self, prompt: str, pooled: Floats) -> str:
        """The prompt, plain and in lower case, in words that the model knows. `pooled` (width,) is its text state."""
        parts = self.parts(prompt)
        kinds = {part.kind for part in parts}
        named = [self._known[part.text] for part in parts if part.kind == NAME]
        if STRANGE not in kinds and named:
            plain = " ".join(part.text for part in parts)
            return prompt if plain == " ".join(_WORDS.findall(prompt)) else articled(plain)
        likeness = self._likeness(pooled)
        nearest = int(likeness.argmax())
        if named:
            unnamed = headless(parts)
            meant = max(likeness[thing] for things in named for thing in things)
            enough = max(LEAST, meant) if unnamed else max(SURE, meant + CLEARLY)
            things = sum(part.kind == NAME and part.text not in self.limbs for part in parts)
            if likeness[nearest] <= enough or (things > 1 and not unnamed):
                return simpler(parts)
        return self._thing(nearest, parts) if likeness[nearest] > LEAST else prompt

    def _likeness(self, pooled: Floats) -> Floats:
        """Of every thing, -1 to 1: how like its likest description is."""
        found = self._vectors @ (pooled / np.linalg.norm(pooled))
        best = np.full(len(self._things), -1, np.float32)
        np.maximum.at(best, self._owners, found)
        return best

    def parts(self, prompt: str) -> list[Part]:
        """A prompt in lower case, taken apart, without what is said of the style in front and what is not wanted."""
        parts = list(self._parts(_WORDS.findall(prompt)))
        for n in range(1, len(parts)):
            if parts[n].kind in (NAME, PLACE):
                break
            if parts[n].text == "of" and parts[n - 1].text in MEDIUMS:
                return wanted(parts[n + 1 :])
        return wanted(parts)

    def _parts(self, words: Sequence[str]) -> Iterator[Part]:
        """The longest names and places first, then words that are known by themselves, then strange ones."""
        start = 0
        while start < len(words):
            for end in range(min(len(words), start + self._longest), start, -1):
                text = " ".join(words[start:end])
                if text in self._places:
                    yield Part(PLACE, text)
                elif (name := self._aliases.get(text, text)) in self._known:
                    yield Part(NAME, name)
                else:
                    continue
                break
            else:
                end = start + 1
                for word in _SAME.get(words[start], words[start]).split():
                    yield Part(self._kinds.get(word, STRANGE), word)
            start = end

    def _thing(self, thing: int, parts: Sequence[Part]) -> str:
        """The thing, with the colour and the place that the prompt gives it."""
        said = self._things[thing]
        words = [word for part in parts for word in part.text.split()]
        colours = [word for word in words if word in self._colours]
        if len(colours) == 1 and colours[0] in words[:COLOUR_FIRST] and not self._colours & set(said.split()):
            article, blank, noun = said.partition(" ")
            said = f"{article} {colours[0]} {noun}" if blank and article in ("a", "an") else f"{colours[0]} {said}"
        places = [part.text for part in parts if part.kind == PLACE]
        return articled(" ".join([said, *places[-1:]]))


def wanted(parts: Sequence[Part]) -> list[Part]:
    """The parts without what comes after a "without"."""
    kept: list[Part] = []
    skips = False
    for n, part in enumerate(parts):
        if part.text in _WITHOUT and any(later.kind == NAME for later in parts[n:]):
            skips = True
            while kept and kept[-1].kind == RELATION:
                kept.pop()
        if not skips:
            kept.append(part)
        skips = skips and part.kind != NAME
    return kept


def headless(parts: Sequence[Part]) -> bool:
    """Whether what is asked for goes unnamed, as in "a tool that opens doors": the first name is only said about it.

    Not so in "draw me a cat": what it is would have an article.
    """
    strange = called = False
    for part in parts:
        if part.kind in (NAME, PLACE):
            return False
        if strange and (part.kind == RELATION or (part.kind == ARTICLE and called)):
            return True
        strange = strange or part.kind == STRANGE
        called = called or part.kind == ARTICLE
    return True


def simpler(parts: Sequence[Part]) -> str:
    """The parts up to the last name, without the strange ones and what only those held together."""
    kept: list[Part] = []
    between: list[Part] = []
    for part in parts:
        between.append(part)
        if part.kind in (NAME, PLACE):
            kept += joined(between) if any(each.kind == NAME for each in kept) else led(between)
            between = []
    return articled(" ".join(part.text for part in kept))


def led(parts: Sequence[Part]) -> list[Part]:
    """What leads up to the first name, and that: of "a machine that looks like a person", "a person"."""
    if all(part.kind != STRANGE for part in parts):
        return list(parts)
    if parts[-1].kind == PLACE:
        return [parts[-1]]
    start = max((n for n, part in enumerate(parts) if part.kind == RELATION), default=-1) + 1
    start = max((n for n, part in enumerate(parts) if part.kind == ARTICLE and n > start), default=start)
    return [part for part in parts[start:] if part.kind != STRANGE]


def joined(parts: Sequence[Part]) -> list[Part]:
    """What joins a name to the one before, and that: of "… who sits next to a small dog", "next to a small dog"."""
    if all(part.kind != STRANGE for part in parts):
        return list(parts)
    if parts[-1].kind == PLACE:
        return [parts[-1]]
    relations = [n for n, part in enumerate(parts) if part.kind == RELATION]
    if not relations:
        last = max(n for n, part in enumerate(parts) if part.kind in (STRANGE, RELATION))
        return [Part(RELATION, "and"), *parts[last + 1 :]]
    start = end = relations[-1]
    while start - 1 in relations:
        start -= 1
    if start == end and parts[end].text == "of":
        return []  # "made of wood": that does not stand beside it
    return [*parts[start : end + 1], *led(parts[end + 1 :])]


def articled(text: str) -> str:
    """The text with "a" or "an" as what follows now wants it."""
    return _ARTICLE.sub(lambda found: "an " if found[1] else "a ", text)
