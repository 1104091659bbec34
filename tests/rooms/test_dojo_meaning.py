"""Prompts in words that the embedded model was not told of."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pixeldojo.engines.dojo import meaning, painter

Said = Callable[[str], str]


@pytest.fixture(scope="module")
def said() -> Said:
    made = painter.Painter()
    return lambda prompt: made.understood(prompt)[0]


@pytest.mark.parametrize(
    "prompt",
    [
        "a red apple", "cat", "three little pigs", "two red apples and a green apple",
        "a cat wearing a crown", "a tree to the left of a house", "a small mouse next to a big elephant",
        "a house in the snow", "a cactus in the desert at sunset", "a frog in a green cap on a pink background",
        "an owl above a book, on a gradient from pink to blue",
    ],
)  # fmt: skip
def test_what_the_model_was_told_of_stays_as_it_is(said: Said, prompt: str) -> None:
    assert said(prompt) == prompt


@pytest.mark.parametrize(
    ("prompt", "thing"),
    [
        ("a wizard casting a spell", "a mage"),
        ("a horse with black and white stripes", "a zebra"),
        ("an animal that carries its home on its back", "a snail"),
        ("a purple vegetable that is baked in moussaka", "a purple eggplant"),
    ],
)
def test_what_is_described_becomes_the_nearest_thing(said: Said, prompt: str, thing: str) -> None:
    assert said(prompt) == thing


@pytest.mark.parametrize(
    ("prompt", "simpler"),
    [
        ("a fluffy cat", "a cat"),
        ("a cat wearing a hat", "a cat wearing a top hat"),
        ("two burgers and a coffee", "two hamburgers and a cup of coffee"),
        ("a 3d emoji of a cute robot", "a cute robot"),
        ("masterpiece, best quality, a cat", "a cat"),
        ("create an image of a dog playing in the park", "a dog in the park"),
        ("a house without windows", "a house"),
        ("a chair made of wood", "a chair"),
        ("in space, a fluffy cat", "in space a cat"),
        ("a house with a crooked red roof, a tree and a white fence", "a house with a tree"),
        ("an enormous red car", "a big red car"),
        ("a bear holding a balloon", "a bear and a balloon"),
        ("a robot with blinking antennae on the beach", "a robot on the beach"),
        ("a small red car parked in front of a house", "a small red car in front of a house"),
    ],
)
def test_strange_words_are_left_out(said: Said, prompt: str, simpler: str) -> None:
    assert said(prompt) == simpler


@pytest.mark.parametrize("prompt", ["ein roter apfel", "hello world", "asdf qwer zxcv", "12345"])
def test_what_describes_nothing_is_left_to_the_model(said: Said, prompt: str) -> None:
    assert said(prompt) == prompt


# -- on a file of three things ----------------------------------------------------------------------------------------


@pytest.fixture
def few(tmp_path: Path) -> meaning.Meanings:
    """A cat, an ice cream and a red apple; the apple has two descriptions. Each is in a direction of its own."""
    np.savez(
        tmp_path / meaning.FILE,
        vectors=127 * np.eye(4, dtype=np.int8),
        owners=np.array([0, 1, 2, 2], np.int16),
        things=np.array(["a cat", "ice cream", "a red apple"]),
        names=np.array(["apple", "cat", "cats", "ice cream", "red apple"]),
        named=np.array([2, 0, 0, 1, 2], np.int16),
        singles=np.array(["apple", "cat", "cat", "ice cream", "red apple"]),
        aliases=np.array([["kitty", "cat"], ["kitties", "cats"], ["cats", "apple"]]),
        worn=np.array(["crown"]),
        limbs=np.array(["eyes"]),
        article=np.array(["a", "an", "the"]),
        quality=np.array(["blue", "big", "red", "two"]),
        relation=np.array(["and", "in", "of", "on", "with"]),
        colours=np.array(["blue", "red"]),
        places=np.array(["in the snow"]),
    )
    return meaning.Meanings(tmp_path / meaning.FILE)


@pytest.mark.parametrize(
    ("prompt", "state", "meant"),
    [
        ("a big cat", (0, 1, 0, 0), "a big cat"),  # whatever it is near to
        ("two big kitties", (0, 1, 0, 0), "two big cats"),
        ("a pet", (8, 0, 0, 6), "a cat"),
        ("a blue pet", (8, 0, 0, 6), "a blue cat"),
        ("a furry pet which is blue", (8, 0, 0, 6), "a cat"),  # something about it is blue
        ("a blue dessert in the snow", (0, 8, 0, 6), "blue ice cream in the snow"),
        ("a blue fruit", (0, 0, 8, 6), "a red apple"),
        ("a fruit", (4, 4, 4, 8), "a red apple"),
        ("nothing of the kind", (5, 5, 5, 5), "nothing of the kind"),
        ("a sour cat", (50, 0, 55, 0), "a cat"),
        ("a sour cat", (5, 0, 7, 0), "a red apple"),
        ("a treat with cats", (50, 51, 0, 0), "ice cream"),  # what it is has no name, so little is enough
        ("a treat with cats", (51, 50, 0, 0), "cats"),
        ("the largest of all cats", (1, 0, 0, 0), "cats"),
        ("two cats licking at an ice cream", (8, 6, 0, 0), "two cats and an ice cream"),
        ("cats, filled with an airy ice cream", (8, 6, 0, 0), "cats with an ice cream"),
        ("two cats in the snow eating something", (1, 0, 0, 0), "two cats in the snow"),
        ("the cat of a neighbour in the snow", (1, 0, 0, 0), "the cat in the snow"),
        ("a shiny apple", (0, 0, 1, 0), "an apple"),
        ("a cat which sits on a big red apple", (1, 0, 0, 0), "a cat on a big red apple"),
        ("a monster that looks like a big cat", (1, 0, 0, 0), "a big cat"),
        ("a bite of the sour, two apple", (0, 0, 1, 0), "the two apple"),
        ("an ugly cat", (1, 0, 0, 0), "a cat"),
    ],
)
def test_what_is_said(few: meaning.Meanings, prompt: str, state: tuple[int, ...], meant: str) -> None:
    found: NDArray[np.float32] = np.array(state, np.float32)
    assert few.said(prompt, found) == meant
