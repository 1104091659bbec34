"""The documents over HTTP and as texts: they say what the catalogue says, whatever is in it."""

import asyncio
import dataclasses
import gzip
import html
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from exact import Exact
from pixeldojo import app, errors
from pixeldojo.api import app as api
from pixeldojo.api import openapi
from pixeldojo.catalogue import card as cards
from pixeldojo.catalogue.card import Card
from pixeldojo.catalogue.service import Catalogue
from pixeldojo.guide import inputs, methods, remedies
from pixeldojo.settings import Settings

BASE = "http://dojo.test:8787"
PAGES = [
    "/", "/llm.txt", "/llms.txt", "/.well-known/ai-plugin.json", "/models/dojo-mini.md", "/docs", "/docs/reference",
    "/docs/assets/docs.css", "/docs/assets/docs.js", "/docs/assets/logo.svg", "/docs/assets/swagger-ui-bundle.js",
    "/docs/assets/swagger-ui-LICENSE.txt", "/skill/SKILL.md", "/skill/pixeldojo.sh",
]  # fmt: skip
TEXTS = ["/llm.txt", "/llms.txt", "/docs", "/skill/SKILL.md", "/.well-known/ai-plugin.json", "/skill/models.md"]


def card(api_id: str, **more: Any) -> Card:
    given: dict[str, Any] = {
        "apiId": api_id, "name": api_id.title(), "description": "Draws.", "modality": "image",
        "capabilities": ["text-to-image"], "price": {"type": "fixed", "amount": 2}, "engine": {"family": "testcard"},
        "schema": {"type": "object", "additionalProperties": False, "required": ["prompt"],
                   "properties": {"prompt": {"type": "string"}}},
    }  # fmt: skip
    return msgspec.convert(given | more, Card)


FILM = card(
    "film", modality="video", capabilities=["text-to-video"], price={"type": "per_second", "amount": 1.5},
    schema={"type": "object", "additionalProperties": False, "required": ["prompt"], "properties": {
        "prompt": {"type": "string"},
        "duration": {"type": "number", "minimum": 1, "maximum": 10, "default": 5},
    }},
)  # fmt: skip
GRAND = card(
    "grand", price={"type": "by_resolution", "parameter": "size", "amounts": {"1K": 1, "2K": 1.5}},
    schema={
        "type": "object", "additionalProperties": False, "required": ["prompt"],
        "$defs": {"size": {"enum": ["1K", "2K"]}, "loop": {"$ref": "#/$defs/loop"}},
        "properties": {
            "size": {"$ref": "#/$defs/size", "default": "1K", "description": "How | big."},
            "prompt": {"type": "string", "minLength": 1},
            "num_outputs": {"type": "integer", "minimum": 1, "maximum": 3, "default": 1},
            "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 4},
            "strength": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 1},
            "mode": {"const": "plain"}, "odd": {"$ref": "#/$defs/loop"}, "step": {"type": "integer", "multipleOf": 8},
        },
    },
)  # fmt: skip
BIGGER = card(
    "bigger", capabilities=["upscale"],
    schema={
        "type": "object", "additionalProperties": False, "required": ["image_url", "scale", "style"],
        "properties": {
            "image_url": {"type": "string", "format": "uri", "x-input": "image"},
            "scale": {"type": "integer", "minimum": 2, "maximum": 4}, "style": {"type": "string", "enum": ["soft"]},
        },
    },
)  # fmt: skip
NASTY = card(
    "nasty", name="<b>Nasty</b>", description='"><script>alert(1)</script> `x` | y',
    examples=[{"prompt": "it's $(touch owned) `touch owned` \"q\" \\ ${HOME}"}],
)  # fmt: skip


class Door:
    """The app over an open house with a catalogue of the test's own."""

    def __init__(self, house: Any, runner: asyncio.Runner) -> None:
        self.house, self.runner = house, runner
        self._app: Any = api.build(house)

    def at(self, *listed: Card, **settings: Any) -> Any:
        changed = dataclasses.replace(self.house.settings, **settings)
        return api.build(dataclasses.replace(self.house, catalogue=Catalogue(listed), settings=changed))

    def ask(self, url: str, *, method: str = "GET", at: Any = None, **more: Any) -> httpx2.Response:
        async def send() -> httpx2.Response:
            transport = httpx2.ASGITransport(at or self._app)
            async with httpx2.AsyncClient(transport=transport, base_url=BASE) as client:
                return await client.request(method, url, **more)

        return self.runner.run(send())


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    wanted = Settings(data_dir=tmp_path_factory.mktemp("house"), rate_limit="off")
    with asyncio.Runner() as runner:
        opening = app.open_house(wanted)
        yield Door(runner.run(opening.__aenter__()), runner)
        runner.run(opening.__aexit__(None, None, None))


