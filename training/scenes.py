"""Which pictures the flow learns from, and what is said of them.

Enters: the emoji of the archive and their boxes. Leaves: a list of `Scene`s, each with its captions. Plain pictures
first (every emoji as it came), then placed, recoloured, on grounds, several together with captions that say what
stands where, worn things, and wide and tall canvases. The same seed gives the same list.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from pixeldojo.engines.dojo.places import IN_THE_SKY, LANDS
from training import wording
from training.data import SIDE, Emoji
from training.profiles import CANVASES, LATENT_STRIDE
from training.render import COLOURS, Box, Ground, Layer, Scene
from training.writer import Called, Writer

# What a plain picture weighs. Of people there are hundreds that differ in little, and they are soon learnt.
PERSON, TONED, ANY = 0.4, 0.1, 1.0

NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
HATS = ("crown", "top hat", "graduation cap", "billed cap", "rescue worker’s helmet", "military helmet", "woman’s hat")
GLASSES = ("glasses", "sunglasses", "goggles")
HAT_WORDS = {"billed cap": "cap", "rescue worker’s helmet": "helmet", "woman’s hat": "hat with a bow"}


def as_it_came(writer: Writer, i: int, *, weight: float) -> list[Scene]:
    """The plain picture, and mirrored where that changes nothing that was said."""
    sides = (False, True) if writer.may_flip(i) else (False,)
    return [
        Scene(
            CANVASES["1:1"],
            (Layer(i, 0, 0, SIDE, flip),),
            Ground(),
            writer.captions(i, count=9),
            weight / len(sides),
        )
        for flip in sides
    ]


def weight_of(one: Emoji) -> float:
    """How often the plain picture is learnt from, beside others."""
    if one.tone:
        return TONED
    return PERSON if one.subgroup == "family" or one.subgroup.startswith("person") else ANY


def size_of(canvas: tuple[int, int]) -> tuple[int, int]:
    """Height and width in pixels."""
    return canvas[0] * LATENT_STRIDE, canvas[1] * LATENT_STRIDE


def alone(writer: Writer, i: int, canvas: tuple[int, int], *, colour: str = "") -> Layer:
    """One object, whole, larger or smaller, a little off the middle."""
    height, width = size_of(canvas)
    extent = min(height, width) * writer.source.uniform(0.7, 0.97)
    wide, tall = writer.shape(i, extent)
    loose_x, loose_y = (max(0.0, (total - part) / 2 - 2) * 0.35 for total, part in ((width, wide), (height, tall)))
    centre = (
        width / 2 + writer.source.uniform(-loose_x, loose_x),
        height / 2 + writer.source.uniform(-loose_y, loose_y),
    )
    return writer.put(i, centre, extent, colour=colour)


def some_ground(writer: Writer, share: float) -> tuple[Ground, str]:
    """A background and its words, or for the rest of the share neither."""
    return writer.ground() if writer.source.random() < share else (Ground(), "")


def placed(writer: Writer) -> Scene:
    """One object on any canvas."""
    i = writer.source.choice(writer.plain if writer.source.random() < 0.85 or not writer.toned else writer.toned)
    canvas, (ground, tail) = writer.canvas(), writer.ground()
    return Scene(canvas, (alone(writer, i, canvas),), ground, writer.captions(i, tail=tail))


def coloured(writer: Writer) -> Scene:
    """One object in a colour that is said."""
    i, colour = writer.source.choice(writer.colourable), writer.source.choice(COLOURS)
    canvas = writer.canvas() if writer.source.random() < 0.3 else CANVASES["1:1"]
    ground, tail = some_ground(writer, 0.5)
    layer = alone(writer, i, canvas, colour=colour)
    return Scene(canvas, (layer,), ground, writer.captions(i, tail=tail, colour=colour))


def grounded(writer: Writer) -> Scene:
    """One object on a colour or a gradient that is said."""
    ground, tail = writer.ground()
    while ground.kind == "none":
        ground, tail = writer.ground()
    i, canvas = writer.source.choice(writer.plain), writer.canvas()
    return Scene(canvas, (alone(writer, i, canvas),), ground, writer.captions(i, tail=tail))


def two(writer: Writer) -> Scene:
    """Two objects beside, above or before each other, and words for who is where."""
    relation = writer.source.choice([beside, beside, beside, over, before, of_two_sizes])
    i, j = writer.source.sample(writer.objects, 2)
    return relation(writer, writer.called(i), writer.called(j))


def over(writer: Writer, one: Called, other: Called) -> Scene:
    """The first on top of the second."""
    canvas, (ground, tail) = writer.canvas("3:4", "9:16", "1:1"), some_ground(writer, 0.5)
    height, width = size_of(canvas)
    extent = min(width * 0.9, height * 0.47)
    (_, a), (_, b) = writer.shape(one.row, extent), writer.shape(other.row, extent)
    top = (height - a - b) / 2
    layers = (
        writer.put(other.row, (width / 2, top + a + b / 2), extent, colour=other.colour),
        writer.put(one.row, (width / 2, top + a / 2 + 2), extent, colour=one.colour),
    )
    ways = [f"{one} above {other}", f"{one} on top of {other}", f"{other} below {one}", f"{other} under {one}"]
    return Scene(canvas, layers, ground, writer.some(ways, tail))


def before(writer: Writer, one: Called, other: Called) -> Scene:
    """The second, smaller, in front of the first."""
    source = writer.source
    canvas, (ground, tail) = writer.canvas("1:1", "4:3", "16:9"), some_ground(writer, 0.5)
    height, width = size_of(canvas)
    back, fore = min(width, height) * 0.85, min(width, height) * source.uniform(0.42, 0.52)
    x, side = source.choice([(0.3, -1), (0.7, 1)])
    floor = height * 0.97 - writer.shape(other.row, fore)[1] / 2
    layers = (
        writer.put(one.row, (width / 2 - side * width * 0.06, height * 0.46), back, colour=one.colour),
        writer.put(other.row, (width * x, floor), fore, colour=other.colour),
    )
    ways = [f"{one} with {other}", f"{other} in front of {one}", f"{one} behind {other}"]
    return Scene(canvas, layers, ground, writer.some(ways, tail))


def beside(writer: Writer, one: Called, other: Called) -> Scene:
    """The first to the left of the second."""
    ways = [
        f"{one} to the left of {other}",
        f"{other} to the right of {one}",
        f"{one} and {other}",
        f"{one} next to {other}",
        f"{one} on the left and {other} on the right",
    ]
    return _on_one_floor(writer, one, other, ways, second=1.0)


def of_two_sizes(writer: Writer, one: Called, other: Called) -> Scene:
    """The first large, the second small."""
    ways = [
        f"a big {one.bare} and a small {other.bare}",
        f"a small {other.bare} next to a big {one.bare}",
        f"{one} to the left of {other}",
    ]
    return _on_one_floor(writer, one, other, ways, second=0.5)


def _on_one_floor(writer: Writer, one: Called, other: Called, ways: list[str], *, second: float) -> Scene:
    """Two objects on one level, the second so much as large as the first."""
    canvas, (ground, tail) = writer.canvas("1:1", "4:3", "16:9"), some_ground(writer, 0.5)
    height, width = size_of(canvas)
    extent = min(width * 0.47, height * 0.85)
    (wide, tall), (wide2, tall2) = writer.shape(one.row, extent), writer.shape(other.row, extent * second)
    gap = min(width * 0.05, max(2.0, (width - wide - wide2) / 3))
    left, floor = (width - wide - wide2 - gap) / 2, (height + max(tall, tall2)) / 2
    layers = (
        writer.put(one.row, (left + wide / 2, floor - tall / 2), extent, colour=one.colour),
        writer.put(other.row, (left + wide + gap + wide2 / 2, floor - tall2 / 2), extent * second, colour=other.colour),
    )
    return Scene(canvas, layers, ground, writer.some(ways, tail))


def many(writer: Writer) -> Scene:
    """Two to six of one thing, counted; or three different things in a row."""
    source = writer.source
    canvas, (ground, tail) = writer.canvas(), some_ground(writer, 0.5)
    if source.random() < 0.3:
        things = [writer.called(i) for i in source.sample(writer.objects, 3)]
        one, other, third = things
        ways = [f"{one}, {other} and {third}", f"{other} between {one} and {third}"]
    else:
        thing, number = writer.called(source.choice(writer.countable)), source.choice([2, 2, 3, 3, 3, 4, 5, 6])
        things, several = [thing] * number, wording.plural(thing.bare)
        ways = [f"{NUMBERS[number]} {several}", f"{number} {several}", f"a group of {NUMBERS[number]} {several}"]
    return Scene(canvas, in_rows(writer, things, canvas), ground, writer.some(ways, tail))


def in_rows(writer: Writer, things: Sequence[Called], canvas: tuple[int, int]) -> tuple[Layer, ...]:
    """Objects in rows that suit the canvas, the last row centred."""
    height, width = size_of(canvas)
    number = len(things)
    columns = max(range(1, number + 1), key=lambda c: min(width / c, height / -(-number // c)))
    rows = -(-number // columns)
    cell = min(width / columns, height / rows)
    layers = []
    for n, thing in enumerate(things):
        row, column = divmod(n, columns)
        inside = min(columns, number - row * columns)
        x = width / 2 + (column - (inside - 1) / 2) * cell
        y = height / 2 + (row - (rows - 1) / 2) * cell
        layers.append(writer.put(thing.row, (x, y), cell * 0.9, colour=thing.colour, flip=False))
    return tuple(layers)


def worn(writer: Writer) -> Scene:
    """A face with a hat or glasses, where a head and eyes usually are."""
    source = writer.source
    i, on_eyes = source.choice(writer.faced), source.random() < 0.35
    name = source.choice(GLASSES if on_eyes else HATS)
    thing, colour = writer.row[name], source.choice(COLOURS) if source.random() < 0.3 else ""
    extent = SIDE * (0.9 if on_eyes else 0.74)
    wide, tall = writer.shape(i, extent)
    middle = SIDE / 2 if on_eyes else SIDE - tall / 2 - 6
    top, across = middle - tall / 2, wide * (0.72 if on_eyes else 0.62)
    high = writer.shape(thing, across)[1]
    y = top + tall * 0.44 if on_eyes else max(high / 2 + 2, top + tall * 0.14 - high / 2)
    layers = (
        writer.put(i, (SIDE / 2, middle), extent, flip=False),
        writer.put(thing, (SIDE / 2, y), across, colour=colour, flip=False),
    )
    what = wording.with_article(f"{colour} {HAT_WORDS.get(name, name)}".strip())
    animal = writer.emoji[i].group == "animals-nature"
    who = wording.with_article(writer.nouns[i].removesuffix(" face") if animal else writer.nouns[i])
    ground, tail = some_ground(writer, 0.4)
    ways = [f"{who} wearing {what}", f"{who} with {what}", f"{who} in {what}"]
    return Scene(CANVASES["1:1"], layers, ground, writer.some(ways, tail))


def in_a_land(writer: Writer) -> Scene:
    """An object in a landscape: sky, land and a few things that belong there."""
    source, canvas = writer.source, writer.canvas()
    height, width = size_of(canvas)
    place = source.choice(list(LANDS))
    land = LANDS[place]
    floating = place == "space"
    horizon = 2.0 if floating else source.uniform(0.58, 0.78)
    sky = (writer.near(land.top), writer.near(land.bottom), writer.near(land.land))
    ground = Ground("land", *sky, horizon, source.uniform(0, 0.12))
    layers = []
    for label in source.sample(land.around, source.randint(1, min(3, len(land.around)))):
        extent = min(height, width) * source.uniform(0.14, 0.24)
        aloft = floating or label in IN_THE_SKY
        y = source.uniform(0.12, 0.3) if aloft else min(horizon + 0.06, 0.9) - extent / height / 2
        x = source.choice([source.uniform(0.1, 0.25), source.uniform(0.75, 0.9)])
        layers.append(writer.put(writer.row[label], (x * width, y * height), extent))
    thing = writer.called(source.choice(writer.objects))
    extent = min(height, width) * source.uniform(0.5, 0.7)
    foot = height * source.uniform(0.88, 0.95)
    y = height / 2 if floating else foot - writer.shape(thing.row, extent)[1] / 2
    layers.append(writer.put(thing.row, (width * source.uniform(0.42, 0.58), y), extent, colour=thing.colour))
    return Scene(canvas, tuple(layers), ground, writer.some([f"{thing} {words}" for words in land.words], ""))


KINDS: Mapping[str, tuple[float, Callable[[Writer], Scene]]] = MappingProxyType(
    {  # share of the composed scenes
        "placed": (0.15, placed),
        "coloured": (0.45, coloured),
        "grounded": (0.10, grounded),
        "two": (0.05, two),
        "many": (0.03, many),
        "worn": (0.17, worn),
        "land": (0.05, in_a_land),
    }
)


def write(
    emoji: Sequence[Emoji], boxes: Sequence[Box], total: int, *, composed: float = 1.6, seed: int = 5
) -> list[Scene]:
    """The plain pictures, and composed scenes up to `total`, which together weigh `composed` times as much."""
    writer = Writer(emoji, boxes, seed)
    plain = [
        scene for i in (*writer.plain, *writer.toned) for scene in as_it_came(writer, i, weight=weight_of(emoji[i]))
    ]
    shares, makers = zip(*KINDS.values(), strict=True)
    wanted = writer.source.choices(makers, shares, k=max(0, total - len(plain)))
    made = [make(writer) for make in wanted]
    weight = composed * sum(scene.weight for scene in plain) / max(1, len(made))
    return plain + [replace(scene, weight=weight) for scene in made]
