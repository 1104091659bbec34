"""From what the caller wrote to what the text encoder reads: a prompt goes in, token ids come out.

The model learnt short English labels of emoji. So pictographs are replaced by their names, and phrases it
never saw and would draw wrongly are taken out. Knows nothing of pictures or of the graphs.
"""

import re
import unicodedata

from tokenizers import Tokenizer

# The training captions were cut here. The picture attends to the first 14 tokens (`sampler.TEXT_TOKENS`);
# those after it only colour the pooled vector.
MAX_IDS = 20
UNKNOWN = "[UNK]"

# White is what the model paints when no background is named; told "white" it paints a coloured one, because
# no caption of its training said so.
WHITE_BACKGROUND = re.compile(
    r",? ?(?:\b(?:on|with|against|over) )?(?:\ban? )?(?:\b(?:plain|pure|clean|solid|simple|flat) )*"
    r"\bwhite background\b",
    re.IGNORECASE,
)

FIRST_COLOURED_PICTOGRAPH = 0x1F000
FILL_WORDS = re.compile(r"\b(?:heavy|black|white|with rays) ?")
# Unicode says "panda face" where the labels that the model learnt say "panda".
HEAD_ONLY = re.compile(r"\b(panda|bear|wolf|frog|hamster|fox|lion|unicorn|giraffe|zebra) face\b")


class NoMeaning(Exception):
    """Nothing in the prompt is a word that the model can read."""


def token_ids(tokenizer: Tokenizer, *, prompt: str) -> list[int]:
    """The prompt as 3 to 20 WordPiece ids, the start and end marks included. Raises `NoMeaning`."""
    encoding = tokenizer.encode(plain(prompt))
    if not any(piece != UNKNOWN and is_word(piece) for piece in encoding.tokens[1:-1]):
        raise NoMeaning
    return encoding.ids


def plain(prompt: str) -> str:
    """The prompt with pictographs spoken out, single spaces, and no mention of a white background."""
    words = " ".join("".join(spoken(sign) for sign in prompt).split())
    return WHITE_BACKGROUND.sub("", words) or words


def spoken(sign: str) -> str:
    """A pictograph's name, nothing for the frame of a keycap, and every other sign as it is."""
    category = unicodedata.category(sign)
    if category == "So":
        return f" {name_of(sign)} "
    return "" if category == "Me" else sign


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
