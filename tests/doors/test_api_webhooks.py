"""Webhooks as their owners meet them: set up with a run, inspected, replayed, signed with a secret that rotates."""

import asyncio
import ipaddress
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from doors.conftest import API, BASE, DAY_MS, Person, Service, fault, faults
from exact import Exact
from pixeldojo import clock
from pixeldojo.api import openapi
from pixeldojo.webhooks import service as webhooks
from postbox import Postbox

HOME = (ipaddress.ip_network("127.0.0.0/8"),)
SECRET = f"{API}/account/webhook-secret"
Serve = Callable[..., Service]


@pytest.fixture
def hooked(serve: Serve) -> Service:
    """A service that may call receivers on this machine."""
    return serve(allow_networks=HOME, webhook_retry_schedule=(0, 3600))


@pytest.fixture
def box(hooked: Service) -> Iterator[Postbox]:
    """A receiver on the loop of the service."""
    made = Postbox()
    hooked.do(made.__aenter__())
    yield made
    hooked.do(made.__aexit__())


def _exact(service: Service, method: str, response: Any) -> Any:
    """The body of an answer that the OpenAPI document describes in every respect."""
    Exact(openapi.document(service.house.catalogue, base_url=BASE)).response(method, response)
    return response.json()


def _webhook(person: Person, job_id: str) -> Any:
    response = person.ask("GET", f"{API}/jobs/{job_id}/webhook")
    assert response.status_code == 200, response.text
    return _exact(person.service, "GET", response)


def _told(person: Person, job_id: str, *, status: str) -> Any:
    """The job's webhook once it has this status."""
    return person.service.until(lambda: _webhook(person, job_id), lambda seen: bool(seen["status"] == status))


def test_from_run_to_receiver(hooked: Service, box: Postbox) -> None:
    ana = hooked.person()
    job_id = ana.submit("bars", webhook_url=box.url("/hook"), num_outputs=2)["jobId"]
    hooked.do(box.until(1))
    (got,) = box.received
    seen = _told(ana, job_id, status="delivered")
    (delivery,) = seen["deliveries"]
    assert delivery["id"] == got.id
    assert [each["responseStatus"] for each in delivery["attempts"]] == [204]
    assert seen["events"] == ["completed", "failed"]
    secret = ana.another_key(scopes=["account:write"]).ask("GET", SECRET).json()["secret"]
    event = got.verify(secret)
    job = _exact(hooked, "GET", ana.ask("GET", f"{API}/jobs/{job_id}"))
    fresh = job.pop("webhook")
    frozen = event["data"].pop("webhook")
    assert event["type"] == "job.completed"
    assert event["data"] == job
    assert fresh == {name: seen[name] for name in fresh}
    assert (frozen["url"], frozen["status"], frozen["attempts"]) == (box.url("/hook"), "pending", 0)
    asset = hooked.ask("GET", event["data"]["assets"][0]["url"])
    assert asset.headers["content-type"] == "image/png"
    listed = _exact(hooked, "GET", ana.ask("GET", f"{API}/jobs"))
    assert listed["jobs"][0]["webhook"] == fresh
    quiet = ana.done("no webhook")
    assert "webhook" not in quiet


def test_a_failed_job_and_its_receiver_too(hooked: Service, box: Postbox) -> None:
    ana = hooked.person()
    box.answers["/hook"] = [500, 204]
    job_id = ana.submit("!refuse", webhook_url=box.url("/hook"))["jobId"]
    hooked.do(box.until(1))
    ana.service.until(lambda: _webhook(ana, job_id), lambda seen: bool(seen["attempts"] == 1))
    seen = _webhook(ana, job_id)
    assert (seen["status"], seen["lastResponseStatus"]) == ("pending", 500)
    assert seen["nextAttemptAt"] > seen["lastAttemptAt"]
    replayed = ana.ask("POST", f"{API}/jobs/{job_id}/webhook")
    assert replayed.status_code == 202
    told = _exact(hooked, "POST", replayed)
    assert (told["jobId"], told["webhookId"], told["webhook"]["status"]) == (job_id, box.received[0].id, "pending")
    hooked.do(box.until(2))
    assert {each.body for each in box.received} == {box.received[0].body}
    assert {each.id for each in box.received} == {told["webhookId"]}
    assert box.received[1].event["type"] == "job.failed"
    seen = _told(ana, job_id, status="delivered")
    assert [each["number"] for each in seen["deliveries"][0]["attempts"]] == [1, 2]


def test_start_and_progress(hooked: Service, box: Postbox) -> None:
    ana = hooked.person()
    wanted = ["start", "progress", "completed"]
    job_id = ana.submit("!slow", webhook_url=box.url("/hook"), webhook_events_filter=wanted)["jobId"]
    seen = _told(ana, job_id, status="delivered")
    types = [each["type"] for each in seen["deliveries"]]
    assert (types[0], types[-1]) == ("job.started", "job.completed")
    assert set(types[1:-1]) == {"job.progress"}
    assert sorted(seen["events"]) == sorted(wanted)


def test_a_filter_without_a_webhook_holds_nobody_up(hooked: Service) -> None:
    """Claims and heartbeats are for many jobs at once: none of them may fail because of what one asked for."""
    job = hooked.person().done("!steps 3 0.3", webhook_events_filter=["start", "progress", "completed"])
    assert (job["status"], "webhook" in job) == ("completed", False)


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"webhook_url": "http://example.com/"}, "webhook_url"),
        ({"webhook_url": "https://127.0.0.1/"}, "webhook_url"),
        ({"webhook_url": "https://user:word@example.com/"}, "webhook_url"),
        ({"webhook_url": "ftp://example.com/"}, "webhook_url"),
        ({"webhook_url": ""}, "webhook_url"),
        ({"webhook_url": 5}, "webhook_url"),
        ({"webhook_url": "https://example.com/", "webhook_events_filter": []}, "webhook_events_filter"),
        ({"webhook_url": "https://example.com/", "webhook_events_filter": ["end"]}, "webhook_events_filter.0"),
        ({"webhook_url": "https://example.com/", "webhook_events_filter": "start"}, "webhook_events_filter"),
    ],
)
def test_what_is_refused(still: Service, body: dict[str, Any], path: str) -> None:
    assert list(faults(still.person().run(**body))) == [path]


