"""One model as data: its names, input schema, price rule and engine, read from `cards/<apiId>.json`."""

import functools
import re
from pathlib import Path
from typing import Any, Literal

import msgspec

from pixeldojo import money

_ID = re.compile(r"[a-z0-9][a-z0-9.\-]{0,62}")
_FOLDER = Path(__file__).parent / "cards"

Capability = Literal[
    "text-to-image", "image-to-image", "inpainting", "upscale", "text-to-video", "image-to-video"
]  # fmt: skip


_milli = functools.lru_cache(1024)(money.to_milli)  # a card's few amounts, asked for at every submit


class CardError(Exception):
    """A card file can't be used; the message names the file and the field."""


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", kw_only=True):
    """How a job's cost follows from its input. Amounts are credits.

    `fixed`: amount · `per_image`: amount × num_outputs · `per_second`: amount × duration ·
    `by_resolution`: amounts[input[parameter]] × num_outputs.
    """

    type: Literal["fixed", "per_image", "per_second", "by_resolution"]
    amount: float = 0
    parameter: str = ""
    amounts: dict[str, float] = {}

    def milli(self, params: dict[str, Any]) -> int:
        """The cost of a job with these complete parameters, in milli-credits."""
        count = params.get("num_outputs", 1)
        if self.type == "per_image":
            return _milli(self.amount) * int(count)
        if self.type == "per_second":
            return money.times(_milli(self.amount), params["duration"])
        if self.type == "by_resolution":
            return _milli(self.amounts[str(params[self.parameter])]) * int(count)
        return _milli(self.amount)


class EngineSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", kw_only=True):
    """Which engine family runs the model, and how. `timeout_s` is the limit for one job."""

    family: str
    options: dict[str, Any] = {}
    instances: int = 1
    timeout_s: float = 120
    enabled_by: str | None = None  # a boolean setting that must be on for the model to be listed


class Card(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", kw_only=True):
    """A model card."""

    api_id: str
    name: str
    description: str
    modality: Literal["image", "video"]
    capabilities: list[Capability]
    price: Price
    engine: EngineSpec
    schema: dict[str, Any]
    examples: list[dict[str, Any]] = []
    use_cases: list[str] = []
    limits: list[str] = []
    license: dict[str, Any] = {}

    @property
    def defaults(self) -> dict[str, Any]:
        """The schema's default for every parameter that has one."""
        return {name: spec["default"] for name, spec in self.schema["properties"].items() if "default" in spec}

    @property
    def pictures(self) -> list[str]:
        """The parameters that take an input picture (`x-input: image` in the schema)."""
        return [name for name, spec in self.schema["properties"].items() if spec.get("x-input") == "image"]


def read(path: Path) -> Card:
    """The card in a file. Raises `CardError`."""
    try:
        card = msgspec.json.decode(path.read_bytes(), type=Card)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CardError(f"{path.name}: {error}") from None
    if fault := _fault(card, name=path.stem):
        raise CardError(f"{path.name}: {fault}")
    return card


def _fault(card: Card, *, name: str) -> str | None:
    """What makes the card unusable, beginning with the field; None when nothing does."""
    import jsonschema_rs  # 25 ms, and most commands read no card

    if not _ID.fullmatch(card.api_id) or card.api_id != name:
        return "apiId must be the file's name: lower-case letters, digits, dots and dashes"
    if card.schema.get("type") != "object" or card.schema.get("additionalProperties") is not False:
        return "schema must be an object with additionalProperties: false"
    if not isinstance(card.schema.get("properties"), dict):
        return "schema: properties must be an object with a schema for each parameter"
    for parameter, spec in card.schema["properties"].items():
        if not isinstance(spec, dict):
            return f"schema: {parameter} must be an object"
    try:
        validator = jsonschema_rs.Draft202012Validator(card.schema, offline=True)  # a `$ref` fetches nothing
    except ValueError as error:
        return f"schema: {str(error).partition(chr(10))[0]}"
    for wrong in validator.iter_errors(card.defaults):
        if wrong.instance_path:  # what the defaults alone lack is the request's to give
            return f"schema: the default of {wrong.instance_path[0]} is not valid: {wrong.message}"
    if card.engine.instances < 1 or card.engine.timeout_s <= 0:
        return "engine: instances and timeoutS must be more than zero"
    return _price_fault(card)


def _price_fault(card: Card) -> str | None:
    price, properties = card.price, card.schema["properties"]
    for amount in price.amounts.values() if price.type == "by_resolution" else [price.amount]:
        try:
            if money.to_milli(amount) < 0:
                return f"price: {amount:g} is less than zero"
        except ValueError as error:
            return f"price: {error}"
    if price.type == "per_second" and "default" not in properties.get("duration", {}):
        return "price: a price per second needs a duration parameter with a default"
    if price.type == "by_resolution":
        sizes = properties.get(price.parameter, {})
        if "default" not in sizes:
            return "price: parameter must name one that has a default"
        if missing := {str(size) for size in sizes.get("enum", [sizes["default"]])} - price.amounts.keys():
            return f"price: amounts lacks {', '.join(sorted(missing))}"
    return None


def read_all(more: Path | None) -> list[Card]:
    """The cards that come with PixelDojo, and those in the folder `more`, which replace others of the same id."""
    cards = {path.stem: read(path) for path in sorted(_FOLDER.glob("*.json"))}
    if more is not None:
        if not more.is_dir():
            raise CardError(f"{more}: there is no such folder")
        cards |= {path.stem: read(path) for path in sorted(more.glob("*.json"))}
    return list(cards.values())
