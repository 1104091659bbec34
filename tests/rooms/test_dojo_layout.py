"""Several things in one picture of the embedded model, and things in a place."""

import threading
from collections.abc import Sequence

import numpy as np
import pytest

from pixeldojo.engines.dojo import canvas, composing, graphs, layout, meaning, painter, places
from pixeldojo.engines.dojo.graphs import Floats
from pixeldojo.engines.dojo.layout import ABOVE, BEHIND, BESIDE, ROWS, Item, Layout

APPLE, CAT, DOG = "a red apple", "a cat", "a dog"
SQUARE = (256, 256)


@pytest.fixture(scope="module")
def meanings() -> meaning.Meanings:
    return meaning.Meanings(graphs.WEIGHTS / meaning.FILE)


@pytest.mark.parametrize(
    ("prompt", "things", "way"),
    [
        ("a cat", [CAT], BESIDE),
        ("a 3d emoji of a cute cat", ["a cute cat"], BESIDE),
        ("two red apples", [APPLE] * 2, ROWS),
        ("a group of 4 dogs", [DOG] * 4, ROWS),
        ("two mice", ["a mouse"] * 2, ROWS),
        ("a cat and a dog", [CAT, DOG], BESIDE),
        ("a cat next to a dog", [CAT, DOG], BESIDE),
        ("a cat to the left of a dog", [CAT, DOG], BESIDE),
        ("a cat to the right of a dog", [DOG, CAT], BESIDE),
        ("a cat on the left and a dog on the right", [CAT, DOG], BESIDE),
        ("a cat, a dog and a red apple", [CAT, DOG, APPLE], BESIDE),
        ("a cat on the left of a dog", [CAT, DOG], BESIDE),
        ("a cat on the right and a dog on the left", [DOG, CAT], BESIDE),
        ("a cat & a dog", [CAT, DOG], BESIDE),
        ("an oil painting of a cat", [CAT], BESIDE),
        ("a cat without a dog", [CAT], BESIDE),
        ("a cat between a dog and a red apple", [DOG, CAT, APPLE], BESIDE),
        ("two dogs and three red apples", [DOG] * 2 + [APPLE] * 3, ROWS),
        ("a cat on top of a red apple", [CAT, APPLE], ABOVE),
        ("a cat under a red apple", [APPLE, CAT], ABOVE),
        ("a red apple in front of a cat", [CAT, APPLE], BEHIND),
        ("a cat with a red apple", [CAT, APPLE], BEHIND),
        ("a cat wearing a crown", ["a cat wearing a crown"], BESIDE),
        ("a frog in a green cap next to a dog with glasses", ["a frog in a green cap", "a dog with glasses"], BESIDE),
        ("three cats wearing a top hat", ["a cat wearing a top hat"] * 3, ROWS),
    ],
)
def test_things_are_named_one_by_one(meanings: meaning.Meanings, prompt: str, things: Sequence[str], way: str) -> None:
    assert layout.read(prompt, meanings) == Layout(tuple(map(Item, things)), way)


@pytest.mark.parametrize(
    "prompt",
    [
        "a black and white cat", "seven red apples and two cats", "a cat on the beach and a dog", "on the beach",
        "a cat in a house", "a cat under a dog and a red apple", "a wobbly cat", "two", "", "three dogs and four cats",
        "a cat wearing a house", "a cat with blue eyes", "a house of cats",
    ],
)  # fmt: skip
def test_what_can_not_be_taken_apart_is_painted_as_a_whole(meanings: meaning.Meanings, prompt: str) -> None:
    assert layout.read(prompt, meanings) is None


def test_sizes_and_places(meanings: meaning.Meanings) -> None:
    found = layout.read("a big elephant and a small mouse in the desert at sunset", meanings)
    assert found is not None and found.land is not None
    assert found.items == (Item("an elephant"), Item("a mouse", layout.SMALL))
    assert found.land.land == places.LANDS["desert"].land and found.land.top == places.LANDS["sunset"].top
    alone = layout.read("a small mouse", meanings)
    assert alone is not None and alone.items == (Item("a mouse"),), "beside nothing, nothing is small"
    for land in places.LANDS.values():
        for words in (*land.words, *land.also):
            assert layout.read(f"a cat {words}", meanings) == Layout((Item(CAT),), BESIDE, land)
            assert layout.read(f"{words}, a cat", meanings) == Layout((Item(CAT),), BESIDE, land)


def test_what_stands_around_is_known_and_the_seeds_choice(meanings: meaning.Meanings) -> None:
    for land in places.LANDS.values():
        found = Layout((Item(CAT),), BESIDE, land)
        assert all(layout.read(name, meanings) is not None for name in land.around)
        assert layout.around(found, 5) == layout.around(found, 5)
        assert len({layout.around(found, seed) for seed in range(20)}) > 1 or len(land.around) == layout.AROUND
    cactus = layout.read("a green cactus in a desert", meanings)
    assert cactus is not None and layout.around(cactus, 1) == ("sun",), "one cactus is enough"


def disk(colour: Sequence[float], *, wide: int = 200, tall: int = 200) -> Floats:
    """A disk in the middle of a painting, (4, 256, 256)."""
    across, down = np.meshgrid(np.arange(256) - 127.5, np.arange(256) - 127.5)
    inside = ((across * 2 / wide) ** 2 + (down * 2 / tall) ** 2 <= 1).astype(np.float32)
    return np.concatenate([np.array(colour, np.float32)[:, None, None] * inside, inside[None]])


RED, GREEN, BLUE = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)


