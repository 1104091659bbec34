"""What a model takes and what it costs, as rows and sentences. A card goes in, plain words come out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from pixeldojo import money
from pixeldojo.catalogue.card import Card

_JOINED = ("$ref", "allOf")


@dataclass(frozen=True, slots=True)
class Input:
    """One parameter of a model. `default` is JSON, or empty; `allowed` says in words what is accepted."""

    name: str
    type: str
    required: bool
    default: str
    allowed: str
    description: str

    @property
    def brief(self) -> str:
        """The parameter on one line: `num_outputs: integer, 1 to 4, default 1`."""
        words = [self.type, self.allowed, "required" if self.required else "", f"default {self.default}"]
        return f"{self.name}: " + ", ".join(word for word in words[: 4 if self.default else 3] if word)


@dataclass(frozen=True, slots=True)
class Priced:
    """A worked example: what these inputs cost, in credits. No inputs: every one at its default."""

    inputs: dict[str, Any]
    credits: int | float

    @property
    def words(self) -> str:
        """The inputs as JSON, or what it means that there are none."""
        return as_json(self.inputs) if self.inputs else "everything at its default"


def as_json(value: Any) -> str:
    """`value` as people write JSON: with spaces after commas and colons."""
    return msgspec.json.format(msgspec.json.encode(value), indent=0).decode()


def inputs(card: Card) -> list[Input]:
    """The parameters of the card's schema, the required ones first, then in its own order."""
    required = card.schema.get("required", [])
    rows = []
    for name, given in card.schema["properties"].items():
        spec = _whole(given, card.schema)
        kind = _type(spec)
        if spec.get("x-input"):
            kind = f"{spec['x-input']} (https URL or data URI)"
        rows.append(
            Input(
                name=name,
                type=kind,
                required=name in required,
                default=as_json(spec["default"]) if "default" in spec else "",
                allowed=_allowed(spec),
                description=" ".join(str(spec.get("description", "")).split()),
            )
        )
    return sorted(rows, key=lambda row: not row.required)


def _whole(spec: Mapping[str, Any], schema: Mapping[str, Any], *, depth: int = 8) -> dict[str, Any]:
    """`spec` with what its references within the card say."""
    found = {name: value for name, value in spec.items() if name not in _JOINED}
    parts = list(spec.get("allOf", []))
    target = spec.get("$ref", "")
    if isinstance(target, str) and target.startswith("#/$defs/"):
        parts.append(schema.get("$defs", {}).get(target.removeprefix("#/$defs/"), {}))
    for part in parts if depth else ():
        if isinstance(part, Mapping):
            found = _whole(part, schema, depth=depth - 1) | found
    return found


def _type(spec: Mapping[str, Any]) -> str:
    kind = spec.get("type")
    if isinstance(kind, list):
        return " or ".join(map(str, kind))
    if kind == "array":
        items = spec.get("items")
        return f"list of {_type(items)}" if isinstance(items, Mapping) and items else "list"
    if kind is None and "enum" in spec:
        values = {type(value) for value in spec["enum"]}
        return "string" if values == {str} else "number" if values <= {int, float} else "value"
    return str(kind or "value")


def _allowed(spec: Mapping[str, Any]) -> str:
    if "const" in spec:
        return as_json(spec["const"])
    if "enum" in spec:
        return "one of " + " ".join(value if isinstance(value, str) else as_json(value) for value in spec["enum"])
    parts = [_range(spec, "minimum", "maximum", "")]
    parts.append(_range(spec, "minLength", "maxLength", " characters"))
    parts.append(_range(spec, "minItems", "maxItems", " items"))
    if "exclusiveMinimum" in spec:
        parts.append(f"more than {spec['exclusiveMinimum']}")
    if "exclusiveMaximum" in spec:
        parts.append(f"less than {spec['exclusiveMaximum']}")
    if "multipleOf" in spec:
        parts.append(f"a multiple of {spec['multipleOf']}")
    return ", ".join(part for part in parts if part)


def _range(spec: Mapping[str, Any], least: str, most: str, unit: str) -> str:
    low, high = spec.get(least), spec.get(most)
    if low is None and high is None:
        return ""
    if high is None:
        if least == "minLength" and low == 1:
            return "not empty"
        return f"at least {low}{unit}"
    return f"at most {high}{unit}" if low is None else f"{low} to {high}{unit}"


def worked(card: Card) -> list[Priced]:
    """What some inputs cost, by the rule that charges them: the defaults, and what makes it cheaper or dearer."""
    found: list[Priced] = []
    for given in _variants(card):
        cost = money.to_credits(card.price.milli(card.defaults | given))
        if all(each.inputs != given for each in found):
            found.append(Priced(given, cost))
    return found


def _variants(card: Card) -> Iterator[dict[str, Any]]:
    yield {}
    properties, price = card.schema["properties"], card.price
    specs = {name: _whole(spec, card.schema) for name, spec in properties.items()}
    if price.type == "by_resolution":
        sizes = specs[price.parameter].get("enum", [])
        for size in sizes:
            if size != card.defaults[price.parameter]:
                yield {price.parameter: size}
    if price.type == "per_second":
        duration = specs["duration"]
        for seconds in (*duration.get("enum", []), duration.get("minimum"), duration.get("maximum")):
            if seconds is not None and seconds != card.defaults["duration"]:
                yield {"duration": seconds}
    most = specs.get("num_outputs", {}).get("maximum")
    if price.type in ("per_image", "by_resolution") and isinstance(most, int) and most > 1:
        yield {"num_outputs": most}
