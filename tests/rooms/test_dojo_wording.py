"""What the embedded model makes of a prompt: tokens, and the ground that is laid under the picture."""

import hypothesis
import pytest
from hypothesis import strategies
from tokenizers import Tokenizer

from pixeldojo.engines.dojo import graphs, wording

WHITE, BLUE, PINK, TEAL = (wording.GROUNDS[name] for name in ("white", "blue", "pink", "teal"))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    made = Tokenizer.from_file(str(graphs.WEIGHTS / "tokenizer.json"))
    made.no_padding()
    made.enable_truncation(graphs.spec().text_tokens)
    return made


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("😀", "grinning face"),
        ("❤️ on the grass", "heart \ufe0f on the grass"),
        ("🖤", "black heart"),
        ("🐼", "panda"),
        ("A  Red\nApple", "a red apple"),
        ("🇯🇵 sushi", "sushi"),
        ("1️⃣", "1\ufe0f"),
        ("👍🏽", "thumbs up sign"),
        ("👩🏽\u200d🚀", "woman \u200d rocket"),
        ("🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f tea", "tea"),
    ],
)
def test_pictographs_are_spoken_out(prompt: str, said: str) -> None:
    assert wording.plain(prompt) == said


@pytest.mark.parametrize(
    ("prompt", "rest", "ground"),
    [
        ("a cat on a blue background", "a cat", (BLUE,)),
        ("a cat on a plain, solid white background", "a cat", (WHITE,)),
        ("owl, white background", "owl", (WHITE,)),
        ("Pink background, a cat", "a cat", (PINK,)),
        ("cat isolated on white background", "cat", (WHITE,)),
        ("a fish on a pink background with bubbles", "a fish with bubbles", (PINK,)),
        ("a frog in a green cap with a teal-coloured backdrop", "a frog in a green cap", (TEAL,)),
        ("❤️ on a pink background", "❤️", (PINK,)),
        ("a cat on a light-blue background", "a cat", (wording.GROUNDS["light blue"],)),
        ("a cat on a magenta background", "a cat", ((255, 0, 255),)),
        ("a cat on a dark red background", "a cat", ((139, 0, 0),)),
        ("a cat on a dark purple background", "a cat", ((64, 0, 64),)),
        ("a cat on a pale blue background", "a cat", ((212, 230, 250),)),
        ("a fox on a gradient from pink to blue", "a fox", (PINK, BLUE)),
        ("a fox, on a teal and pink gradient", "a fox", (TEAL, PINK)),
        ("a fox on a blue to pink gradient background", "a fox", (BLUE, PINK)),
        ("a ghost on a transparent background", "a ghost", ()),
        ("a cat, cut out", "a cat", ()),
        ("a cat isolated", "a cat", ()),
        ("a star without background", "a star", ()),
        ("a star, no background", "a star", ()),
        ("a cat on a blue \u00a0\n background", "a cat", (BLUE,)),
        ("a cat. Blue background.", "a cat", (BLUE,)),
        ("a cat - blue background", "a cat", (BLUE,)),
        ("a cat on a light\tblue background, with a hat", "a cat, with a hat", (wording.GROUNDS["light blue"],)),
    ],
)
def test_a_plain_ground_is_taken_out(prompt: str, rest: str, ground: tuple[wording.Colour, ...]) -> None:
    assert wording.parted(prompt) == (rest, ground)


@pytest.mark.parametrize(
    "prompt",
    [
        "a cat", "a cat on the beach", "a book on a red table", "White background", "a blue background",
        "on a pink background!", "off-white backgrounds", "an isolated house", "a paper cut out of a cat",
        "a cat on a pınk background", "a cat on a PİNK background", "a cat on a gradient from pınk to blue",
        "a cat on a rainbow background", "a red and blue gradient", "a cat in the background",
    ],
)  # fmt: skip
def test_every_other_prompt_stays_as_it_is(prompt: str) -> None:
    assert wording.parted(prompt) == (prompt, None)


def test_every_colour_the_model_was_told_of_is_known() -> None:
    for name, colour in wording.GROUNDS.items():
        assert wording.parted(f"a cat on a {name} background") == ("a cat", (colour,))


@hypothesis.given(strategies.text(min_size=1, max_size=500))
@hypothesis.example("x" * 500)
@hypothesis.example("e\u0301\u0302" * 160)
@hypothesis.example("ﷺ İ ß on a ſilver background")
@hypothesis.example("white background " * 29)
@hypothesis.example("on a gradient from light " * 20)
@hypothesis.settings(max_examples=50, deadline=None, derandomize=True, database=None)
def test_any_text_is_read_or_refused(tokenizer: Tokenizer, prompt: str) -> None:
    rest, _ = wording.parted(prompt)
    try:
        ids = wording.token_ids(tokenizer, prompt=rest)
    except wording.NoMeaning:
        return
    assert 3 <= len(ids) <= graphs.spec().text_tokens
