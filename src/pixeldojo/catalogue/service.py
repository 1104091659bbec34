"""Cards in memory, and the one way from a request body to a validated, complete and priced order."""

import copy
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import jsonschema_rs
import msgspec

from pixeldojo import errors, ids, money
from pixeldojo.catalogue import checks
from pixeldojo.catalogue.card import Card

URL_CHARS = 2048

# What every model accepts beside its own parameters.
ENVELOPE: dict[str, Any] = {
    "webhook_url": {
        "title": "Webhook URL",
        "description": "Where to send the result when the job ends.",
        "type": "string",
        "format": "uri",
        "minLength": 1,
        "maxLength": URL_CHARS,
    },
    "webhook_events_filter": {
        "title": "Webhook events",
        "description": "What the webhook hears of: the job's end, completed or failed, unless told otherwise.",
        "type": "array",
        "items": {"type": "string", "enum": ["start", "progress", "completed", "failed"]},
        "minItems": 1,
        "uniqueItems": True,
    },
    "metadata": {
        "title": "Metadata",
        "description": "Up to 16 names of your own with texts, numbers or booleans. Echoed in the job and its webhook;"
        " lists can be filtered by it.",
        "type": "object",
        "maxProperties": 16,
        "propertyNames": {"minLength": 1, "maxLength": 64, "pattern": r"^[\w.\-]+$"},
        "additionalProperties": {"type": ["string", "number", "boolean"], "maxLength": 500},
    },
    "priority": {
        "title": "Priority",
        "description": "Which of your own waiting jobs goes first: the highest. Other accounts' turns stay theirs.",
        "type": "integer",
        "minimum": -10,
        "maximum": 10,
    },
    "max_credit_cost": {
        "title": "Most to pay",
        "description": "Refuse the job when it would cost more credits than this.",
        "type": "number",
        "minimum": 0,
    },
}


@dataclass(frozen=True, slots=True)
class Order:
    """A request that passed every check. `params` is complete: defaults and the seed are filled in."""

    card: Card
    params: dict[str, Any]
    pictures: list[str]  # the parameters that are input pictures
    cost_milli: int
    webhook_url: str | None
    request: object  # as it came, for `request_hash`

    metadata: dict[str, Any] = field(default_factory=dict)
    priority: int = 0
    webhook_events: list[str] | None = None  # None: the job's end alone

    def request_hash(self) -> str:
        """The same for two requests that ask for the same, whatever the order and spacing of their JSON."""
        canonical = msgspec.json.encode([self.card.api_id, self.request], order="deterministic")
        return hashlib.sha256(canonical).hexdigest()


class _Listed:
    """A card with what is derived from it once."""

    __slots__ = ("card", "defaults", "fields", "known", "pictures", "request_schema", "validator")

    def __init__(self, card: Card) -> None:
        self.card = card
        self.defaults = card.defaults
        self.request_schema: dict[str, Any] = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": card.name,
            **copy.deepcopy(card.schema),
        }
        self.request_schema["properties"] |= copy.deepcopy(ENVELOPE)
        self.validator = jsonschema_rs.Draft202012Validator(self.request_schema, offline=True)
        self.known = list(self.request_schema["properties"])
        self.fields = card.schema["properties"]
        self.pictures = card.pictures


class Catalogue:
    """The models that can run now."""

    def __init__(self, cards: Iterable[Card]) -> None:
        self._listed = {card.api_id: _Listed(card) for card in cards}

    @property
    def cards(self) -> list[Card]:
        """Every card, by id."""
        return [self._listed[api_id].card for api_id in sorted(self._listed)]

    def card(self, api_id: str) -> Card:
        """Raises `NotFound`."""
        return self._find(api_id).card

    def request_schema(self, api_id: str) -> dict[str, Any]:
        """The JSON Schema of the run request's body. Raises `NotFound`."""
        return self._find(api_id).request_schema

    def _find(self, api_id: str) -> _Listed:
        try:
            return self._listed[api_id]
        except KeyError:
            raise errors.NotFound(f"There is no model {api_id[:80]!r}; GET /api/v1/models lists them.") from None

    def order(self, api_id: str, body: object) -> Order:
        """Check, complete and price a decoded request body. Raises `NotFound` and `ValidationError`."""
        listed = self._find(api_id)
        found = checks.faults(listed.validator, body, known=listed.known)
        if found or not isinstance(body, dict):
            found = found or [errors.Detail("", "must be an object")]
            first = f"{found[0].path}: {found[0].message}" if found[0].path else f"The body {found[0].message}"
            rest = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            raise errors.ValidationError(first + rest, details=found)
        params = listed.defaults | body
        envelope = {name: params.pop(name) for name in ENVELOPE if name in params}
        for name, value in params.items():
            if type(value) is float and listed.fields[name].get("type") == "integer":
                params[name] = int(value)  # JSON Schema counts 2.0 among the integers
        if "seed" in listed.fields and "seed" not in params:
            params["seed"] = ids.new_seed()
        cost_milli = listed.card.price.milli(params)
        if cost_milli > envelope.get("max_credit_cost", money.MOST_MILLI) * 1000:
            text = f"the job costs {money.to_credits(cost_milli)} credits, more than {envelope['max_credit_cost']:g}"
            raise errors.ValidationError.at("max_credit_cost", text)
        return Order(
            card=listed.card,
            params=params,
            pictures=listed.pictures,
            cost_milli=cost_milli,
            webhook_url=envelope.get("webhook_url"),
            webhook_events=envelope.get("webhook_events_filter"),
            metadata=envelope.get("metadata", {}),
            priority=int(envelope.get("priority", 0)),
            request=body,
        )

    def view(self, card: Card) -> dict[str, Any]:
        """A card as `GET /models` lists it."""
        price = card.price
        cost: dict[str, Any] = {"type": price.type}
        if price.type == "by_resolution":
            cost |= {"amounts": price.amounts, "parameter": price.parameter}
            cost["amount"] = min(price.amounts.values())
        else:
            cost["amount"] = money.to_credits(money.to_milli(price.amount))
        cost["default"] = money.to_credits(price.milli(card.defaults))
        return {
            "apiId": card.api_id,
            "name": card.name,
            "description": card.description,
            "modality": card.modality,
            "capabilities": card.capabilities,
            "creditCost": cost,
        }

    def detail(self, card: Card) -> dict[str, Any]:
        """A card as `GET /models/{apiId}` shows it."""
        return self.view(card) | {
            "requestSchema": self.request_schema(card.api_id),
            "examples": card.examples,
            "useCases": card.use_cases,
            "limits": card.limits,
            "pricing": _pricing(card),
            "license": card.license,
        }


def _pricing(card: Card) -> str:
    amount = card.price.amount
    credits_each = f"{amount:g} credit{'' if amount == 1 else 's'}"
    match card.price.type:
        case "fixed":
            return f"{credits_each} a job."
        case "per_image":
            return f"{credits_each} an image: {amount:g} × num_outputs."
        case "per_second":
            return f"{credits_each} a second: {amount:g} × duration."
    table = ", ".join(f"{size}: {each:g}" for size, each in card.price.amounts.items())
    return f"Credits an image by {card.price.parameter}: {table}."