def middle(whole: Floats, channel: int) -> tuple[float, float]:
    """Where the disk of one colour is: down and across."""
    rows, columns = np.nonzero((whole[channel] > 0.5) & (np.delete(whole[:3], channel, 0).max(axis=0) < 0.4))
    return float(rows.mean()), float(columns.mean())


@pytest.mark.parametrize("size", [(256, 256), (192, 352), (352, 192)])
@pytest.mark.parametrize("spread", [1, 2])
def test_things_lie_as_they_are_told(size: tuple[int, int], spread: int) -> None:
    items = (Item("red"), Item("green"))

    def laid(way: str) -> Floats:
        found = layout.laid(Layout(items, way), [disk(RED), disk(GREEN)], size, spread=spread, seed=1)
        assert found.shape == (4, spread * size[0], spread * size[1])
        assert found.min() >= 0 and found.max() <= 1 and (found[:3] <= found[3:] + 1e-6).all()
        return found

    beside, above, behind = laid(BESIDE), laid(ABOVE), laid(BEHIND)
    assert middle(beside, 0)[1] < middle(beside, 1)[1] and abs(middle(beside, 0)[0] - middle(beside, 1)[0]) < 2 * spread
    assert middle(above, 0)[0] < middle(above, 1)[0] and abs(middle(above, 0)[1] - middle(above, 1)[1]) < 2 * spread
    assert (behind[1] > 0.5).sum() < (behind[0] > 0.5).sum(), "what is in front is smaller"
    assert middle(behind, 1)[0] > middle(behind, 0)[0]


def test_things_keep_their_shape_and_stay_in_the_picture() -> None:
    pictures = [disk(RED, wide=220, tall=80), disk(GREEN, wide=60, tall=200), disk(BLUE)] * 2
    for size in (SQUARE, (192, 352), (352, 192)):
        for way, count in ((BESIDE, 1), (BESIDE, 3), (ROWS, 2), (ROWS, 5), (ROWS, 6), (ABOVE, 2), (BEHIND, 2)):
            for land in (None, places.LANDS["grass"], places.LANDS["space"]):
                found = Layout((Item("x"),) * count, way, land)
                shapes = [layout._shape(layout.box(picture)) for picture in pictures[:count]]
                for (wide, tall), spot in zip(shapes, layout.spots(found, shapes, size), strict=True):
                    assert spot.width / spot.height == pytest.approx(wide / tall)
                    assert spot.left > -1 and spot.top > -1, (size, way, count, land)
                    assert spot.left + spot.width < size[1] + 1 and spot.top + spot.height < size[0] + 1


def test_a_land_is_opaque_and_things_stand_on_it() -> None:
    for land in places.LANDS.values():
        found = Layout((Item("red"),), BESIDE, land)
        whole = layout.laid(found, [disk(RED), disk(BLUE, wide=60, tall=60)], SQUARE, spread=1, seed=3)
        assert (whole[3] == 1).all()
        assert np.abs(whole[:3, 0, 128] * 255 - land.top).max() <= 2
        assert np.abs(middle(whole, 0)[1] - 128) < 3
        red = (whole[0] > 0.9) & (whole[1] < 0.05) & (whole[2] < 0.05)
        lowest = np.nonzero(red)[0].max()
        assert (lowest > 0.85 * 256) == land.has_floor


def test_nothing_painted_is_nothing_laid() -> None:
    whole = layout.laid(Layout((Item("a"), Item("b"))), [np.zeros((4, 256, 256), np.float32)], SQUARE, spread=1, seed=1)
    assert not whole.any()


# -- with the painter -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def loaded() -> painter.Painter:
    return painter.Painter()


def plan(
    loaded: painter.Painter, prompt: str, *, ratio: float = 1, side: int = 256, apart: bool = True
) -> composing.Plan:
    return composing.plan(loaded, prompt, canvas.frame(loaded.spec, ratio, side=side), apart=apart)


def test_one_thing_on_a_square_is_painted_directly(loaded: painter.Painter) -> None:
    for prompt, many in (("a cat", 1), ("two cats", 2), ("a cat on the beach", 3), ("two cats and a dog at night", 5)):
        assert plan(loaded, prompt).paintings == many
        assert plan(loaded, prompt, apart=False).layout is None
    assert plan(loaded, "a cat", ratio=16 / 9).layout == Layout((Item(CAT),))


def test_small_things_are_laid_out_larger(loaded: painter.Painter) -> None:
    assert [plan(loaded, "two cats", side=side).spread for side in (256, 512, 1024)] == [1, 2, 2]
    assert [plan(loaded, "two cats", side=side).scale for side in (256, 512, 1024)] == [1, 1, 2]
    assert plan(loaded, "a cat in front of a house", side=512).spread == 1, "the house would be drawn too large"


def test_every_step_is_told_and_may_end_it(loaded: painter.Painter) -> None:
    found, shapes = plan(loaded, "a cat and a dog", side=512), []

    def tick(look: composing.Look | None) -> None:
        shapes.append(None if look is None else look().shape)

    made = composing.paint(loaded, found, seed=1, steps=4, tick=tick)
    assert made.shape == (512, 512, 4)
    assert shapes == [None, *[(256, 256, 4)] * 4] * 2
    stopped = threading.Event()

    def stop(look: composing.Look | None) -> None:
        stopped.set()
        raise InterruptedError

    with pytest.raises(InterruptedError):
        composing.paint(loaded, found, seed=1, steps=4, tick=stop)
    assert stopped.is_set()


def test_the_seed_decides(loaded: painter.Painter) -> None:
    found = plan(loaded, "two cats in the snow")
    one, again, other = (composing.paint(loaded, found, seed=seed, steps=4) for seed in (1, 1, 2))
    assert (one == again).all() and (one != other).any()