def test_no_webhook_no_end_no_business(still: Service, later: Callable[[int], None]) -> None:
    ana, eve = still.person(), still.person()
    plain = ana.submit("x")["jobId"]
    waiting = ana.submit("x", webhook_url="https://example.com/")["jobId"]
    fault(ana.ask("GET", f"{API}/jobs/{plain}/webhook"), 404, "not_found")
    fault(ana.ask("POST", f"{API}/jobs/{plain}/webhook"), 404, "not_found")
    fault(ana.ask("POST", f"{API}/jobs/{waiting}/webhook"), 400, "validation_error")
    assert _webhook(ana, waiting)["deliveries"] == []
    assert ana.job(waiting)["webhook"]["nextAttemptAt"] is None
    for method in ("GET", "POST"):
        for person, job_id in ((eve, waiting), (ana, "job_0"), (ana, "a%00b")):
            fault(person.ask(method, f"{API}/jobs/{job_id}/webhook"), 404, "not_found")
        fault(still.ask(method, f"{API}/jobs/{waiting}/webhook"), 401, "unauthorized")
        fault(still.ask(method, SECRET + ("/rotate" if method == "POST" else "")), 401, "unauthorized")
    cancelled = ana.ask("POST", f"{API}/jobs/{waiting}/cancel")
    assert cancelled.status_code == 200
    later(2 * DAY_MS)
    for method in ("GET", "POST"):
        fault(ana.ask(method, f"{API}/jobs/{waiting}/webhook"), 410, "expired")


def test_the_secret_and_its_rotation(service: Service, later: Callable[[int], None]) -> None:
    ana = service.person(scopes=["account:read", "account:write", "jobs:read", "jobs:write"])
    first = _exact(service, "GET", ana.ask("GET", SECRET))
    assert ana.ask("GET", SECRET).json() == first
    assert [each["expiresAt"] for each in first["secrets"]] == [None]
    second = _exact(service, "POST", ana.ask("POST", f"{SECRET}/rotate"))
    assert [each["secret"] for each in second["secrets"]] == [second["secret"], first["secret"]]
    assert second["secret"] != first["secret"]
    assert second["secrets"][1]["expiresAt"] > clock.rfc3339(clock.now_ms() + webhooks.ROTATION_MS - 60_000)
    assert ana.ask("GET", SECRET).headers["cache-control"] == "no-store"
    later(webhooks.ROTATION_MS + 1)
    assert [each["secret"] for each in ana.ask("GET", SECRET).json()["secrets"]] == [second["secret"]]
    other = service.person(scopes=["account:write"])
    assert other.ask("GET", SECRET).json()["secret"] != second["secret"]
    usual = ana.another_key()  # such as an agent's: whoever reads the secret can sign as the service
    fault(usual.ask("GET", SECRET), 401, "unauthorized")
    fault(usual.ask("POST", f"{SECRET}/rotate"), 401, "unauthorized")


def test_rotations_at_once_leave_one_current_secret(service: Service) -> None:
    ana = service.person(scopes=["account:read", "account:write"])
    rotate = ("POST", f"{SECRET}/rotate", {"headers": ana.headers})
    for answer in service.ask_at_once(*[rotate] * 8):
        assert answer.status_code == 200, answer.text
    valid = ana.ask("GET", SECRET).json()["secrets"]
    assert len(valid) == 2
    assert [each["expiresAt"] is None for each in valid] == [True, False]


def test_neither_secrets_nor_payloads_are_logged(
    hooked: Service, box: Postbox, capsys: pytest.CaptureFixture[str]
) -> None:
    ana = hooked.person()
    box.answers["/hook"] = b"HTTP/1.1 500 No\r\nContent-Length: 6\r\n\r\nunseen"
    job_id = ana.submit("a private prompt", webhook_url=box.url("/hook?token=hidden"))["jobId"]
    hooked.do(box.until(1))
    ana.service.until(lambda: _webhook(ana, job_id), lambda seen: bool(seen["attempts"] == 1))
    secret = ana.another_key(scopes=["account:write"]).ask("GET", SECRET).json()["secret"]
    logged = "".join(capsys.readouterr())
    for word in (secret, secret[6:], "private prompt", "hidden", "unseen", ana.key):
        assert word not in logged


def test_the_service_hands_back_what_it_did_not_send(serve: Serve) -> None:
    service = serve(allow_networks=HOME, works=False)
    ana = service.person()
    job_id = ana.submit("x", webhook_url="http://127.0.0.1:9/")["jobId"]
    ana.ask("POST", f"{API}/jobs/{job_id}/cancel")
    assert _webhook(ana, job_id)["status"] == "pending"
    assert json.loads(service.do(_payload(service, job_id)))["data"]["error"]["code"] == "cancelled"


async def _payload(service: Service, job_id: str) -> str:
    sql = "SELECT payload FROM deliveries WHERE job_id = ?"
    rows = await service.house.db.scan(lambda tx: tx.all(sql, job_id))
    await asyncio.sleep(0)
    return bytes(rows[0][0]).decode()
