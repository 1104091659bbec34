"""The service that the documents speak of: what is known of it, and which model their samples use."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from pixeldojo.catalogue.card import Card
from pixeldojo.catalogue.service import Catalogue
from pixeldojo.guide.inputs import inputs

Answers = tuple[dict[str, Any], dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A service. `address`: scheme, host and port, no slash at the end. `rate_limit`: `60/minute`, or `off`.

    `answers` gives, for a model, an example of the answer to a run and of the completed job, as the door renders them;
    `operations`, for each model's id, where the reference shows its run.
    """

    catalogue: Catalogue
    address: str
    version: str
    rate_limit: str
    retention_s: int
    contact_email: str = ""
    answers: Callable[[Card], Answers] = field(compare=False)
    operations: Mapping[str, str] = field(compare=False)

    @property
    def api(self) -> str:
        """The base URL of the API."""
        return f"{self.address}/api/v1"

    @property
    def root(self) -> str:
        """What comes before every path of the service: empty, or `/dojo` where a proxy has it below one."""
        return urlsplit(self.address).path.rstrip("/")

    @property
    def hours(self) -> str:
        """How long results are kept, in words."""
        whole, rest = divmod(self.retention_s, 3600)
        if rest or not whole:
            return f"{self.retention_s} seconds"
        return f"{whole} hour" if whole == 1 else f"{whole} hours"

    @property
    def limit(self) -> str:
        """How many requests a key may make: `60 requests per minute`, empty where nothing is counted."""
        amount, slash, unit = self.rate_limit.partition("/")
        return f"{amount} requests per {unit}" if slash else ""

    @property
    def makes(self) -> str:
        """`images`, `videos`, or `images and videos`: what its models make."""
        kinds = {card.modality for card in self.catalogue.cards} or {"image", "video"}
        return " and ".join(f"{kind}s" for kind in sorted(kinds))

    @property
    def starter(self) -> Card | None:
        """The model that samples use: the cheapest that makes an image of a prompt alone; else the first one."""
        cards = self.catalogue.cards
        simple = [card for card in cards if card.modality == "image" and _needs(card) <= {"prompt"}]
        return min(simple or cards, key=lambda card: card.price.milli(card.defaults), default=None)

    @property
    def painter(self) -> Card | None:
        """The first model that makes an image of an input picture and at most a prompt, where there is one."""
        fit = [card for card in self.catalogue.cards if card.pictures and _needs(card) <= {"prompt", card.pictures[0]}]
        return min(fit, key=lambda card: card.modality, default=None)


def _needs(card: Card) -> set[str]:
    return {each.name for each in inputs(card) if each.required}
