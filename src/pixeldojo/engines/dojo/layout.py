"""Several things in one picture, and things in a place: words go in, where everything stands comes out.

The denoiser is best at one thing that fills its canvas. So the things that a prompt names are painted one by one and
laid together here, the way they lie in the pictures that it learnt from; landscapes are drawn by code. A prompt that
can't be taken apart is painted as a whole.
"""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from PIL import Image

from pixeldojo.engines.dojo.graphs import Floats
from pixeldojo.engines.dojo.meaning import NAME, PLACE, STRANGE, Meanings, Part, articled
from pixeldojo.engines.dojo.places import IN_THE_SKY, LANDS, Land, drawn

MOST = 6  # things in one picture
SMALL = 0.5  # the size of what is called small beside something else
SEEN = 24 / 255  # alpha of what counts as a part of a thing
IN_LAND = 0.68  # the size of things that stand in a landscape
FLOOR = 0.92  # of the height, in a landscape
AROUND = 2  # things that a landscape has beside those that are asked for

# How things lie: beside each other on one floor, the first on top of the second, the first behind the second, in rows.
BESIDE, ABOVE, BEHIND, ROWS = "beside", "above", "behind", "rows"
_NUMBERS: Mapping[str, int] = {word: n for n, word in enumerate(("two", "three", "four", "five", "six"), 2)} | {
    str(n): n for n in range(2, MOST + 1)
}
# Words between two things: how these lie, and whether it is the second that is named first.
_RELATIONS: Mapping[str, tuple[str, bool]] = MappingProxyType({
    "and": (BESIDE, False), "next to": (BESIDE, False), "to the left of": (BESIDE, False),
    "to the right of": (BESIDE, True), "left of": (BESIDE, False), "right of": (BESIDE, True),
    "on the left of": (BESIDE, False), "on the right of": (BESIDE, True),
    "above": (ABOVE, False), "on top of": (ABOVE, False), "on": (ABOVE, False),
    "below": (ABOVE, True), "under": (ABOVE, True), "with": (BEHIND, False), "in front of": (BEHIND, True),
    "behind": (BEHIND, False),
})  # fmt: skip
_BETWEEN_THINGS = re.compile(rf" ({'|'.join(sorted({*_RELATIONS, 'wearing', 'in'}, key=len, reverse=True))}) ")
_LIST = re.compile(rf"\}} (?=(?:an?|the|{'|'.join(_NUMBERS)}) )")
_LEFT_AND_RIGHT = re.compile(r"(.+) on the left and (.+) on the right")
_RIGHT_AND_LEFT = re.compile(r"(.+) on the right and (.+) on the left")
_IN_THE_MIDDLE = re.compile(r"(.+) between (.+) and (.+)")
_THING = re.compile(
    r"(?:(?:an? |the )?group of )?((?:[^{}]+ )?)\{(\d+)\}((?: (?:with|wearing|in) (?:[^{}]+ )?\{\d+\})?)"
)
_NUMBER = re.compile(rf"(?:the )?({'|'.join(_NUMBERS)}) ")
_SIZE = re.compile(r"\b(big|large|small|little) ")


class Item(NamedTuple):
    """A thing to paint."""

    prompt: str
    share: float = 1.0  # of the size that things have here


class Layout(NamedTuple):
    """Things, and how they lie: one of the words above. `land` is what they stand in."""

    items: tuple[Item, ...]
    way: str = BESIDE
    land: Land | None = None


class Spot(NamedTuple):
    """Where a thing is drawn, in pixels."""

    left: float
    top: float
    width: float
    height: float


def read(prompt: str, meanings: Meanings) -> Layout | None:
    """The layout that a prompt in lower case asks for; None where it can't be taken apart."""
    parts = meanings.parts(prompt)
    where: list[str] = []
    while parts and parts[-1].kind == PLACE:
        where.insert(0, parts.pop().text)
    while parts and parts[0].kind == PLACE:
        where.append(parts.pop(0).text)
    if not parts or any(part.kind in (PLACE, STRANGE) for part in parts):
        return None
    found = _things(parts, meanings)
    if found is None or sum(count for _, count, _ in found[0]) > MOST:
        return None
    things, relations = found
    items = tuple(Item(text, share) for text, count, share in things for _ in range(count))
    land = _land(where)
    if len(things) == 1:
        return Layout(items, ROWS if len(items) > 1 else BESIDE, land)
    if len(items) == len(things) == 2:
        way, second_first = _RELATIONS[relations[0]]
        return Layout(items[::-1] if second_first else items, way, land)
    if all(_RELATIONS[each] == (BESIDE, False) for each in relations):
        return Layout(items, BESIDE if len(items) <= 3 else ROWS, land)
    return None


