"""The request and response pairs that drive the SDKs' tests: well-formed, and what this service really says."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import jsonschema_rs

from pixeldojo.api import openapi
from pixeldojo.catalogue import card as cards
from pixeldojo.catalogue.service import Catalogue

FOLDER = Path(__file__).parents[2] / "sdks/fixtures"


def read(name: str) -> Any:
    text = (FOLDER / name).read_text(encoding="utf-8").replace("{{server}}", "http://127.0.0.1:8787")
    return json.loads(text)


SHARED = read("shared.json")
NAMES = sorted(path.name for path in FOLDER.glob("*.json") if path.name != "shared.json")
CASES = [case for name in NAMES for case in read(name)["cases"]]
DOCUMENT = openapi.document(Catalogue(cards.read_all(None)), base_url="http://127.0.0.1:8787")
# Said on purpose, to see that SDKs bear what this service does not say.
ODD = {
    "a job in a state that no SDK knows yet",
    "an error code that no SDK knows yet",
    "a status that differs from the envelope's: the code decides",
    "run answered with 200",
}


def whole(told: Any, kind: str) -> dict[str, Any]:
    told = {"like": told} if isinstance(told, str) else told
    base = SHARED[kind][told["like"]] if "like" in told else {}
    made = base | {name: value for name, value in told.items() if name != "like"}
    for name in ("headers", "query", "json"):
        if name in base and name in told:
            made[name] = base[name] | told[name]
    return dict(made)


def operation(request: dict[str, Any]) -> Any:
    """The documented operation for this request; None where there is none."""
    parts = unquote(request["path"]).split("/")
    for path, methods in DOCUMENT["paths"].items():
        named = path.split("/")
        if len(named) == len(parts) and all(
            a in (b, "{apiId}", "{jobId}", "{keyId}") for a, b in zip(named, parts, strict=True)
        ):
            found = methods.get(request["method"].lower())
            if found is not None:
                return found
    return None


def faults(schema: dict[str, Any], value: Any) -> list[str]:
    components = {"components": DOCUMENT["components"]}
    validator = jsonschema_rs.Draft202012Validator(schema | components)
    return [f"{'.'.join(map(str, fault.instance_path))}: {fault.message}" for fault in validator.iter_errors(value)]


def test_cases_are_well_formed() -> None:
    names = [case["name"] for case in CASES]
    assert len(set(names)) == len(names)
    assert set(names) >= ODD
    for case in CASES:
        assert set(case) <= {"name", "client", "call", "exchanges", "expect"}, case["name"]
        assert len(set(case["expect"]) & {"result", "error"}) == 1, case["name"]


def test_answers_are_those_of_the_document() -> None:
    """Every JSON answer fits the OpenAPI document of this service, but for the garbage and the odd ones."""
    checked, wrong = 0, []
    for case in CASES:
        if case["name"] in ODD or case["expect"].get("error", {}).get("type") == "InvalidResponseError":
            continue
        for exchange in case["exchanges"]:
            response = whole(exchange["response"], "responses")
            answers = (operation(whole(exchange["request"], "requests")) or {}).get("responses", {})
            documented = answers.get(str(response.get("status", 200)))
            if documented is None or "json" not in response:
                continue
            if "$ref" in documented:
                documented = DOCUMENT["components"]["responses"][documented["$ref"].rpartition("/")[2]]
            schema = documented["content"]["application/json"]["schema"]
            wrong += [f"{case['name']}: {fault}" for fault in faults(schema, response["json"])]
            checked += 1
    assert wrong == []
    assert checked >= 60
