"""From JSON to the dataclasses of `types`: which fields there are and what they hold is read from their annotations.

JSON comes in; an object leaves, or `ShapeError` says what is wrong with the answer.
"""

import dataclasses
import json
import types
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

R = TypeVar("R")


class ShapeError(Exception):
    """The JSON is not what it should be."""


class _Field(NamedTuple):
    name: str
    key: str
    kind: Any
    required: bool


def camel(name: str) -> str:
    """`credit_cost` → `creditCost`."""
    head, *rest = name.split("_")
    return head + "".join(each.capitalize() for each in rest)


_known: dict[Any, tuple[_Field, ...]] = {}


def _fields(kind: Any) -> tuple[_Field, ...]:
    if kind in _known:
        return _known[kind]
    hints = get_type_hints(kind)
    found = []
    for each in dataclasses.fields(kind):
        if each.name != "raw":
            required = each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
            found.append(_Field(each.name, camel(each.name), hints[each.name], required))
    return _known.setdefault(kind, tuple(found))


def record(kind: type[R], value: object, what: str = "the answer") -> R:
    """`value` as an object of this dataclass; its fields, if they are dataclasses, too."""
    if not isinstance(value, dict):
        raise ShapeError(f"{what} is not an object")
    given: dict[str, Any] = {"raw": value}
    for each in _fields(kind):
        found = value.get(each.key)
        if found is None:  # null counts as absent, wherever something may be absent
            if each.required:
                raise ShapeError(f"{what} has no `{each.key}`")
            continue
        given[each.name] = _value(each.kind, found, f"`{each.key}`")
    return kind(**given)


def _value(kind: Any, value: Any, what: str) -> Any:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _value(next(each for each in get_args(kind) if each is not types.NoneType), value, what)
    if origin is tuple:
        if not isinstance(value, list):
            raise ShapeError(f"{what} is not a list")
        inner = get_args(kind)[0]
        return tuple(_value(inner, each, f"an item of {what}") for each in value)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return record(kind, value, what)  # type: ignore[arg-type]
    if kind is datetime:
        return _time(value, what)
    return _plain(origin or kind, value, what)


def _plain(kind: type[Any], value: Any, what: str) -> Any:
    if kind is float and type(value) in (int, float):
        return float(value)
    if kind is int and type(value) is float and value.is_integer():  # 3.0 is 3 in JSON
        return int(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ShapeError(f"{what} is not of type {kind.__name__}")
    return value


def _time(value: Any, what: str) -> datetime:
    try:
        time = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise ShapeError(f"{what} is not a time") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def parse(body: bytes) -> Any:
    """The value in a body of JSON. Raises `ShapeError`."""
    try:
        return json.loads(body.decode("utf-8-sig"), parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise ShapeError("it is not JSON") from None


def _refuse(name: str) -> Any:
    raise ValueError(name)
