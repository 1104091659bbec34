"""From what the caller wrote to what the text encoder reads, and to the ground it names.

Pictographs are replaced by their names. Words for a plain background are taken out, since the model paints objects cut
out and the ground is laid under them afterwards, exact and even. Knows nothing of pictures or of the graphs.
"""

import re
import unicodedata
from collections.abc import Mapping
from types import MappingProxyType

from PIL import ImageColor
from tokenizers import Tokenizer

Colour = tuple[int, int, int]

UNKNOWN = "[UNK]"

# What a colour word means for a ground: softer than for an object, so that objects stand out.
GROUNDS: Mapping[str, Colour] = MappingProxyType({
    "white": (255, 255, 255), "blue": (170, 206, 245), "pink": (252, 205, 222), "green": (188, 230, 195),
    "yellow": (253, 236, 165), "purple": (214, 198, 245), "orange": (255, 212, 165), "gray": (205, 208, 213),
    "grey": (205, 208, 213), "black": (34, 34, 40), "red": (238, 145, 145), "teal": (158, 221, 219),
    "brown": (196, 164, 132), "light blue": (205, 230, 250), "dark blue": (40, 62, 120), "dark green": (36, 92, 66),
    "beige": (243, 232, 210),
})  # fmt: skip
NOTHING = ("transparent", "no", "empty")
_FLAGS = re.IGNORECASE | re.ASCII  # else a dotless i would pass for an i, and no colour is called so
_SHADES = ("light", "dark", "medium", "pale")
_NAMES = sorted({*GROUNDS, *ImageColor.colormap}, key=len, reverse=True)
_COLOUR = rf"(?:(?:{'|'.join(_SHADES)})[ -]?)?(?:{'|'.join(map(re.escape, _NAMES))})"
_PLAIN = r"(?:(?:plain|pure|clean|solid|simple|flat|bright|soft|pastel|uniform)[ ,]+)*"
_ON = r"(?:[ ,]+isolated)?[ ,]*\b(?:on|with|against|over|in front of)(?: an?| the)? +"
_BEFORE = rf"(?:^(?:an? )?|{_ON}|(?: ?[,.;:]| [-–—])(?: an?)? +)"
_BACKGROUND = re.compile(
    rf"{_BEFORE}{_PLAIN}(?P<one>{_COLOUR}|{'|'.join(NOTHING)})(?:[ -]colou?red)? back(?:ground|drop)s?\b",
    _FLAGS,
)
_BARE = re.compile(r"[ ,]+without(?: an?| the| any)? background\b|[ ,]+(?:isolated|cut[ -]?out)[ .!]*$", _FLAGS)
_GRADIENT = re.compile(
    rf"{_BEFORE}(?:gradient from (?P<top>{_COLOUR}) to (?P<bottom>{_COLOUR})"
    rf"|(?P<upper>{_COLOUR})(?: and | to |[ -]to-|/)(?P<lower>{_COLOUR}) gradient)(?: background)?\b",
    _FLAGS,
)

FIRST_COLOURED_PICTOGRAPH = 0x1F000
REGIONAL_INDICATORS = range(0x1F1E6, 0x1F200)
REGIONAL_FLAG = re.compile("\U0001f3f4[\U000e0020-\U000e007f]+")
SKIN_TONES = range(0x1F3FB, 0x1F400)
FILL_WORDS = re.compile(r"\b(?:heavy|black|white|with rays) ?")
# Unicode says "panda face" where the labels that the model learnt say "panda".
HEAD_ONLY = re.compile(r"\b(panda|bear|wolf|frog|hamster|fox|lion|unicorn|giraffe|zebra) face\b")


class NoMeaning(Exception):
    """Nothing in the prompt is a word that the model can read."""


def parted(prompt: str) -> tuple[str, tuple[Colour, ...] | None]:
    """The prompt without its words for a plain ground, and the ground: one colour, the top and the bottom of a
    gradient, nothing (`()`) where it asks for transparency, None where it says nothing of the kind.

    A prompt that consists of nothing else keeps its words.
    """
    prompt = " ".join(prompt.split())
    for pattern in (_GRADIENT, _BACKGROUND, _BARE):
        if (found := pattern.search(prompt)) is None:
            continue
        rest = (prompt[: found.start()] + prompt[found.end() :]).strip(" ,.;:-–—")
        if any(sign.isalnum() for sign in spoken_out(rest)):
            colours = (ground_colour(name) for name in found.groupdict().values() if name)
            return rest, tuple(colour for colour in colours if colour is not None)
    return prompt, None


def ground_colour(name: str) -> Colour | None:
    """What a word means for a ground; None for those that mean that there is none."""
    words = name.lower().replace("-", " ").split()
    if words[-1] in NOTHING:
        return None
    if (known := GROUNDS.get(" ".join(words))) is not None:
        return known
    if (joined := "".join(words)) in ImageColor.colormap:
        return _rgb(joined)
    if words[0] == "dark":
        red, green, blue = _rgb(words[-1])
        return red // 2, green // 2, blue // 2
    red, green, blue = GROUNDS.get(words[-1]) or _rgb(words[-1])
    return (red + 255) // 2, (green + 255) // 2, (blue + 255) // 2


def _rgb(name: str) -> Colour:
    red, green, blue, *_ = ImageColor.getrgb(name)
    return red, green, blue


def token_ids(tokenizer: Tokenizer, *, prompt: str) -> list[int]:
    """The prompt as WordPiece ids, start and end mark included, as many as the tokenizer lets through.

    Raises `NoMeaning`.
    """
    encoding = tokenizer.encode(plain(prompt))
    if not any(piece != UNKNOWN and is_word(piece) for piece in encoding.tokens[1:-1]):
        raise NoMeaning
    return encoding.ids


def plain(prompt: str) -> str:
    """The prompt with pictographs spoken out, in lower case, with single spaces."""
    return " ".join(spoken_out(prompt).lower().split())


def spoken_out(prompt: str) -> str:
    """The prompt with its pictographs as words."""
    return "".join(map(spoken, REGIONAL_FLAG.sub("", prompt)))


def spoken(sign: str) -> str:
    """A pictograph's name, nothing for flags, skin tones and the frame of a keycap, and every other sign as it is."""
    category = unicodedata.category(sign)
    if category == "So" and ord(sign) not in REGIONAL_INDICATORS:
        return f" {name_of(sign)} "
    return "" if category in ("Me", "So") or ord(sign) in SKIN_TONES else sign


def name_of(pictograph: str) -> str:
    """A pictograph's Unicode name in lower case; the sign itself where this Python knows none."""
    name = unicodedata.name(pictograph, pictograph).lower()
    if ord(pictograph) < FIRST_COLOURED_PICTOGRAPH:
        # In the old blocks "black" and "white" mean filled and outlined: U+2764 is the "heavy black heart".
        name = FILL_WORDS.sub("", name)
    return HEAD_ONLY.sub(r"\1", name)


def is_word(piece: str) -> bool:
    """Whether a piece carries a letter or a digit."""
    return any(sign.isalnum() for sign in piece)
