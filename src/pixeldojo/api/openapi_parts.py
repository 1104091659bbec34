"""The parts that OpenAPI operations are made of: answers, errors as they are really rendered, bodies.

Names and texts go in, pieces of the document come out. Nothing here knows which operations there are.
"""

from collections.abc import Iterable
from typing import Any

from pixeldojo import errors
from pixeldojo.api import respond
from pixeldojo.api.openapi_schemas import Schema, ref
from pixeldojo.api.respond import JSON

COUNTED = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
AGAIN = {"Retry-After": "5"}
UNAUTHORIZED = errors.Unauthorized(
    "Missing API key: send the header `Authorization: Bearer YOUR_API_KEY`.", headers={"WWW-Authenticate": ""}
)
USUAL = (errors.RateLimited(headers=AGAIN), errors.InternalError(headers=AGAIN))


def all_headers(names: Iterable[str]) -> Schema:
    """The headers of a response: those of every one, and `names`."""
    return {name: ref(name, "headers") for name in ("X-Request-Id", *COUNTED, *names)}


def answer(
    text: str, schema: str, example: Any = None, *, headers: Iterable[str] = (), links: Schema | None = None
) -> Schema:
    """A JSON response; `example` is one value, or None for none. `links` say what can be asked next."""
    content: Schema = {"schema": ref(schema)}
    if example is not None:
        content["examples"] = {"example": {"value": example}}
    made: Schema = {"description": text, "headers": all_headers(headers), "content": {JSON: content}}
    return made | {"links": links} if links else made


def link(operation_id: str, text: str, **values: str) -> Schema:
    """What leads from an answer to an operation: where in the body (a JSON pointer) its parameters' values are."""
    parameters = {name: f"$response.body#{pointer}" for name, pointer in values.items()}
    return {operation_id: {"operationId": operation_id, "parameters": parameters, "description": text}}


def faults(*shown: errors.PixelDojoError) -> Schema:
    """Error responses by status, each code with the envelope as it is really rendered."""
    responses: Schema = {}
    for error in shown:
        response = responses.setdefault(
            str(error.status),
            {"description": "", "headers": all_headers(()), "content": {JSON: {"schema": ref("Error")}}},
        )
        response["description"] = f"{response['description']} `{error.code}`: {type(error)().message}".strip()
        response["headers"] |= all_headers(error.headers)
        examples = response["content"][JSON].setdefault("examples", {})
        examples[error.code] = {"value": respond.envelope(error, request_id="req_0f1e2d3c4b5a69788796")}
    return responses


def operation(
    name: str, tag: str, summary: str, text: str, responses: Schema, *parameters: str, needs: str | None = None
) -> Schema:
    """An operation; `parameters` are names of components, `needs` the scope that its key must have."""
    made: Schema = {"operationId": name, "tags": [tag], "summary": summary, "description": text}
    if needs is not None:
        made["security"] = [{"key": [needs]}]
    if parameters:
        made["parameters"] = [ref(each, "parameters") for each in parameters]
    return made | {"responses": responses}


def body(schema: Schema, examples: list[Any], *, required: bool = True) -> Schema:
    """A JSON request body."""
    content: Schema = {"schema": schema}
    if examples:
        content["examples"] = {f"example{number}": {"value": each} for number, each in enumerate(examples, 1)}
    return {"requestBody": {"required": required, "content": {JSON: content}}}
