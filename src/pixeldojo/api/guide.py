"""The documents about the service: for agents (`/llm.txt`, …), for people (`/docs`), the agent skill. Public.

They are made when they are first asked for, and kept: they change with the catalogue and the address alone. Making one
takes tens of milliseconds, so that happens beside the event loop.
"""

import functools
import gzip
import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from litestar import HttpMethod, Response, route
from litestar.params import FromPath

from pixeldojo import __version__, errors
from pixeldojo.api.assets import names_tag
from pixeldojo.api.openapi import _run_names as run_names
from pixeldojo.api.respond import JSON, ApiRequest, base_url, header, reply
from pixeldojo.assets.signing import Signer
from pixeldojo.catalogue.card import Card
from pixeldojo.catalogue.service import Catalogue
from pixeldojo.guide import assets, pages, skill
from pixeldojo.guide.place import Answers, Place
from pixeldojo.guide.samples import sample_input
from pixeldojo.house import House
from pixeldojo.jobs.service import Job, Receipt
from pixeldojo.jobs.view import View

_READ = [HttpMethod.GET, HttpMethod.HEAD]
_TEXT, _MARKDOWN, _HTML = ("text/plain", "text/markdown", "text/html")  # the framework adds the charset
_SHORT, _FOR_EVER = "public, max-age=300", "public, max-age=31536000, immutable"
_MADE_MS = 1_737_547_200_000
_DAY_MS = 24 * 3600 * 1000
_CLOSED = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; script-src 'self'"


class Page(NamedTuple):
    """A finished document, plain and packed."""

    body: bytes
    packed: bytes
    media_type: str
    tag: str


def _page(text: str | bytes, media_type: str) -> Page:
    body = text.encode() if isinstance(text, str) else text
    return Page(body, gzip.compress(body, mtime=0), media_type, hashlib.sha256(body).hexdigest()[:20])


def _answers(address: str, card: Card) -> Answers:
    """An example of the receipt and of the completed job for a model, rendered as real ones are."""
    params = card.defaults | sample_input(card)
    seed = int(params.setdefault("seed", 7)) if "seed" in card.schema["properties"] else 7
    count = int(params.get("num_outputs", 1)) if card.modality == "image" else 1
    name, form = "job_01948de236004f1c0d3e5b7a9c8d6e2f", "mp4" if card.modality == "video" else "png"
    form = str(params.get("format", form))
    made: list[dict[str, Any]] = [
        {"key": f"{name}/{number}.{form}", "type": card.modality, "contentType": f"{card.modality}/{form}",
         "width": 512, "height": 512, "bytes": 204_800}
        for number in range(count)
    ]  # fmt: skip
    for number, asset in enumerate(made):
        if card.modality == "video":
            asset["durationSeconds"] = float(params.get("duration", 1))
        asset["seed"] = seed + number
    job = Job(
        id=name, account_id="", key_id="", model=card.api_id, modality=card.modality, status="pending",
        input=msgspec.json.encode(params).decode(), webhook_url=None, cost_milli=card.price.milli(params),
        refunded_milli=0, progress_ppm=0, attempt=0, error_code=None, error_message=None, assets=None, engine_ms=None,
        created_ms=_MADE_MS, started_ms=None, completed_ms=None, expires_ms=_MADE_MS + _DAY_MS,
    )  # fmt: skip
    ended = job._replace(
        status="completed", assets=msgspec.json.encode(made).decode(), engine_ms=850, started_ms=_MADE_MS + 40,
        completed_ms=_MADE_MS + 900, expires_ms=_MADE_MS + 900 + _DAY_MS,
    )  # fmt: skip
    view = View(signer=Signer("example"), base_url=address)
    return view.receipt(Receipt(job, balance_milli=100_000 - job.cost_milli, replayed=False)), view.job(ended)


@functools.lru_cache(maxsize=4)
def _operations(catalogue: Catalogue) -> dict[str, str]:
    kinds = {card.api_id: card.modality for card in catalogue.cards}
    return {api_id: f"#/{kinds[api_id]}/{name}" for api_id, name in run_names(catalogue.cards).items()}


def _place(request: ApiRequest) -> Place:
    house: House = request.app.state.house
    address = base_url(request)
    return Place(
        catalogue=house.catalogue,
        address=address,
        version=__version__,
        rate_limit=house.settings.rate_limit,
        retention_s=house.settings.retention_s,
        contact_email=house.settings.contact_email,
        answers=functools.partial(_answers, address),
        operations=_operations(house.catalogue),
    )


@functools.lru_cache(maxsize=64)  # bounded: the address may come from the request's Host header
def _made(kind: str, place: Place, name: str = "") -> Page:
    match kind:
        case "llm":
            return _page(pages.llm(place), _TEXT)
        case "index":
            return _page(pages.index(place), _TEXT)
        case "manifest":
            return _page(msgspec.json.encode(pages.manifest(place)), JSON)
        case "model":
            return _page(pages.model(place, place.catalogue.card(name)), _MARKDOWN)
        case "skill":
            return _page(skill.files(place)[name], _TEXT if name.endswith(".sh") else _MARKDOWN)
        case "docs":
            return _page(pages.docs(place), _HTML)
    return _page(pages.reference(place), _HTML)


@functools.lru_cache(maxsize=len(assets.NAMES))
def _asset(name: str) -> Page:
    found = assets.read(name)
    return _page(found.body, found.media_type)