def _things(parts: Sequence[Part], meanings: Meanings) -> tuple[list[tuple[str, int, float]], list[str]] | None:
    """Of each thing what to say for one, how many, and its size; and the words between them."""
    names = [part.text for part in parts if part.kind == NAME]
    numbers = iter(range(len(names)))
    text = " ".join(f"{{{next(numbers)}}}" if part.kind == NAME else part.text for part in parts)
    text = _LIST.sub("} and ", text)
    if (sides := _LEFT_AND_RIGHT.fullmatch(text)) is not None:
        text = f"{sides[1]} to the left of {sides[2]}"
    elif (sides := _RIGHT_AND_LEFT.fullmatch(text)) is not None:
        text = f"{sides[1]} to the right of {sides[2]}"
    elif (three := _IN_THE_MIDDLE.fullmatch(text)) is not None:
        text = f"{three[2]} and {three[1]} and {three[3]}"
    phrases = _BETWEEN_THINGS.split(text)
    n = 1
    while n < len(phrases):  # what is worn stays with its wearer
        worn = re.fullmatch(r"(?:[^{}]+ )?\{(\d+)\}", phrases[n + 1])
        if phrases[n] in ("wearing", "in", "with") and worn and meanings.singles[names[int(worn[1])]] in meanings.worn:
            phrases[n - 1 : n + 2] = [" ".join(phrases[n - 1 : n + 2])]
        elif phrases[n] == "with" and worn and meanings.singles[names[int(worn[1])]] in meanings.limbs:
            return None
        else:
            n += 2
    if any(each not in _RELATIONS for each in phrases[1::2]):
        return None
    found = [_THING.fullmatch(phrase) for phrase in phrases[::2]]
    things = [_thing(each, names, meanings.singles) for each in found if each is not None]
    if len(things) < len(found):
        return None
    several = len(things) > 1
    return [(said, count, SMALL if several and small else 1.0) for said, count, small in things], phrases[1::2]


def _thing(found: re.Match[str], names: Sequence[str], singles: Mapping[str, str]) -> tuple[str, int, bool]:
    """What to say for one of a thing, how many there are, and whether they are called small."""
    before, name, after = (
        found[1],
        names[int(found[2])],
        re.sub(r"\{(\d+)\}", lambda each: names[int(each[1])], found[3]),
    )
    size, number = _SIZE.search(before), _NUMBER.match(before)
    if number is not None:
        before, name = f"a {before[number.end() :]}", singles[name]
    before = _SIZE.sub("", before)
    return (
        articled(before + name + after),
        _NUMBERS[number[1]] if number else 1,
        bool(size and size[1] in ("small", "little")),
    )


def _land(where: Sequence[str]) -> Land | None:
    """The land of the first place under the sky of the last, of "in the desert at sunset"."""
    lands = [land for words in where for land in LANDS.values() if words in (*land.words, *land.also)]
    if not lands:
        return None
    first, last = lands[0], lands[-1]
    return last._replace(land=first.land, horizon=first.horizon, around=first.around)


def alone(layout: Layout) -> bool:
    """Whether it is one thing before nothing."""
    return len(layout.items) == 1 and layout.land is None


def around(layout: Layout, seed: int) -> tuple[str, ...]:
    """What the landscape has beside the things that are asked for, as prompts: always as many, whatever the seed."""
    if layout.land is None:
        return ()
    others = [name for name in layout.land.around if not any(name in item.prompt for item in layout.items)]
    chosen = np.random.default_rng([seed, 1]).permutation(len(others))[:AROUND]
    return tuple(others[n] for n in sorted(chosen))


def paintings(layout: Layout, seed: int) -> tuple[str, ...]:
    """What is said for each painting: the things, then what is around."""
    return (*(item.prompt for item in layout.items), *around(layout, seed))


