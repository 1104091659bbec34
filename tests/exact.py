"""The OpenAPI document as a judge of real answers, to the letter: what it does not mention is a fault.

Exact(document).response("GET", response)     # AssertionError, KeyError or a schema's error where it is not so
"""

import re
from typing import Any

import httpx2
import jsonschema_rs
import msgspec

PLAIN = {  # headers that need no word in the document
    "content-type", "content-length", "cache-control", "content-disposition", "allow",
    "access-control-allow-origin", "x-content-type-options", "date", "connection", "transfer-encoding",
}  # fmt: skip
_JSON = "application/json"
_EVENTS = "text/event-stream"


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    copied = {name: _closed(each) for name, each in schema.items()}
    if schema.get("type") == "object" and "properties" in schema:
        copied.setdefault("additionalProperties", False)
    return copied


class Exact:
    """The document's schemas, closed: here a field that is not documented is a fault."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self._components = _closed(document["components"])
        self._validators: dict[bytes, Any] = {}

    def validate(self, schema: dict[str, Any], value: object, *, closed: bool = True) -> None:
        """Raise when `value` is not what this schema of the document says."""
        key = msgspec.json.encode([schema, closed])
        if key not in self._validators:
            components = self._components if closed else self.document["components"]
            whole = {**schema, "components": components}
            self._validators[key] = jsonschema_rs.Draft202012Validator(whole, validate_formats=True)
        self._validators[key].validate(value)

    def find(self, pointer: str) -> Any:
        """What lies at `#/…`."""
        found = self.document
        for part in pointer.removeprefix("#/").split("/"):
            found = found[part.replace("~1", "/").replace("~0", "~")]
        return found

    def full(self, value: dict[str, Any]) -> dict[str, Any]:
        """What a reference leads to, or the value itself."""
        found: dict[str, Any] = self.find(value["$ref"]) if "$ref" in value else value
        return found

    def operation(self, method: str, path: str) -> dict[str, Any]:
        """The operation a request with this path meets; a path without parameters goes first."""
        paths = self.document["paths"]
        for template in sorted(paths, key=lambda each: each.count("{")):
            if re.fullmatch(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(template)), path) and method in paths[template]:
                found: dict[str, Any] = paths[template][method]
                return found
        raise AssertionError(f"{method} {path} is not documented")

    def response(self, method: str, response: httpx2.Response) -> None:
        """Raise when the operation that the request met does not document this answer."""
        self.answer(self.operation(method.lower(), response.url.path), response)

    def answer(self, operation: dict[str, Any], response: httpx2.Response) -> None:
        """Raise when this operation does not document this answer: status, headers, content type, body."""
        documented = self.full(operation["responses"][str(response.status_code)])
        headers = {name.lower(): self.full(each) for name, each in documented["headers"].items()}
        unknown = set(response.headers) - PLAIN - set(headers)
        assert not unknown, f"headers that are not documented: {unknown}"
        missing = {name for name, each in headers.items() if each.get("required")} - set(response.headers)
        assert not missing, f"headers that are missing: {missing}"
        for name in set(headers) & set(response.headers):
            value: Any = response.headers[name]
            kind = headers[name]["schema"]
            self.validate(kind, int(value) if kind["type"] == "integer" else value)
        if "content" not in documented:
            assert response.content == b""
            return
        kind, kinds = response.headers["content-type"], documented["content"]
        content = kinds[kind if kind in kinds else kind.partition(";")[0]]
        if response.request.method == "HEAD":
            return
        if response.headers["content-type"] == _JSON:
            self.validate(content["schema"], response.json())
        if kind.startswith(_EVENTS):
            self._events(content["schema"], response.text)
        if response.status_code >= 400:
            code = response.json()["error"]["code"]
            assert code in content["examples"], f"the code {code} is not documented"

    def _events(self, schema: dict[str, Any], text: str) -> None:
        """Each whole event is as the schema says, and its data as the `contentSchema` of one of its kinds."""
        kinds = [self.full(each)["properties"] for each in self.full(schema)["oneOf"]]
        for block in text.split("\n\n")[:-1]:
            # at line feeds only: JSON may hold what else Unicode calls the end of a line
            lines = (line.partition(": ") for line in block.split("\n") if not line.startswith(":"))
            event: dict[str, Any] = {name: value for name, _, value in lines}
            if "event" not in event:  # how long to wait before coming back, or that somebody is still here
                assert not set(event) - {"retry"}
                continue
            self.validate(schema, event)
            told = next(
                each for each in kinds if event["event"] in (each["event"].get("enum") or [each["event"]["const"]])
            )
            self.validate(told["data"]["contentSchema"], msgspec.json.decode(event["data"]))