def _send(
    request: ApiRequest, page: Page, *, keep: str = _SHORT, headers: Mapping[str, str] | None = None
) -> Response[bytes]:
    """The document, packed for whoever takes it so, or 304 for whoever has it."""
    packs = "gzip" in (header(request, b"accept-encoding") or "")
    tag = f'"{page.tag}-gz"' if packs else f'"{page.tag}"'
    more = {
        "Access-Control-Allow-Origin": "*",
        "Cache-Control": keep,
        "ETag": tag,
        "Vary": "Accept-Encoding",
        "X-Content-Type-Options": "nosniff",
        **(headers or {}),
    }
    if names_tag(header(request, b"if-none-match") or "", tag):
        return Response(b"", status_code=304, headers=more, media_type=page.media_type)
    if packs:
        more["Content-Encoding"] = "gzip"
    body = page.packed if packs else page.body
    more["Content-Length"] = str(len(body))
    content = b"" if request.method == "HEAD" else body
    return Response(content, headers=more, media_type=page.media_type)


@route("/", http_method=_READ, sync_to_thread=False)
def get_root(request: ApiRequest) -> Response[bytes]:
    """A browser is led to the documentation, a program is told where everything is."""
    place = _place(request)
    if "text/html" in (header(request, b"accept") or ""):
        return Response(b"", status_code=302, headers={"Location": f"{place.root}/docs", "Vary": "Accept"})
    where = {
        "name": "PixelDojo", "version": __version__, "api": place.api, "models": f"{place.api}/models",
        "openapi": f"{place.api}/openapi.json", "llm": f"{place.address}/llm.txt", "docs": f"{place.address}/docs",
        "mcp": f"{place.address}/mcp", "skill": f"{place.address}/skill/SKILL.md",
    }  # fmt: skip
    return reply(where, headers={"Vary": "Accept"})


@route("/llm.txt", http_method=_READ, sync_to_thread=True)
def get_llm(request: ApiRequest) -> Response[bytes]:
    """All that an agent needs, on one page."""
    return _send(request, _made("llm", _place(request)))


@route("/llms.txt", http_method=_READ, sync_to_thread=True)
def get_llms(request: ApiRequest) -> Response[bytes]:
    """The index of what there is to read."""
    return _send(request, _made("index", _place(request)))


@route("/.well-known/ai-plugin.json", http_method=_READ, sync_to_thread=True)
def get_manifest(request: ApiRequest) -> Response[bytes]:
    """The plugin manifest."""
    return _send(request, _made("manifest", _place(request)))


@route("/models/{page:str}", http_method=_READ, sync_to_thread=True)
def get_model_page(request: ApiRequest, page: FromPath[str]) -> Response[bytes]:
    """`{apiId}.md`: one model, in Markdown."""
    api_id, dot, kind = page.rpartition(".")
    if not dot or kind != "md":
        raise errors.NotFound(f"There is no page {page[:80]!r}; a model's page is /models/{{apiId}}.md.")
    place = _place(request)
    place.catalogue.card(api_id)
    return _send(request, _made("model", place, api_id))


@route("/docs", http_method=_READ, sync_to_thread=True)
def get_docs(request: ApiRequest) -> Response[bytes]:
    """The documentation, for people."""
    rules = f"{_CLOSED}; style-src 'self'; img-src 'self' data:; connect-src 'self'"
    return _send(request, _made("docs", _place(request)), headers=_guarded(rules))


@route("/docs/reference", http_method=_READ, sync_to_thread=True)
def get_reference(request: ApiRequest) -> Response[bytes]:
    """Every operation, to be tried out. Its own calls go to the address in the OpenAPI document."""
    place = _place(request)
    rules = (
        f"{_CLOSED}; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' blob:;"
        f" connect-src 'self' {place.address}"
    )
    return _send(request, _made("reference", place), headers=_guarded(rules))


def _guarded(rules: str) -> dict[str, str]:
    return {"Content-Security-Policy": rules, "Referrer-Policy": "no-referrer"}


@route("/docs/assets/{name:str}", http_method=_READ, sync_to_thread=True)
def get_docs_asset(request: ApiRequest, name: FromPath[str]) -> Response[bytes]:
    """A file that the pages load."""
    if name not in assets.NAMES:
        raise errors.NotFound(f"There is no file {name[:80]!r} for the documentation.")
    keep = _FOR_EVER if request.query_params.get("v") == assets.read(name).version else _SHORT
    return _send(request, _asset(name), keep=keep)


@route("/skill/{name:str}", http_method=_READ, sync_to_thread=True)
def get_skill_file(request: ApiRequest, name: FromPath[str]) -> Response[bytes]:
    """A file of the agent skill by its last name: `SKILL.md`, `pixeldojo.sh`, …"""
    place = _place(request)
    paths = {path.rpartition("/")[2]: path for path in skill.files(place)}
    if name not in paths:
        raise errors.NotFound(f"The skill has no file {name[:80]!r}; there are {', '.join(paths)}.")
    return _send(request, _made("skill", place, paths[name]))


@route("/api/v1/skill", http_method=[HttpMethod.GET], sync_to_thread=True)
def get_skill(request: ApiRequest) -> Response[bytes]:
    """The whole agent skill, for whoever installs it."""
    files = [
        {"path": path, "text": text, "executable": path.endswith(".sh")}
        for path, text in skill.files(_place(request)).items()
    ]
    return reply({"name": skill.NAME, "files": files})


ROUTES = (
    get_root, get_llm, get_llms, get_manifest, get_model_page, get_docs, get_reference, get_docs_asset,
    get_skill_file, get_skill,
)  # fmt: skip
