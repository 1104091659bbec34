"""English for captions: articles, plurals, names without their colour. Pure text in, pure text out."""

import re

COLOUR_WORDS = re.compile(
    r"\b(light |dark )?(red|orange|yellow|green|blue|purple|pink|brown|black|white|grey|gray|teal|golden)\b ?", re.I
)
# Nouns that take no article though they are singular, or that are plural without an s.
NO_ARTICLE = frozenset(
    [
        "bacon",
        "bread",
        "butter",
        "chopsticks",
        "confetti",
        "coral",
        "cooking",
        "dna",
        "fire",
        "fog",
        "garlic",
        "ginger",
        "grapes",
        "ice",
        "jeans",
        "lacrosse",
        "milk",
        "money",
        "oden",
        "popcorn",
        "rice",
        "sake",
        "salt",
        "seaweed",
        "soap",
        "spaghetti",
        "sushi",
        "thread",
        "tennis",
        "wood",
        "yarn",
        "broccoli",
        "falafel",
        "fondue",
        "volleyball",
        "badminton",
        "bowling",
        "hockey",
        "football",
        "baseball",
        "softball",
        "basketball",
        "curry",
        "salad",
        "food",
        "cricket",
        "dango",
        "people",
        "women",
        "men",
        "children",
        "twins",
        "police",
        "santa",
        "mrs.",
        "mx",
        "mount",
        "tokyo",
    ]
)
ONLY_NAMES = ("Santa Claus", "Mrs. Claus", "Mx Claus", "mount fuji", "the Statue of Liberty", "Tokyo tower")
SINGULAR_WITH_S = ("ss", "us", "is", "ops", "ens")
SINGULARS = frozenset(
    [
        "tennis",
        "compass",
        "glass",
        "cactus",
        "bus",
        "dress",
        "princess",
        "cross",
        "abacus",
        "walrus",
        "octopus",
        "lotus",
    ]
)
IRREGULAR = {
    "mouse": "mice",
    "goose": "geese",
    "ox": "oxen",
    "wolf": "wolves",
    "leaf": "leaves",
    "knife": "knives",
    "tooth": "teeth",
    "foot": "feet",
    "fish": "fish",
    "sheep": "sheep",
    "deer": "deer",
    "moose": "moose",
    "bison": "bison",
    "squid": "squid",
    "shrimp": "shrimp",
    "man": "men",
    "woman": "women",
    "person": "people",
    "child": "children",
    "cactus": "cacti",
    "scarf": "scarves",
    "loaf": "loaves",
    "elf": "elves",
}
# Better or further names where the official label is not what people say. The first one is used in sentences.
NAMES = {
    "locked": ("padlock", "lock"),
    "unlocked": ("open padlock", "unlocked lock"),
    "locked with pen": ("padlock with a pen",),
    "locked with key": ("padlock with a key",),
    "automobile": ("car", "automobile"),
    "oncoming automobile": ("car from the front", "oncoming automobile"),
    "hot beverage": ("cup of coffee", "hot beverage", "cup of tea"),
    "cooking": ("fried egg in a pan", "cooking"),
    "camping": ("tent under trees", "camping"),
    "tennis": ("tennis racket and ball", "tennis"),
    "construction": ("construction barrier", "construction"),
    "performing arts": ("theater masks", "performing arts"),
    "high voltage": ("lightning bolt", "high voltage"),
    "collision": ("explosion", "collision"),
    "steaming bowl": ("bowl of ramen", "steaming bowl", "bowl of noodle soup"),
    "locomotive": ("steam train", "locomotive"),
    "mate": ("mate tea", "mate"),
    "mobile phone": ("smartphone", "mobile phone"),
    "optical disk": ("cd", "optical disk"),
    "wrapped gift": ("gift", "wrapped gift", "present"),
    "evergreen tree": ("pine tree", "evergreen tree"),
    "deciduous tree": ("tree", "deciduous tree"),
    "honeybee": ("bee", "honeybee"),
    "lady beetle": ("ladybug", "lady beetle"),
    "T-Rex": ("t-rex", "dinosaur"),
    "sauropod": ("long-necked dinosaur", "sauropod"),
    "soccer ball": ("soccer ball", "football ball"),
    "flying saucer": ("ufo", "flying saucer"),
    "articulated lorry": ("truck", "articulated lorry"),
    "passenger ship": ("cruise ship", "passenger ship"),
    "racing car": ("race car", "racing car"),
    "pot of food": ("pot of stew", "pot of food"),
    "gem stone": ("diamond", "gem stone", "gem"),
    "light bulb": ("light bulb", "lamp"),
    "red paper lantern": ("red lantern", "red paper lantern"),
    "snow-capped mountain": ("snowy mountain", "snow-capped mountain"),
    "billed cap": ("baseball cap", "billed cap"),
    "headphone": ("headphones", "headphone"),
    "bullseye": ("dart board", "bullseye", "target"),
    "sun behind small cloud": ("sun behind a small cloud",),
    "umbrella with rain drops": ("umbrella in the rain", "umbrella with rain drops"),
    "seat": ("airplane seat", "seat"),
    "pool 8 ball": ("eight ball", "pool 8 ball"),
    "game die": ("dice", "game die"),
    "bowling": ("bowling ball and pins", "bowling"),
    "badminton": ("badminton racket and shuttlecock", "badminton"),
    "ping pong": ("ping pong paddle", "ping pong"),
    "lacrosse": ("lacrosse stick", "lacrosse"),
    "field hockey": ("field hockey stick", "field hockey"),
    "ice hockey": ("ice hockey stick", "ice hockey"),
    "cricket game": ("cricket bat and ball", "cricket game"),
    "television": ("tv", "television"),
    "candy": ("candy", "wrapped candy"),
    "ear of corn": ("ear of corn", "corn"),
    "beverage box": ("juice box", "beverage box"),
    "alien monster": ("space invader", "alien monster"),
    "pile of poo": ("pile of poo", "poop"),
    "see-no-evil monkey": ("monkey covering its eyes", "see-no-evil monkey"),
    "hear-no-evil monkey": ("monkey covering its ears", "hear-no-evil monkey"),
    "speak-no-evil monkey": ("monkey covering its mouth", "speak-no-evil monkey"),
}
HEAD_ENDS = re.compile(
    r" (?:with|of|in|on|and|behind|without|for|at|to|by|over|from|showing|getting|riding|wearing|tilted|not"
    r"|pointing|pointed|facing|fluttering|covering)\b"
)
VOWEL_SOUND = re.compile(r"(?!uni|euro|one|use|ewe)(?:[aeiou]|hour|honest|x-ray|e-mail)", re.I)