def box(picture: Floats) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what is to be seen in (4, H, W); all of it where that is nothing."""
    rows, columns = (np.flatnonzero(picture[3].max(axis=axis) > SEEN) for axis in (1, 0))
    if not len(rows):
        return 0, 0, picture.shape[2], picture.shape[1]
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def spots(layout: Layout, shapes: Sequence[tuple[float, float]], size: tuple[int, int]) -> list[Spot]:
    """Where the things stand in a picture of a size (height, width). Of each shape the longer side is 1."""
    height, width = size
    scale = IN_LAND if layout.land is not None else 1.0
    floats = layout.land is None or not layout.land.has_floor
    if layout.way == ROWS:
        return _in_rows(shapes, size, scale, floats)
    several = len(shapes) > 1
    extent = scale * min(width * (0.94 / len(shapes) if several else 0.94), height * (0.85 if several else 0.94))
    if layout.way == ABOVE:
        extent = min(scale, 0.8) * min(width * 0.9, height * 0.47) / (0.8 if floats else 1)
    if layout.way == BEHIND:
        extent = scale * min(width, height) * 0.85
    sizes = [
        (w * extent * item.share, h * extent * item.share) for (w, h), item in zip(shapes, layout.items, strict=True)
    ]
    if layout.way == ABOVE:
        (a, b), (c, d) = sizes
        top = (height - b - d) / 2 if floats else height * FLOOR - b - d
        return [Spot((width - a) / 2, top + 2, a, b), Spot((width - c) / 2, top + b, c, d)]
    if layout.way == BEHIND:
        (a, b), (c, d) = sizes
        c, d = c * 0.55, d * 0.55
        floor = height * (0.5 + 0.46 * scale) if floats else height * (FLOOR + 0.04)
        back = Spot(
            width * 0.47 - a / 2, (height * 0.46 - b / 2) if floats else height * FLOOR - 0.06 * height - b, a, b
        )
        return [back, Spot(min(width * 0.5 + extent * 0.26, width - c - 2), floor - d, c, d)]
    tallest = max(h for _, h in sizes)
    floor = (height + tallest) / 2 if floats else height * FLOOR
    gap = min(width * 0.05, max(2.0, (width - sum(w for w, _ in sizes)) / (len(sizes) + 1)))
    left = (width - sum(w for w, _ in sizes) - gap * (len(sizes) - 1)) / 2
    found = []
    for w, h in sizes:
        found.append(Spot(left, floor - h, w, h))
        left += w + gap
    return found


def _in_rows(shapes: Sequence[tuple[float, float]], size: tuple[int, int], scale: float, floats: bool) -> list[Spot]:
    """Rows that suit the picture, the last one centred."""
    height, width = size[0] * (1 if floats else scale), size[1] * 1.0
    top = 0 if floats else size[0] * FLOOR - height
    count = len(shapes)
    columns = max(range(1, count + 1), key=lambda c: (min(width / c, height / -(-count // c)), c))
    rows = -(-count // columns)
    cell = min(width / columns, height / rows)
    found = []
    for n, (w, h) in enumerate(shapes):
        row, column = divmod(n, columns)
        inside = min(columns, count - row * columns)
        x, y = width / 2 + (column - (inside - 1) / 2) * cell, top + height / 2 + (row - (rows - 1) / 2) * cell
        w, h = w * cell * 0.9, h * cell * 0.9
        found.append(Spot(x - w / 2, y - h / 2, w, h))
    return found


def spots_around(layout: Layout, shapes: Sequence[tuple[float, float]], size: tuple[int, int], seed: int) -> list[Spot]:
    """The same for what is around."""
    assert layout.land is not None
    height, width = size
    chance = np.random.default_rng([seed, 2])
    found = []
    for side, name, (w, h) in zip((0.16, 0.84), around(layout, seed), shapes, strict=False):
        extent = min(height, width) * chance.uniform(0.16, 0.24)
        w, h = w * extent, h * extent
        aloft = name in IN_THE_SKY
        y = height * chance.uniform(0.14, 0.28) - h / 2 if aloft else height * (layout.land.horizon + 0.06) - h
        found.append(Spot(width * (side + chance.uniform(-0.06, 0.06)) - w / 2, y, w, h))
    return found


def laid(layout: Layout, pictures: Sequence[Floats], size: tuple[int, int], *, spread: int, seed: int) -> Floats:
    """The picture (4, H, W) of a size (height, width) times `spread`, 0 to 1, colour multiplied by alpha.

    `pictures` are those of the things, and of what is around; of what comes last some may still be missing.
    """
    height, width = size[0] * spread, size[1] * spread
    boxes = [box(picture) for picture in pictures]
    shapes = [_shape(each) for each in boxes]
    shapes += [(1.0, 1.0)] * (len(layout.items) - len(shapes))
    places = spots(layout, shapes[: len(layout.items)], (height, width))
    whole = np.zeros((4, height, width), np.float32)
    if layout.land is not None:
        whole = drawn(layout.land, (height, width))
        places += spots_around(layout, shapes[len(layout.items) :], (height, width), seed)
    things = list(zip(pictures, boxes, places, strict=False))
    mine, others = things[: len(layout.items)], things[len(layout.items) :]
    for picture, (left, top, right, bottom), spot in [*others, *(mine[::-1] if layout.way == ABOVE else mine)]:
        _paste(whole, picture[:, top:bottom, left:right], spot)
    return whole


def _shape(found: tuple[int, int, int, int]) -> tuple[float, float]:
    left, top, right, bottom = found
    longer = max(right - left, bottom - top)
    return (right - left) / longer, (bottom - top) / longer


def _paste(whole: Floats, thing: Floats, spot: Spot) -> None:
    """Lay a thing over the picture, in place; what sticks out is cut off."""
    size = max(1, round(spot.width)), max(1, round(spot.height))
    channels = [Image.fromarray(each).resize(size, Image.Resampling.BICUBIC) for each in np.ascontiguousarray(thing)]
    drawn = np.stack([np.asarray(each) for each in channels]).clip(0, 1)
    drawn[:3] = np.minimum(drawn[:3], drawn[3:])
    left, top = round(spot.left), round(spot.top)
    x, y = max(0, left), max(0, top)
    right, bottom = min(whole.shape[2], left + size[0]), min(whole.shape[1], top + size[1])
    if x < right and y < bottom:
        part = drawn[:, y - top : bottom - top, x - left : right - left]
        whole[:, y:bottom, x:right] = part + (1 - part[3:]) * whole[:, y:bottom, x:right]