@pytest.mark.parametrize("url", PAGES)
def test_get_head_and_the_tag(door: Door, url: str) -> None:
    exact = Exact(openapi.document(door.house.catalogue, base_url=BASE))
    plain = door.ask(url, headers={"accept-encoding": "identity", "accept": "*/*"})
    assert plain.status_code == 200 and plain.content
    head = door.ask(url, method="HEAD", headers={"accept-encoding": "identity", "accept": "*/*"})
    assert head.content == b"" and head.status_code == 200
    assert head.headers["content-length"] == plain.headers["content-length"] == str(len(plain.content))
    exact.response("GET", plain)
    exact.response("HEAD", head)
    if url == "/":
        return
    assert plain.headers["cache-control"].startswith("public, max-age=")
    packed = door.ask(url, headers={"accept-encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip" and packed.content == plain.content
    assert packed.headers["etag"] != plain.headers["etag"]
    assert int(packed.headers["content-length"]) <= len(gzip.compress(plain.content)) + 16
    same = {"if-none-match": f'"other", W/{plain.headers["etag"]}', "accept-encoding": "identity"}
    for method in ("GET", "HEAD"):
        known = door.ask(url, method=method, headers=same)
        assert known.status_code == 304 and known.content == b""
        exact.response(method, known)


@pytest.mark.parametrize(
    "url", ["/models/nothing.md", "/models/dojo-mini", "/models/testcard.md", "/docs/assets/x.js", "/skill/x"]
)
def test_what_is_not_there(door: Door, url: str) -> None:
    exact = Exact(openapi.document(door.house.catalogue, base_url=BASE))
    lost = door.ask(url)
    assert lost.status_code == 404 and lost.json()["error"]["code"] == "not_found"
    exact.response("GET", lost)


def test_the_types_are_what_readers_expect(door: Door) -> None:
    kinds = {url: door.ask(url).headers["content-type"].partition(";")[0] for url in PAGES}
    assert kinds["/llm.txt"] == kinds["/llms.txt"] == "text/plain"
    assert kinds["/models/dojo-mini.md"] == kinds["/skill/SKILL.md"] == "text/markdown"
    assert kinds["/docs"] == kinds["/docs/reference"] == "text/html"
    assert kinds["/docs/assets/docs.js"] == "text/javascript" and kinds["/docs/assets/docs.css"] == "text/css"


def test_the_root_leads_browsers_and_tells_programs(door: Door) -> None:
    exact = Exact(openapi.document(door.house.catalogue, base_url=BASE))
    browser = door.ask("/", headers={"accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert (browser.status_code, browser.headers["location"]) == (302, "/docs")
    exact.response("GET", browser)
    told = door.ask("/", headers={"accept": "application/json"}).json()
    assert told["openapi"] == f"{BASE}/api/v1/openapi.json"
    for name in ("docs", "llm", "models", "openapi", "skill"):
        assert door.ask(told[name]).status_code == 200, name


@pytest.mark.parametrize("url", TEXTS)
def test_they_name_the_models_that_can_run_and_no_others(door: Door, url: str) -> None:
    text = door.ask(url).text
    assert "dojo-mini" in text and "testcard" not in text
    more = door.ask(url, at=door.at(*cards.read_all(None), FILM)).text
    assert "testcard" in more and "film" in more


@pytest.mark.parametrize("url", [*TEXTS, "/models/dojo-mini.md", "/", "/api/v1/skill"])
def test_they_give_the_address_that_was_asked_or_the_public_one(door: Door, url: str) -> None:
    assert BASE in door.ask(url).text
    other = door.ask(url, headers={"host": "other.test"}).text
    assert "http://other.test" in other and BASE not in other
    public = door.ask(url, at=door.at(*door.house.catalogue.cards, public_url="https://pictures.test/dojo/")).text
    assert "https://pictures.test/dojo" in public and BASE not in public and "dojo//" not in public


@pytest.mark.parametrize("host", ["x$(id)", 'a"b', "a;b", "<b>", "a'b", "a b"])
@pytest.mark.parametrize("url", ["/llm.txt", "/docs", "/docs/reference", "/skill/pixeldojo.sh"])
def test_a_host_that_is_none_reaches_no_sample(door: Door, url: str, host: str) -> None:
    answer = door.ask(url, headers={"host": host})
    assert f"//{host}" not in html.unescape(answer.text)
    assert host not in answer.headers.get("content-security-policy", "")


def test_llm_txt_says_all_that_the_catalogue_says(door: Door) -> None:
    listed = [*cards.read_all(None), FILM, GRAND]
    text = door.ask("/llm.txt", at=door.at(*listed)).text
    for each in listed:
        part = text[text.index(f"\n### {each.api_id}\n") :]
        for needed in (each.name, each.description, *each.capabilities, *each.use_cases, *each.limits):
            assert needed in part, (each.api_id, needed)
        for name in each.schema["properties"]:
            assert f"\n  - {name}: " in part
    for error in errors.TABLE:
        assert f"- {error.status} {error.code}: " in text
    assert len(text) < 20_000, "about four characters a token: it must fit beside a task"
    assert "60 requests per minute" not in text
    assert "60 requests per minute" in door.ask("/llm.txt", at=door.at(rate_limit="60/minute")).text
    assert "within 2 hours" in door.ask("/llm.txt", at=door.at(retention_s=7200)).text
    assert "within 90 seconds" in door.ask("/llm.txt", at=door.at(retention_s=90)).text


def test_llms_txt_is_an_index(door: Door) -> None:
    lines = door.ask("/llms.txt").text.splitlines()
    assert lines[0].startswith("# ") and lines[2].startswith("> ")
    links = re.findall(r"^- \[[^]]+\]\((\S+)\): .+$", "\n".join(lines), re.M)
    assert len(links) == len([line for line in lines if line.startswith("- ")]) >= 9
    for link in links:
        if not link.endswith("/mcp"):
            assert door.ask(link).status_code == 200, link


def test_the_manifest(door: Door) -> None:
    told = door.ask("/.well-known/ai-plugin.json", at=door.at(contact_email="ask@pictures.test")).json()
    assert told["schema_version"] == "v1" and told["contact_email"] == "ask@pictures.test"
    assert len(told["name_for_human"]) <= 20 and re.fullmatch(r"\w{1,50}", told["name_for_model"])
    assert len(told["description_for_human"]) <= 100
    assert door.ask(told["api"]["url"]).json()["openapi"] == "3.1.0"
    assert door.ask(told["logo_url"]).headers["content-type"].startswith("image/svg+xml")
    assert f'id="{told["legal_info_url"].partition("#")[2]}"' in door.ask("/docs").text


def test_a_models_page_works_out_its_prices_and_its_inputs(door: Door) -> None:
    at = door.at(FILM, GRAND)
    film = door.ask("/models/film.md", at=at).text
    assert "| everything at its default | 7.5 |" in film
    assert '| `{"duration": 1}` | 1.5 |' in film and '| `{"duration": 10}` | 15 |' in film
    grand = door.ask("/models/grand.md", at=at).text
    assert '| `{"size": "2K"}` | 1.5 |' in grand and '| `{"num_outputs": 3}` | 3 |' in grand
    rows = {row.name: row for row in inputs.inputs(GRAND)}
    assert next(iter(rows)) == "prompt" and rows["prompt"].required and rows["prompt"].allowed == "not empty"
    assert (rows["size"].type, rows["size"].allowed, rows["size"].default) == ("string", "one of 1K 2K", '"1K"')
    assert (rows["tags"].type, rows["tags"].allowed) == ("list of string", "at most 4 items")
    assert (rows["strength"].type, rows["strength"].allowed) == ("number or null", "at most 1, more than 0")
    assert rows["mode"].allowed == '"plain"' and rows["step"].allowed == "a multiple of 8"
    assert "How \\| big." in grand


def test_example_answers_are_what_the_api_answers(door: Door) -> None:
    listed = [*cards.read_all(None), FILM, GRAND]
    exact = Exact(openapi.document(Catalogue(listed), base_url=BASE))
    for each in listed:
        text = door.ask(f"/models/{each.api_id}.md", at=door.at(*listed)).text
        receipt, job = (json.loads(found) for found in re.findall(r"```json\n(.*?)```", text, re.S))
        exact.validate({"$ref": "#/components/schemas/Receipt"}, receipt)
        exact.validate({"$ref": "#/components/schemas/Job"}, job)
        assert job["model"] == each.api_id
        assert job["creditCost"] == receipt["creditCost"] == inputs.worked(each)[0].credits


def test_what_a_model_requires_is_in_its_example(door: Door) -> None:
    page = door.ask("/models/bigger.md", at=door.at(BIGGER)).text
    body = re.search(r"```http\n.*?\n\n(.*?)\n```", page, re.S)
    assert body and Catalogue([BIGGER]).order("bigger", json.loads(body[1])).params["scale"] == 2
    assert "`image_url` (required) | image (https URL or data URI)" in page


def test_a_card_can_break_no_page(door: Door) -> None:
    at = door.at(NASTY)
    page = door.ask("/docs", at=at).text
    assert "<script>alert" not in page and "<b>Nasty" not in page and "&lt;b&gt;Nasty&lt;/b&gt;" in page
    assert page.count("<script") == 1
    assert "\\| y" not in door.ask("/llm.txt", at=at).text


def test_the_samples_of_a_nasty_card_are_harmless(door: Door, tmp_path: Path) -> None:
    text = door.ask("/llm.txt", at=door.at(NASTY)).text
    bodies = re.findall(r"^  -d ('.*')(?: \||$| \|)", text, re.M)
    assert len(bodies) >= 2
    for quoted in bodies:
        word = quoted.split(" | ")[0].removesuffix(")")
        done = subprocess.run(["sh", "-c", f"printf %s {word}"], cwd=tmp_path, capture_output=True, check=True)
        assert json.loads(done.stdout)["prompt"] == NASTY.examples[0]["prompt"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("url", [*TEXTS, "/", "/docs/reference", "/api/v1/skill"])
def test_without_any_model(door: Door, url: str) -> None:
    assert door.ask(url, at=door.at()).status_code == 200


def test_a_page_loads_nothing_from_elsewhere(door: Door) -> None:
    for url in ("/docs", "/docs/reference"):
        answer = door.ask(url)
        rules = answer.headers["content-security-policy"]
        assert "default-src 'none'" in rules and "script-src 'self'" in rules and "https:" not in rules
        loaded = re.findall(r"<(?:script|link|img)[^>]* (?:src|href)=\"([^\"]+)\"", answer.text)
        assert loaded and all(each.startswith("/") for each in loaded)
        for each in loaded:
            found = door.ask(each)
            assert found.status_code == 200
            if "/assets/" in each:
                assert "immutable" in found.headers["cache-control"]
        assert "style=" not in answer.text and "<script>" not in answer.text
    sheet = door.ask("/docs/assets/docs.css").text + door.ask("/docs/assets/docs.js").text
    assert "http" not in sheet and "@import" not in sheet
    assert "immutable" not in door.ask("/docs/assets/docs.css?v=000000000000").headers["cache-control"]


def test_below_a_path_of_a_proxy(door: Door) -> None:
    at = door.at(*door.house.catalogue.cards, public_url="https://pictures.test/dojo/")
    for url in ("/docs", "/docs/reference"):
        page = door.ask(url, at=at).text
        inside = re.findall(r'(?:href|src|data-[\w-]+)="(/[^"]*)"', page)
        assert inside and all(each.startswith("/dojo/") for each in inside)
    assert door.ask("/", at=at, headers={"accept": "text/html"}).headers["location"] == "/dojo/docs"


def test_every_link_and_name_on_the_page_leads_somewhere(door: Door) -> None:
    page = door.ask("/docs").text
    names = re.findall(r' id="([^"]+)"', page)
    assert len(names) == len(set(names))
    for target in set(re.findall(r'href="#([^"]+)"', page)):
        assert target in names, target
    document = door.ask("/api/v1/openapi.json").json()
    operations = {
        f"{each['tags'][0]}/{each['operationId']}" for item in document["paths"].values() for each in item.values()
    }
    for target in set(re.findall(r'href="/docs/reference#/([^"]+)"', page)):
        assert target in operations, target
    routes = {f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item}
    assert {route for route, _, _ in methods.ROUTES} <= routes


def test_the_list_of_methods_is_that_of_the_sdks() -> None:
    root = Path(__file__).parents[2] / "sdks"
    typescript = "".join(path.read_text() for path in (root / "typescript/src").glob("*.ts"))
    python = "".join(path.read_text() for path in (root / "python/src/pixeldojo_sdk").glob("*.py"))
    for ts, py, _ in methods.METHODS:
        assert re.search(rf"(async |async \*|function |\*){ts.partition('(')[0]}[(<]", typescript), ts
        assert re.search(rf"\b{py.partition('(')[0]}\b( = |\()", python), py


def test_every_error_has_a_remedy() -> None:
    assert [fault.code for fault in remedies.FAULTS] == [error.code for error in errors.TABLE]
    assert set(remedies.REMEDIES) == {error.code for error in errors.TABLE}


def test_what_is_vendored_is_licensed() -> None:
    root = Path(__file__).parents[2]
    folder = root / "src/pixeldojo/guide/assets/swagger-ui"
    assert "Apache License" in (folder / "LICENSE").read_text()
    assert "Swagger UI" in (root / "NOTICE").read_text()
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2_000_000
