"""The OpenAPI document against the app: every route is in it, and every real answer is what it says."""

import asyncio
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import jsonschema_rs
import msgspec
import openapi_spec_validator
import pytest

from doors.test_api_account import NEEDS, PUBLIC
from exact import Exact
from pixeldojo import app, clock, errors
from pixeldojo.accounts import service as accounts
from pixeldojo.api import app as api
from pixeldojo.api import openapi
from pixeldojo.assets.signing import Signer
from pixeldojo.catalogue import card as cards
from pixeldojo.catalogue.service import Catalogue
from pixeldojo.db import Tx
from pixeldojo.house import House
from pixeldojo.jobs import service as jobs
from pixeldojo.jobs.view import View
from pixeldojo.ledger import service as ledger
from pixeldojo.settings import Settings
from pixeldojo.worker.worker import Worker

BASE = "http://dojo.test:8787"
DOCUMENT = "/api/v1/openapi.json"
RUN = "/api/v1/models/testcard/run"
METHODS = ("get", "post", "put", "patch", "delete", "head")

RESOLUTIONS: dict[str, Any] = {
    "apiId": "grand-1.0", "name": "Grand", "description": "Big.", "modality": "image", "capabilities": ["upscale"],
    "price": {"type": "by_resolution", "parameter": "size", "amounts": {"1K": 1, "2K": 1.5}},
    "engine": {"family": "testcard"},
    "schema": {
        "type": "object", "additionalProperties": False,
        "properties": {
            "size": {"$ref": "#/$defs/size", "default": "1K"},
            "also": {"anyOf": [{"$ref": "#/$defs/size"}]},
        },
        "$defs": {"size": {"enum": ["1K", "2K"]}},
    },
    "examples": [{"size": "2K"}],
}  # fmt: skip
SECONDS: dict[str, Any] = {
    "apiId": "grand-1-0", "name": "Film", "description": "Moves.", "modality": "video",
    "capabilities": ["text-to-video"], "price": {"type": "per_second", "amount": 1.5},
    "engine": {"family": "testcard"},
    "schema": {
        "type": "object", "additionalProperties": False, "required": ["prompt"],
        "properties": {"prompt": {"type": "string"}, "duration": {"type": "number", "default": 5}},
    },
}  # fmt: skip


def _fund(tx: Tx, name: str, amount_milli: int) -> str:
    account = accounts.create_account(tx, name=name)
    if amount_milli:
        ledger.grant(tx, account_id=account.id, amount_milli=amount_milli)
    return accounts.create_key(tx, account_id=account.id, name="test")[1]


class Service:
    """An open house with the test card, its app, and a client; nothing works on jobs unless a test does."""

    def __init__(self, house: House, runner: asyncio.Runner, *, rich: str, poor: str) -> None:
        self.house, self.runner = house, runner
        self.rich, self.poor = ({"authorization": f"Bearer {key}"} for key in (rich, poor))
        self.app: Any = api.build(house)
        self.document = self.ask("GET", DOCUMENT).json()
        self.exact = Exact(self.document)

    def ask(self, method: str, url: str, *, at: Any = None, **more: Any) -> httpx2.Response:
        """The app's answer, `at` another app if given."""

        async def send() -> httpx2.Response:
            async with httpx2.AsyncClient(transport=httpx2.ASGITransport(at or self.app), base_url=BASE) as client:
                return await client.request(method, url, **more)

        return self.runner.run(send())

    def meets(self, status: int, method: str, url: str, **more: Any) -> Any:
        """The body of an answer with this status, which the document describes in every respect."""
        response = self.ask(method, url, **more)
        assert response.status_code == status, response.text
        self.exact.response(method, response)
        return response.json() if response.headers.get("content-type") == "application/json" else response.content

    def submit(self, prompt: str, **more: Any) -> Any:
        return self.meets(202, "POST", RUN, json={"prompt": prompt, **more}, headers=self.rich)

    def work(self) -> None:
        """Work on the pending jobs, all at once, until they end."""

        async def work() -> None:
            worker = Worker(self.house, [self.house.catalogue.card("testcard")])
            await worker.step()
            await worker.idle()
            task = asyncio.create_task(worker.run())  # its way out ends the engines' processes
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self.runner.run(work())


