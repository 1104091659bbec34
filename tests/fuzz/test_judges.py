"""The fuzz's judges, before answers and logs that are wrong: a judge that lets everything pass would find nothing."""

from typing import Any

import httpx2
import pytest

from exact import Exact
from fuzz import rules
from fuzz.run import Report, of_log
from pixeldojo.api import openapi
from pixeldojo.catalogue import card as cards
from pixeldojo.catalogue.service import Catalogue

BASE = "http://dojo.test"
KEY = "pd_FH2sGPNpLhOQaDcQ7Xz7osm39eF23S2g"
HEADERS = {"x-request-id": "req_1", "content-type": "application/json"}


@pytest.fixture(scope="module")
def exact() -> Exact:
    return Exact(openapi.document(Catalogue(cards.read_all(None)), base_url=BASE))


def _answer(
    path: str, *, status: int = 200, json: Any = None, text: str | None = None, headers: dict[str, str] | None = None
) -> httpx2.Response:
    request = httpx2.Request("GET", BASE + path)
    return httpx2.Response(status, json=json, text=text, headers=HEADERS | (headers or {}), request=request)


def _problem(code: str, **more: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": "m", "status": 404, "requestId": "req_1"} | more}


GOOD = {"status": "ok", "version": "1"}


def test_what_is_documented_passes(exact: Exact) -> None:
    exact.response("GET", _answer("/healthz", json=GOOD))
    exact.response("GET", _answer("/api/v1/models/x", status=404, json=_problem("not_found")))


@pytest.mark.parametrize(
    "answer",
    [
        _answer("/healthz", json=GOOD, status=201),
        _answer("/healthz", json=GOOD | {"more": 1}),
        _answer("/healthz", json={"status": "ok"}),
        _answer("/healthz", json=GOOD, headers={"x-powered-by": "nobody"}),
        _answer("/healthz", json=GOOD, headers={"content-type": "text/html"}),
        _answer("/nowhere", json=GOOD),
        _answer("/api/v1/models/x", status=404, json=_problem("expired")),
        _answer("/api/v1/models/x", status=404, json=_problem("not_found", trace="…")),
        _answer(
            "/api/v1/jobs/x/events", text="event: moved\ndata: {}\n\n", headers={"content-type": "text/event-stream"}
        ),
        _answer(
            "/api/v1/jobs/x/events",
            text='id: 1\nevent: status\ndata: {"jobId": "x"}\n\n',
            headers={"content-type": "text/event-stream"},
        ),
    ],
)
def test_what_is_not_documented_does_not(exact: Exact, answer: httpx2.Response) -> None:
    with pytest.raises((AssertionError, KeyError, ValueError, StopIteration)):
        exact.response("GET", answer)


def test_a_required_header_must_be_there(exact: Exact) -> None:
    bare = httpx2.Response(200, json=GOOD, request=httpx2.Request("GET", f"{BASE}/healthz"))
    with pytest.raises(AssertionError, match="missing"):
        exact.response("GET", bare)


@pytest.mark.parametrize(
    ("operation", "details", "excused"),
    [
        ("listJobs", [("cursor", "must be the nextCursor of an earlier page")], True),
        ("listJobs", [("cursor", "must be the nextCursor of an earlier page"), ("limit", "is wrong")], False),
        ("listJobs", [("limit", "must be a whole number from 1 to 100")], False),
        ("run_testcard", [("max_credit_cost", "the job costs 1 credits, more than 0")], True),
        ("run_testcard", [("seed", "must be a whole number")], False),
        ("run", [("seed", "must be a whole number")], True),
    ],
)
def test_rules_excuse_what_a_schema_cannot_say_and_nothing_else(
    operation: str, details: list[tuple[str, str]], excused: bool
) -> None:
    error = {"code": "validation_error", "details": [{"path": path, "message": text} for path, text in details]}
    assert rules.excused(operation, error) == excused
    assert not rules.excused(operation, error | {"code": "invalid_json"})


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"level": "info", "event": "request_answered", "path": "/api/v1/jobs"}', ""),
        ('{"level": "warning", "event": "attempt_failed"}', ""),
        ('{"level": "error", "event": "request_failed"}', "the log says"),
        ('{"level": "warning", "event": "x", "exception": "Traceback"}', "the log says"),
        ("Traceback (most recent call last):", "not JSON"),
        (f'{{"level": "info", "event": "{KEY}"}}', "secrets"),
        ('{"level": "info", "event": "x", "body": "a heron in the reeds"}', "prompts"),
    ],
)
def test_the_log_is_read(line: str, said: str) -> None:
    found = of_log(line + "\n", keys=[], prompts=["a heron in the reeds"])
    assert (len(found), said in "".join(found)) == (bool(said), True)


def test_an_operation_that_only_refused_has_not_answered() -> None:
    calls = {"a": {"200": 1, "404": 2}, "b": {"404": 9}}
    report = Report(["a", "b", "c"], calls, cases=12, seconds=1)
    assert report.answered == ["a"]
    assert "3 operations, 2 exercised, 1 answered" in "\n".join(report.lines())
