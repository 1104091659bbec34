"""What can be said of an emoji, and where on a canvas it can stand.

Holds the source of chance, so that one seed gives one list of scenes. Positions and sizes are pixels.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from training import wording
from training.colour import GROUNDS
from training.data import Emoji
from training.profiles import CANVASES
from training.render import COLOURS, Box, Ground, Layer

CANVAS_SHARES = {"1:1": 0.6, "4:3": 0.1, "3:4": 0.1, "16:9": 0.1, "9:16": 0.1}
STYLES = (
    "a picture of {}",
    "an icon of {}",
    "a 3d emoji of {}",
    "a sticker of {}",
    "3d render of {}",
)
FEELINGS = ("cute", "little", "lovely", "nice")
COLOURABLE = frozenset({"animals-nature", "food-drink", "travel-places", "activities", "objects"})
NOT_COLOURED = frozenset({"place-map", "sky-weather", "time", "money", "place-geographic"})
NOT_IN_SCENES = frozenset({"geometric", "place-map", "emotion", "sound", "heart", "flag"})
SCENIC = frozenset({"foggy", "cityscape", "sunrise", "sunset", "night with stars", "milky way", "bridge at night"})
NAMED_COLOUR = 0.25  # share of the objects in scenes that get another colour
FACED = frozenset({"animals-nature", "smileys-emotion"})


@dataclass(frozen=True)
class Called:
    """A row of the atlas with the name it goes by in a caption; as text, the name with its article."""

    row: int
    bare: str
    colour: str = ""

    def __str__(self) -> str:
        return wording.with_article(self.bare)


class Writer:
    """Makes scenes from a random source; holds what is known of each emoji."""

    def __init__(self, emoji: Sequence[Emoji], boxes: Sequence[Box], seed: int) -> None:
        self.source = random.Random(seed)
        self.emoji, self.boxes = emoji, boxes
        self.nouns = [wording.names(one.label)[0] for one in emoji]
        self.plain = [i for i, one in enumerate(emoji) if not one.tone]
        self.toned = [i for i, one in enumerate(emoji) if one.tone]
        self.row = {emoji[i].label: i for i in self.plain}
        self.named = {self.nouns[i].lower() for i in self.plain}
        tags = Counter(tag.lower() for i in self.plain for tag in set(emoji[i].tags))
        self.rare = {tag for tag, count in tags.items() if count <= 3}
        self.objects = [i for i in self.plain if self._is_object(i)]
        self.colourable = [i for i in self.objects if self._is_colourable(i)]
        self.countable = [
            i for i in self.objects if emoji[i].group != "people-body" and wording.countable(self.nouns[i])
        ]
        self.faced = [i for i in self.plain if self._has_face(i)]

    def _is_object(self, i: int) -> bool:
        one = self.emoji[i]
        return one.subgroup not in NOT_IN_SCENES and one.group not in ("symbols", "flags") and one.label not in SCENIC

    def _is_colourable(self, i: int) -> bool:
        return self.emoji[i].group in COLOURABLE and self.emoji[i].subgroup not in NOT_COLOURED

    def _has_face(self, i: int) -> bool:
        one = self.emoji[i]
        whole = one.subgroup in ("cat-face", "monkey-face", "face-smiling") or one.label in (
            "frog",
            "fox",
            "bear",
            "panda",
            "koala",
            "wolf",
            "lion",
            "hamster",
            "polar bear",
            "robot",
            "ghost",
            "alien",
        )
        return (whole or one.label.endswith(" face")) and one.group in FACED and "moon" not in one.label

    def may_flip(self, i: int) -> bool:
        """Not what has a side in its name, nor writing."""
        one = self.emoji[i]
        handed = any(word in one.label for word in ("left", "right", "clock", "hour", "medal", "ZZZ", "100"))
        return (
            one.group not in ("symbols", "flags") and not handed and one.subgroup not in ("money", "office", "calendar")
        )

    # -- captions ---------------------------------------------------------------------------------------------

    def captions(self, i: int, *, tail: str = "", colour: str = "", count: int = 3) -> tuple[str, ...]:
        """Ways to ask for one object, with `tail` ("on a blue background") at the end."""
        source, one = self.source, self.emoji[i]
        names = wording.names(one.label)
        noun = f"{colour} {wording.colourless(names[0])}" if colour else names[0]
        if one.tone:
            noun = f"{noun} with {one.tone}" if " with " not in noun else f"{noun} and {one.tone}"
        with_article = wording.with_article(noun)
        ways = [noun, with_article, *(style.format(with_article) for style in source.sample(STYLES, 2))]
        if not wording.is_plural(noun):
            ways.append(wording.with_article(f"{source.choice(FEELINGS)} {noun}"))
        if one.group == "animals-nature" and noun.endswith(" face"):
            ways += [
                wording.with_article(noun.removesuffix(" face")),
                f"the head of {wording.with_article(noun.removesuffix(' face'))}",
            ]
        ways += [wording.with_article(f"{colour} {name}" if colour else name) for name in names[1:] if not one.tone]
        tags = [tag.lower() for tag in one.tags if len(tag) > 1 and tag.isascii() and tag.lower() != one.label.lower()]
        if colour:
            ways.append(f"{wording.colourless(self.nouns[i])}, {colour}")
        elif tags:
            some = source.sample(tags, min(3, len(tags)))
            ways += [f"{noun}, {some[0]}", ", ".join([*some[1:], noun])]
            rare = [tag for tag in tags if tag in self.rare and not one.tone]
            ways += source.sample(rare, min(3, len(rare))) + ([", ".join(some)] if len(some) > 1 else [])
        chosen = [ways[1], *source.sample(ways, min(count - 1, len(ways)))]
        return tuple(dict.fromkeys(self.joined(way, tail) for way in chosen if not self.misleads(way, noun, colour)))

    def misleads(self, way: str, noun: str, colour: str) -> bool:
        """Whether a caption of `noun` names another emoji: "bacon" said of a pig, "a cow" of a cow's face."""
        way = way.lower()
        if noun.lower() in way:
            return False
        said = (part.removeprefix("a ").removeprefix("an ").removeprefix(f"{colour} ") for part in way.split(", "))
        return any(part in self.named for part in said)

    def some(self, ways: list[str], tail: str) -> tuple[str, ...]:
        """Three of the ways to say it, each with its tail."""
        return tuple(self.joined(way, tail) for way in self.source.sample(ways, min(3, len(ways))))

    def joined(self, way: str, tail: str) -> str:
        return f"{way}{', ' if ',' in way else ' '}{tail}" if tail else way

    # -- places -----------------------------------------------------------------------------------------------

    def canvas(self, *names: str) -> tuple[int, int]:
        """A canvas by the shares, or one of those named."""
        wanted = names or tuple(CANVASES)
        return CANVASES[self.source.choices(wanted, [CANVAS_SHARES[name] for name in wanted])[0]]

    def put(
        self, i: int, centre: tuple[float, float], extent: float, *, colour: str = "", flip: bool | None = None
    ) -> Layer:
        """The emoji with the middle of its visible box at `centre` and the longer side of that box `extent` pixels."""
        left, top, right, bottom = self.boxes[i]
        side = extent / max(right - left, bottom - top)
        turned = self.source.random() < 0.5 and self.may_flip(i) if flip is None else flip
        middle = (left + right) / 2
        middle = 1 - middle if turned else middle
        return Layer(i, centre[0] - side * middle, centre[1] - side * (top + bottom) / 2, side, turned, colour)

    def shape(self, i: int, extent: float) -> tuple[float, float]:
        """Width and height in pixels of the visible box whose longer side is `extent`."""
        left, top, right, bottom = self.boxes[i]
        longer = max(right - left, bottom - top)
        return extent * (right - left) / longer, extent * (bottom - top) / longer

    def ground(self) -> tuple[Ground, str]:
        """A background and its words; half the time none."""
        source, draw = self.source, self.source.random()
        if draw < 0.45:
            return Ground(), ""
        if draw < 0.5:
            return Ground(), source.choice(["on a transparent background", "isolated", "cut out"])
        name = source.choice(list(GROUNDS))
        top = self.near(GROUNDS[name])
        if draw < 0.85:
            words = source.choice(["on {}", "on {}", "on {}", "with {}"])
            return Ground("plain", top, top), words.format(wording.with_article(f"{name} background"))
        other = source.choice([key for key in GROUNDS if key != name])
        words = source.choice(
            [f"on a gradient from {name} to {other}", f"on {wording.with_article(name)} and {other} gradient"]
        )
        return Ground("gradient", top, self.near(GROUNDS[other])), words

    def near(self, colour: tuple[int, int, int]) -> tuple[int, int, int]:
        red, green, blue = (max(0, min(255, value + round(self.source.gauss(0, 4)))) for value in colour)
        return red, green, blue

    def called(self, i: int) -> Called:
        """An object's name, and now and then a colour for it."""
        if i not in self.colourable or self.source.random() >= NAMED_COLOUR:
            return Called(i, self.nouns[i])
        colour = self.source.choice(COLOURS)
        return Called(i, f"{colour} {wording.colourless(self.nouns[i])}", colour)
