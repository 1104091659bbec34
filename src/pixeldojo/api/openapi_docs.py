"""The OpenAPI entries of the documents: `/llm.txt`, `/docs`, the agent skill and the rest. Constants in, paths out."""

from typing import Any

from pixeldojo import errors
from pixeldojo.api.openapi_parts import USUAL, all_headers, faults, operation
from pixeldojo.api.openapi_schemas import Schema
from pixeldojo.api.respond import JSON

TAGS = {"documents": "What agents and people read about this service. Public."}


def _header(text: str, **more: Any) -> Schema:
    return {"description": text, "schema": {"type": "string"}, **more}


_KEPT = {
    "ETag": _header("Names this version of the document, for `If-None-Match`.", required=True),
    "Vary": _header("By which headers of a request the answer differs.", required=True),
    "Content-Encoding": _header("`gzip`, for whoever takes it."),
}
_PAGE = {
    "Content-Security-Policy": _header("What the page may load: nothing from another host.", required=True),
    "Referrer-Policy": _header("Whom the page tells where its reader comes from: nobody.", required=True),
}
_AS_TEXT = {"schema": {"type": "string"}}
_PLAIN, _MARKDOWN, _HTML = (f"text/{kind}; charset=utf-8" for kind in ("plain", "markdown", "html"))
_OBJECT = {"schema": {"type": "object"}}


def _parameter(name: str, text: str, example: str) -> Schema:
    return {
        "name": name, "in": "path", "required": True, "description": text, "schema": {"type": "string"},
        "example": example,
    }  # fmt: skip


def _read(
    name: str, summary: str, text: str, content: Schema, *missing: errors.PixelDojoError,
    headers: Schema | None = None, parameter: Schema | None = None,
) -> Schema:  # fmt: skip
    """GET and HEAD of a document."""

    def one(verb: str, answered: Schema) -> Schema:
        kept = all_headers(()) | _KEPT | (headers or {})
        answers = {
            "200": {"description": "The document.", "headers": kept} | answered,
            "304": {"description": "You have it already.", "headers": kept},
            **faults(*missing, *USUAL),
        }
        made = operation(f"{verb}{name}", "documents", summary, text, answers) | {"security": []}
        return made | ({"parameters": [parameter]} if parameter else {})

    return {"get": one("get", {"content": content}), "head": one("head", {})}


def _root() -> Schema:
    where = {"Vary": _KEPT["Vary"]}

    def one(verb: str, content: Schema) -> Schema:
        answers = {
            "200": {"description": "Where everything is.", "headers": all_headers(()) | where} | content,
            "302": {
                "description": "For browsers: the documentation.",
                "headers": all_headers(()) | where | {"Location": _header("Where it is.", required=True)},
            },
            **faults(*USUAL),
        }
        text = "Leads browsers (`Accept: text/html`) to the documentation, and tells programs where everything is."
        return operation(f"{verb}Root", "documents", "Where to begin", text, answers) | {"security": []}

    content = {JSON: {"schema": {"type": "object", "additionalProperties": {"type": "string"}}}}
    return {"get": one("get", {"content": content}), "head": one("head", {})}


def _skill() -> Schema:
    file = {
        "type": "object",
        "required": ["path", "text", "executable"],
        "properties": {
            "path": {"type": "string", "description": "Its path in the skill's folder."},
            "text": {"type": "string", "description": "What is in it."},
            "executable": {"type": "boolean", "description": "Whether it is a program."},
        },
    }
    schema = {
        "type": "object",
        "required": ["name", "files"],
        "properties": {
            "name": {"type": "string", "description": "The skill's name, and its folder's."},
            "files": {"type": "array", "description": "Every file of it.", "items": file},
        },
    }
    done = {"description": "The skill.", "headers": all_headers(()), "content": {JSON: {"schema": schema}}}
    text = "Instructions, references and a shell client for agents, as files to write into a folder."
    made = operation("getSkill", "documents", "Get the agent skill", text, {"200": done, **faults(*USUAL)})
    return {"get": made | {"security": []}}


def paths() -> Schema:
    """The operations, by path and method."""
    no_page = errors.NotFound("There is no page 'dojo-max'; a model's page is /models/{apiId}.md.")
    no_file = errors.NotFound("There is no file 'logo.png' for the documentation.")
    no_part = errors.NotFound("The skill has no file 'skill.txt'; there are SKILL.md, models.md, api.md, pixeldojo.sh.")
    page = _parameter("page", "A model's id and `.md`.", "dojo-mini.md")
    asset = _parameter("name", "The file's name.", "docs.css")
    part = _parameter("name", "The file's name.", "SKILL.md")
    kinds = ("text/css; charset=utf-8", "text/javascript; charset=utf-8", _PLAIN, "image/svg+xml")
    return {
        "/": _root(),
        "/llm.txt": _read("Llm", "Everything for agents", "Models, prices, how to run and collect, on one page.",
                          {_PLAIN: _AS_TEXT}),
        "/llms.txt": _read("Llms", "The index for agents", "In the format of llmstxt.org.", {_PLAIN: _AS_TEXT}),
        "/.well-known/ai-plugin.json": _read("PluginManifest", "The plugin manifest", "For tools that look for one.",
                                             {JSON: _OBJECT}),
        "/models/{page}": _read("ModelPage", "A model in Markdown", "Its inputs, prices, limits and an example.",
                                {_MARKDOWN: _AS_TEXT}, no_page, parameter=page),
        "/docs": _read("Docs", "The documentation", "For people.", {_HTML: _AS_TEXT}, headers=_PAGE),
        "/docs/reference": _read("Reference", "This document, to try out", "For people.", {_HTML: _AS_TEXT},
                                 headers=_PAGE),
        "/docs/assets/{name}": _read("DocsAsset", "A file of the documentation", "Styles, scripts, the logo.",
                                     dict.fromkeys(kinds, _AS_TEXT), no_file, parameter=asset),
        "/skill/{name}": _read("SkillFile", "A file of the agent skill", "By its name without folders.",
                               {_PLAIN: _AS_TEXT, _MARKDOWN: _AS_TEXT}, no_part, parameter=part),
        "/api/v1/skill": _skill(),
    }  # fmt: skip