def clean(label: str) -> str:
    """A source's label as plain words: "person: blond hair" becomes "person with blond hair"."""
    text = label.replace("’", "'").replace("“", "").replace("”", "").replace("ñ", "n")
    head, colon, rest = text.partition(": ")
    if colon:
        text = f"{head} of {rest.replace(', ', ' and ')}" if head in ("kiss", "family") else f"{head} with {rest}"
    return text.replace("with beard", "with a beard").replace(", ", " and ")


def names(label: str) -> tuple[str, ...]:
    """What people call the thing with that label, the best first."""
    return NAMES.get(label, (clean(label),))


def head_of(noun: str) -> str:
    """The word that decides number: "cat" of "grinning cat with smiling eyes"."""
    return HEAD_ENDS.split(noun)[0].split()[-1].lower()


def is_plural(noun: str) -> bool:
    """Whether the noun stands for several, as "grapes" and "clinking beer mugs" do."""
    head = head_of(noun)
    return head in ("people", "women", "men", "children", "twins") or (
        head.endswith("s") and not head.endswith(SINGULAR_WITH_S) and head not in SINGULARS
    )


def with_article(noun: str) -> str:
    """The noun with "a" or "an", or as it is where English wants neither."""
    first = noun.split()[0].lower()
    if first in ("the", "a", "an", "two", "three", "one's") or is_plural(noun):
        return noun
    if first in NO_ARTICLE or head_of(noun) in NO_ARTICLE or noun in ONLY_NAMES:
        return noun
    return ("an " if VOWEL_SOUND.match(noun) else "a ") + noun


def plural(noun: str) -> str:
    """Several of it: "cats", "boxes", "hatching chicks", "bowls with spoon"."""
    if is_plural(noun):
        return noun
    head = HEAD_ENDS.split(noun)[0]
    rest, words = noun[len(head) :], head.split()
    word = words[-1]
    if word.lower() in IRREGULAR:
        many = IRREGULAR[word.lower()]
    elif re.search(r"(s|x|z|ch|sh)$", word) or re.search(r"(potat|tomat|mang)o$", word):
        many = word + "es"
    elif re.search(r"[^aeiou]y$", word):
        many = word[:-1] + "ies"
    else:
        many = word + "s"
    return " ".join([*words[:-1], many]) + rest


def countable(noun: str) -> bool:
    """Whether "three" of it makes sense."""
    return not is_plural(noun) and head_of(noun) not in NO_ARTICLE and noun not in ONLY_NAMES


def colourless(noun: str) -> str:
    """The noun without colour words: "apple" of "red apple"; an orange stays an orange."""
    return COLOUR_WORDS.sub("", noun).strip() or noun