def _walk(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _walk(each)


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for item in document["paths"].values():
        yield from (item[method] for method in METHODS if method in item)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    settings = Settings(data_dir=tmp_path_factory.mktemp("house"), testcard=True, rate_limit="off")
    with asyncio.Runner() as runner:
        opening = app.open_house(settings)
        house = runner.run(opening.__aenter__())
        rich = runner.run(house.db.write(_fund, "rich", 1_000_000))
        poor = runner.run(house.db.write(_fund, "poor", 0))
        yield Service(house, runner, rich=rich, poor=poor)
        runner.run(opening.__aexit__(None, None, None))


def _catalogue(*more: dict[str, Any]) -> Catalogue:
    return Catalogue([*cards.read_all(None), *(msgspec.convert(each, type=cards.Card) for each in more)])


@pytest.mark.parametrize("catalogue", [_catalogue(), _catalogue(RESOLUTIONS, SECONDS), Catalogue([])])
def test_the_document_is_openapi_3_1_and_its_references_lead_somewhere(catalogue: Catalogue) -> None:
    document = openapi.document(catalogue, base_url=BASE)
    openapi_spec_validator.OpenAPIV31SpecValidator(document).validate()
    exact = Exact(document)
    used = {each["$ref"] for each in _walk(document) if isinstance(each.get("$ref"), str)}
    for pointer in used:
        assert exact.find(pointer), pointer
    for kind in ("schemas", "responses", "parameters", "headers"):
        for name in document["components"][kind]:
            assert f"#/components/{kind}/{name}" in used, f"{name} is not used"
    names = [each["operationId"] for each in _operations(document)]
    assert len(names) == len(set(names))


def test_every_field_parameter_and_header_is_described(service: Service) -> None:
    components = service.document["components"]
    for name, schema in components["schemas"].items():
        assert schema.get("description") or name.endswith("-input"), name
        for each in _walk(schema):
            for field, inside in each.get("properties", {}).items():
                assert service.exact.full(inside).get("description"), f"{name}.{field}"
    for each in (*components["parameters"].values(), *components["headers"].values()):
        assert each["description"]
    for operation in _operations(service.document):
        assert operation["summary"], operation["operationId"]
        assert operation["description"]
        assert all(service.exact.full(each)["description"] for each in operation["responses"].values())
        assert set(operation["tags"]) <= {tag["name"] for tag in service.document["tags"]}


def test_every_route_is_documented_and_every_documented_route_exists(service: Service) -> None:
    def camel(found: re.Match[str]) -> str:
        return "{" + re.sub(r"_(\w)", lambda letter: letter[1].upper(), found[1]) + "}"

    routes = {
        (method.lower(), re.sub(r"\{(\w+):\w+\}", camel, route.path))
        for route in vars(service.app)["_app"].routes
        for method in route.methods
        if method != "OPTIONS"
    }
    own = {f"/api/v1/models/{card.api_id}/run" for card in service.house.catalogue.cards}
    documented = {
        (method, path) for path, item in service.document["paths"].items() for method in item if method in METHODS
    }
    assert {each for each in documented if each[1] not in own} == routes
    assert {path for _, path in documented} >= own


def test_options_say_what_the_document_says(service: Service) -> None:
    for path, item in service.document["paths"].items():
        answer = service.ask("OPTIONS", re.sub(r"\{\w+\}", "x", path))
        documented = {method.upper() for method in item if method in METHODS}
        assert set(answer.headers["allow"].split(", ")) == documented | {"OPTIONS"}, path


def test_each_operation_names_the_scope_it_needs(service: Service) -> None:
    def snake(found: re.Match[str]) -> str:
        return "{" + re.sub(r"[A-Z]", lambda letter: "_" + letter[0].lower(), found[1]) + "}"

    own = {f"/api/v1/models/{card.api_id}/run" for card in service.house.catalogue.cards}
    for path, item in service.document["paths"].items():
        for method in (each for each in item if each in METHODS):
            route = re.sub(r"{(.*?)}", snake, path)
            needs = "jobs:write" if path in own else NEEDS[f"{method.upper()} {route}"]
            expected: list[Any] = [] if needs == PUBLIC else [{"key": [needs]}]
            if item[method]["operationId"] == "revokeKey":  # any key may revoke itself
                expected = service.document["security"]
            assert item[method].get("security", service.document["security"]) == expected, (method, path)


def test_links_lead_from_real_answers_to_real_operations(service: Service) -> None:
    operations = {each["operationId"]: each for each in _operations(service.document)}
    found = 0
    for operation in operations.values():
        for response in (service.exact.full(each) for each in operation["responses"].values()):
            for link in response.get("links", {}).values():
                target = operations[link["operationId"]]
                names = {service.exact.full(each)["name"] for each in target["parameters"]}
                assert set(link["parameters"]) <= names, link
                shown = response["content"]["application/json"]["examples"]["example"]["value"]
                for pointer in link["parameters"].values():
                    value = shown
                    for part in pointer.removeprefix("$response.body#/").split("/"):
                        value = value[int(part) if isinstance(value, list) else part]
                    assert value is None or isinstance(value, str)
                found += 1
    assert found > 20


def test_every_error_code_is_listed_and_shown(service: Service) -> None:
    codes = {error.code for error in errors.TABLE}
    envelope = service.document["components"]["schemas"]["Error"]["properties"]["error"]
    assert set(envelope["properties"]["code"]["enum"]) == codes
    shown = {each["code"] for each in _walk(service.document) if isinstance(each.get("requestId"), str)}
    assert shown >= codes
    statuses = {error.code: str(error.status) for error in errors.TABLE}
    for operation in _operations(service.document):
        for status, response in operation["responses"].items():
            content = service.exact.full(response).get("content", {}).get("application/json", {})
            if status >= "400":
                assert content["examples"]
                assert all(status in (statuses[code], "416") for code in content["examples"])


@pytest.mark.parametrize("more", [(), (RESOLUTIONS, SECONDS)])
def test_examples_are_valid(more: tuple[dict[str, Any], ...]) -> None:
    exact = Exact(openapi.document(_catalogue(*more), base_url=BASE))
    checked = 0
    for content in (each for each in _walk(exact.document) if "schema" in each and "examples" in each):
        for example in content["examples"].values():
            exact.validate(content["schema"], example["value"])
            exact.validate(content["schema"], example["value"], closed=False)
            checked += 1
    assert checked > 40


def test_each_model_has_its_own_operation(service: Service) -> None:
    operation = service.exact.operation("post", "/api/v1/models/dojo-mini/run")
    card = service.meets(200, "GET", "/api/v1/models/dojo-mini")
    assert operation["operationId"] == "run_dojo_mini"
    assert operation["tags"] == ["image"]
    assert operation["x-pixeldojo-price"] == card["creditCost"]
    taken = {service.exact.full(each)["name"] for each in operation["parameters"]}
    assert taken == {"Idempotency-Key", "Prefer", "Cancel-After", "Start-Within"}
    answers = {status: service.exact.full(each) for status, each in operation["responses"].items()}
    assert set(answers) == {"200", "202", "400", "401", "402", "404", "429", "500"}
    for answer in answers.values():
        assert {"X-Request-Id", *(f"X-RateLimit-{each}" for each in ("Limit", "Remaining", "Reset"))} <= set(
            answer["headers"]
        )
    assert "Retry-After" in answers["429"]["headers"]
    assert {"Idempotent-Replayed", "Preference-Applied"} <= set(answers["200"]["headers"])
    content = operation["requestBody"]["content"]["application/json"]
    assert content["schema"] == {"$ref": "#/components/schemas/dojo-mini-input"}
    wanted = {name: each for name, each in card["requestSchema"].items() if name != "$schema"}
    assert service.exact.full(content["schema"]) == wanted
    assert [example["value"] for example in content["examples"].values()] == card["examples"]
    anything = service.exact.operation("post", "/api/v1/models/{apiId}/run")
    for example in card["examples"]:
        service.exact.validate(anything["requestBody"]["content"]["application/json"]["schema"], example, closed=False)


def test_models_of_every_price_and_their_schemas() -> None:
    catalogue = _catalogue(RESOLUTIONS, SECONDS)
    exact = Exact(openapi.document(catalogue, base_url=BASE))
    for card in catalogue.cards:
        exact.validate({"$ref": "#/components/schemas/Card"}, catalogue.view(card))
        exact.validate({"$ref": "#/components/schemas/DetailedCard"}, catalogue.detail(card))
    film = exact.operation("post", "/api/v1/models/grand-1-0/run")
    grand = exact.operation("post", "/api/v1/models/grand-1.0/run")
    assert (film["operationId"], grand["operationId"]) == ("run_grand_1_0", "run_grand_1_0_2")
    assert (film["tags"], grand["tags"]) == (["video"], ["image"])
    schema = grand["requestBody"]["content"]["application/json"]["schema"]
    exact.validate(schema, {"size": "2K", "also": "1K"})
    with pytest.raises(jsonschema_rs.ValidationError):
        exact.validate(schema, {"also": "3K"})


def test_a_completed_video_is_documented() -> None:
    catalogue = _catalogue(SECONDS)
    done = openapi._JOBS["completed"]
    asset = {**openapi._ASSET, "key": "k/0.mp4", "type": "video", "contentType": "video/mp4", "durationSeconds": 5.0}
    job = done._replace(modality="video", assets=msgspec.json.encode([asset]).decode())
    shown = msgspec.json.decode(msgspec.json.encode(View(signer=Signer("x"), base_url=BASE).job(job)))
    exact = Exact(openapi.document(catalogue, base_url=BASE))
    exact.validate({"$ref": "#/components/schemas/Job"}, shown)


def test_the_address_is_the_requests_own_or_the_public_one(service: Service) -> None:
    assert service.document["servers"][0]["url"] == BASE
    other = service.ask("GET", DOCUMENT, headers={"host": "other.test"}).json()
    assert other["servers"][0]["url"] == "http://other.test"
    assert other["paths"].keys() == service.document["paths"].keys()
    assert service.ask("GET", DOCUMENT).json() == service.document
    settings = dataclasses.replace(service.house.settings, public_url="https://pictures.test/")
    public = api.build(dataclasses.replace(service.house, settings=settings))
    assert service.ask("GET", DOCUMENT, at=public).json()["servers"][0]["url"] == "https://pictures.test"


def test_real_models_and_service_answers(service: Service) -> None:
    assert service.meets(200, "GET", DOCUMENT) == service.document
    assert service.meets(200, "GET", "/healthz")["status"] == "ok"
    assert service.meets(200, "GET", "/readyz")["models"] == 4
    assert service.meets(200, "GET", "/api/v1/models")["total"] == 4
    assert service.meets(200, "GET", "/api/v1/models?modality=video")["total"] == 1
    assert "requestSchema" in service.meets(200, "GET", "/api/v1/models?detailed=true&modality=image")["models"][0]
    assert service.meets(200, "GET", "/api/v1/models/testcard/schema")["apiId"] == "testcard"
    assert service.meets(400, "GET", "/api/v1/models?modality=sound")["error"]["code"] == "validation_error"
    assert service.meets(404, "GET", "/api/v1/models/nothing")["error"]["code"] == "not_found"
    assert service.meets(404, "GET", "/api/v1/models/nothing/schema")["error"]["code"] == "not_found"


def test_a_real_job_in_each_state(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    headers = service.rich
    first = service.submit("bars", num_outputs=2)
    url = first["statusUrl"]
    assert service.meets(200, "GET", url, headers=headers)["status"] == "pending"
    lease, held = service.runner.run(service.house.db.write(jobs.claim, free={"testcard": 1}, lease_s=60))
    beat = {held[0].id: jobs.Beat(lease, 0.25)}
    service.runner.run(service.house.db.write(jobs.heartbeat, held=beat, lease_s=60))
    assert service.meets(200, "GET", url, headers=headers)["progress"] == 0.25
    service.runner.run(service.house.db.write(jobs.release, job_id=first["jobId"], lease=lease, retention_s=60))
    refused = service.submit("!refuse")
    service.work()
    completed = service.meets(200, "GET", url, headers=headers)
    assert completed["status"] == "completed"
    failed = service.meets(200, "GET", refused["statusUrl"], headers=headers)
    assert failed["error"]["code"] == "validation_error"
    assert failed["creditsRefunded"] == 1

    page = service.meets(200, "GET", "/api/v1/jobs?limit=1", headers=headers)
    assert [job["jobId"] for job in page["jobs"]] == [refused["jobId"]]
    query = f"/api/v1/jobs?cursor={page['nextCursor']}&status=completed&model=testcard"
    assert service.meets(200, "GET", query, headers=headers)["nextCursor"] is None

    asset = completed["assets"][1]["url"]
    assert len(service.meets(200, "GET", asset)) == completed["assets"][1]["bytes"]
    assert service.meets(200, "HEAD", asset) == b""
    assert len(service.meets(206, "GET", asset, headers={"range": "bytes=0-9"})) == 10
    assert service.meets(206, "HEAD", asset, headers={"range": "bytes=0-9"}) == b""
    tag = service.ask("HEAD", asset).headers["etag"]
    assert service.meets(304, "GET", asset, headers={"if-none-match": tag}) == b""
    assert service.meets(416, "GET", asset, headers={"range": "bytes=9999999-"})["error"]["status"] == 416
    assert service.meets(404, "GET", asset[:-1] + "x")["error"]["code"] == "not_found"

    later = clock.now_ms() + 25 * 3600 * 1000
    monkeypatch.setattr(clock, "now_ms", lambda: later)
    assert service.meets(410, "GET", url, headers=headers)["error"]["code"] == "expired"
    assert service.meets(410, "GET", asset)["error"]["code"] == "expired"


def test_a_real_replay(service: Service) -> None:
    order: dict[str, Any] = {"json": {"prompt": "twice"}, "headers": {**service.rich, "idempotency-key": "once"}}
    first, second = (service.ask("POST", RUN, **order) for _ in range(2))
    service.exact.response("POST", second)
    assert second.headers["idempotent-replayed"] == "true"
    assert second.json() == first.json()


def test_real_errors(service: Service, tmp_path: Path) -> None:
    def code(status: int, method: str, url: str, **more: Any) -> str:
        body = service.meets(status, method, url, **more)["error"]
        assert body["status"] == status
        return str(body["code"])

    rich, poor, body = service.rich, service.poor, {"prompt": "bars"}
    assert code(401, "POST", RUN, json=body) == "unauthorized"
    assert code(401, "GET", "/api/v1/jobs") == "unauthorized"
    assert code(401, "GET", "/api/v1/jobs/job_abc123", headers={"authorization": "Bearer pd_x"}) == "unauthorized"
    assert code(400, "POST", RUN, content=b"{", headers=rich) == "invalid_json"
    assert code(400, "POST", RUN, json={"prompt": 1, "sed": 2}, headers=rich) == "validation_error"
    assert code(402, "POST", RUN, json=body, headers=poor) == "insufficient_credits"
    assert code(404, "POST", "/api/v1/models/nothing/run", json=body, headers=rich) == "not_found"
    assert code(404, "GET", "/api/v1/jobs/job_abc123", headers=rich) == "not_found"
    assert code(400, "GET", "/api/v1/jobs?limit=0&cursor=x&status=lost", headers=rich) == "validation_error"
    for lost in (service.ask("GET", "/api/v1/nowhere"), service.ask("DELETE", "/api/v1/jobs")):
        service.exact.validate({"$ref": "#/components/schemas/Error"}, lost.json())

    async def closed() -> House:
        async with app.open_house(Settings(data_dir=tmp_path / "closed", testcard=True, rate_limit="off")) as house:
            return house

    broken = api.build(service.runner.run(closed()))
    assert code(500, "POST", RUN, json=body, headers=rich, at=broken) == "submission_failed"
    assert code(500, "GET", "/api/v1/jobs", headers=rich, at=broken) == "internal_error"
    assert code(500, "GET", "/readyz", at=broken) == "internal_error"
