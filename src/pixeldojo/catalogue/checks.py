"""Validation of a request body against a card: every fault named, with its path and the remedy.

The schema itself is checked by jsonschema-rs; this file turns its findings into sentences for people, and
catches what JSON Schema can't say: null characters, which no database column or file name should meet, and
bodies of very many parts, which the library must never see.
"""

import difflib
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import jsonschema_rs
import msgspec

from pixeldojo.errors import Detail

_MOST_DETAILS = 50  # a body with a thousand unknown parameters gets an answer of sensible length
# The library keeps every fault, and for each wrong name a copy of the object around it: six thousand of them in a body
# of 60 kB took 7 GB. So what is larger than any sensible input is refused before it looks.
_SMALL = 4096  # bytes: what is smaller can't do much
_MOST_MEMBERS = 256  # of one object
_MOST_CHARS = 65_536  # of the names and texts in one object, unless it is the body, whose pictures are texts
_MOST_VALUES = 10_000  # of a body, in all its lists and objects together

_MOST_SENTENCE = 300
_PARTED = (dict, list)
_TYPES = {"integer": "a whole number", "number": "a number", "string": "a string", "boolean": "true or false",
          "array": "a list", "object": "an object", "null": "null"}  # fmt: skip


def faults(validator: jsonschema_rs.Draft202012Validator, body: object, *, known: list[str]) -> list[Detail]:
    """Every fault of `body`, in the order of their paths; empty when it is valid."""
    try:
        raw = msgspec.json.encode(body)
        if len(raw) > _SMALL and (excess := _excess(body)) is not None:
            return [excess]
        # The search knows every path; whether there is one at all shows quicker in the JSON.
        suspect = b"\\u0000" in raw
        found = [*itertools.islice(_null_characters(body, ""), _MOST_DETAILS)] if suspect else []
        for error in validator.iter_errors(body):
            found += _explain(error, known)
            if len(found) >= _MOST_DETAILS:
                break
    except (RecursionError, ValueError):  # the library gives up at some 250 levels, Python at some 1000
        return [Detail("", "must not be nested so deeply")]
    return sorted(found[:_MOST_DETAILS], key=lambda detail: detail.path)


def _excess(body: object) -> Detail | None:
    """The part of a body that has too many members or values, if there is one."""
    left, containers = _MOST_VALUES, [("", body)]
    while containers:
        path, value = containers.pop()
        if isinstance(value, dict):
            if len(value) > _MOST_MEMBERS:
                return Detail(path[-100:], f"must have at most {_MOST_MEMBERS} members, not {len(value)}")
            if value is not body and _chars(value) > _MOST_CHARS:
                return Detail(path[-100:], f"must have at most {_MOST_CHARS} characters in all")
            parts: Iterable[tuple[object, object]] = value.items()
        elif isinstance(value, list):
            parts = enumerate(value)
        else:
            continue
        left -= len(value)
        if left < 0:
            return Detail("", f"must have at most {_MOST_VALUES} values in all")
        containers += [(f"{path}.{name}" if path else str(name), part) for name, part in parts if type(part) in _PARTED]
    return None


def _chars(members: dict[str, object]) -> int:
    return sum(len(text) for text in itertools.chain(members, members.values()) if isinstance(text, str))


def _null_characters(value: object, path: str) -> Iterator[Detail]:
    if isinstance(value, str):
        if "\0" in value:
            yield Detail(path, "must not contain null characters (\\u0000)")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _null_characters(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _null_characters(item, f"{path}.{index}" if path else str(index))


def _short(value: object) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _explain(error: jsonschema_rs.ValidationError, known: list[str]) -> list[Detail]:
    kind = error.kind.as_dict()
    path = ".".join(str(part) for part in error.instance_path)
    name = error.kind.name
    if name == "required":
        missing = str(kind["property"])
        return [Detail(f"{path}.{missing}" if path else missing, "is required")]
    if name == "additionalProperties":
        return [_unknown(path, str(extra), known) for extra in kind["unexpected"][:_MOST_DETAILS]]
    if name == "anyOf" and (missing_all := _required_one(kind["context"])):
        return [Detail(path, "must have " + " or ".join(missing_all))]
    # the library's own sentence quotes the value whole
    return [Detail(path[-100:], _sentence(name, kind, error.instance) or error.message[:_MOST_SENTENCE])]


def _required_one(branches: list[list[jsonschema_rs.ValidationError]]) -> list[str]:
    """The parameters of which one must be there, if that is all that the branches of an `anyOf` ask for."""
    found = [error.kind for branch in branches for error in branch]
    return [str(kind.as_dict()["property"]) for kind in found] if all(kind.name == "required" for kind in found) else []


def _unknown(path: str, extra: str, known: list[str]) -> Detail:
    near = difflib.get_close_matches(extra, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"the model takes {', '.join(known)}"
    return Detail(f"{path}.{extra}"[-100:] if path else extra[:100], f"unknown parameter; {hint}")


def _sentence(name: str, kind: dict[str, Any], value: object) -> str | None:
    limit = kind.get("limit")
    got = f", not {_short(value)}"
    length = len(value) if isinstance(value, str | list | dict) else 0
    match name:
        case "type":
            return "must be " + " or ".join(_TYPES.get(t, t) for t in kind["types"]) + got
        case "minimum":
            return f"must be at least {limit}{got}"
        case "maximum":
            return f"must be at most {limit}{got}"
        case "exclusiveMinimum":
            return f"must be more than {limit}{got}"
        case "exclusiveMaximum":
            return f"must be less than {limit}{got}"
        case "multipleOf":
            return f"must be a multiple of {kind['multiple_of']}{got}"
        case "minLength":
            return "must not be empty" if limit == 1 else f"must have at least {limit} characters, not {length}"
        case "maxLength":
            return f"must have at most {limit} characters, not {length}"
        case "enum":
            return "must be one of " + ", ".join(str(option) for option in kind["options"]) + got
        case "uniqueItems":
            return "must not have the same item twice"
        case "pattern" if kind.get("pattern") == r"\S":
            return "must not be blank"
    return None
