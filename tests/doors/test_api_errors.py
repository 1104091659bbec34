"""Every failure in the one envelope: each code for real, lost routes, wrong methods, bad bodies, broken rooms."""

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Any, NoReturn, cast

import pytest

from doors.conftest import API, DAY_MS, RUN, Service, Wire, fault
from pixeldojo import app, errors
from pixeldojo.api import app as api
from pixeldojo.api.edge import Edge
from pixeldojo.db import Database, DatabaseUnavailable
from pixeldojo.house import House

GET_ROUTES = (
    "/healthz", "/readyz", f"{API}/models", f"{API}/models/testcard", f"{API}/models/testcard/schema",
    f"{API}/openapi.json", f"{API}/jobs", f"{API}/jobs/job_x",
)  # fmt: skip


class Broken:
    """A database whose every call raises."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def read(self, *_: object, **__: object) -> NoReturn:
        raise self.error

    scan = write = read


def _broken(service: Service, error: Exception) -> Any:
    return api.build(dataclasses.replace(service.house, db=cast(Database, Broken(error))))


def test_every_code_for_real(service: Service, later: Callable[[int], None]) -> None:
    ana, poor = service.person(), service.person(credits=0)
    away = _broken(service, DatabaseUnavailable("no disk"))
    order: dict[str, Any] = {"json": {"prompt": "x"}, "headers": ana.headers}
    job = f"{API}/jobs/{ana.done()['jobId']}"
    answers = {
        errors.Unauthorized: service.ask("POST", RUN, json={"prompt": "x"}),
        errors.InvalidJSON: ana.ask("POST", RUN, content=b"{"),
        errors.ValidationError: ana.run(""),
        errors.NotFound: ana.ask("GET", f"{API}/jobs/job_none"),
        errors.InsufficientCredits: poor.run(),
        errors.SubmissionFailed: service.ask("POST", RUN, at=away, **order),
        errors.InternalError: service.ask("GET", job, at=away, headers=ana.headers),
    }
    later(DAY_MS + 1000)
    answers[errors.Expired] = ana.ask("GET", job)
    for kind, answer in answers.items():
        fault(answer, kind.status, kind.code)
    # A refund that can't be made is the ledger's test; no request of a client meets it.
    assert {each.code for each in errors.TABLE} - {each.code for each in answers} == {
        "credit_error", "rate_limit_exceeded",
    }  # fmt: skip


def test_request_ids_differ(service: Service) -> None:
    answers = [service.ask("GET", f"{API}/nowhere") for _ in range(3)]
    assert len({fault(answer, 404, "not_found")["requestId"] for answer in answers}) == 3


@pytest.mark.parametrize(
    "path",
    ["/api", API, f"{API}/", f"{API}/nowhere", f"{API}/models/testcard/run/x", f"{API}/jobs/a/b/c", "/favicon.ico",
     f"{API}/assets", f"{API}/assets/job_x", "/%00", "/%ff", "/" + "x" * 5000, f"{API}/../../etc/passwd", "/.env"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_unknown_routes(still: Service, method: str, path: str) -> None:
    error = fault(still.ask(method, path), 404, "not_found")
    assert len(error["message"]) < 400


@pytest.mark.parametrize("path", GET_ROUTES)
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_wrong_methods(still: Service, method: str, path: str) -> None:
    answer = still.ask(method, path)
    assert "GET" in fault(answer, 404, "not_found")["message"]
    assert "GET" in answer.headers["allow"].split(", ")
    assert method not in answer.headers["allow"].split(", ")


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
def test_wrong_methods_on_the_route_to_run(still: Service, method: str) -> None:
    answer = still.ask(method, RUN)
    fault(answer, 404, "not_found")
    assert "POST" in answer.headers["allow"].split(", ")


def test_head_and_odd_methods_are_answered(still: Service) -> None:
    with still.wire() as wire:
        for method in ("HEAD", "TRACE", "BREW", "CONNECT"):
            raw = wire.send(f"{method} {API}/jobs HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
            assert raw.startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 400 ")), (method, raw)
            if method == "HEAD":
                assert raw.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"", "empty"),
        (b" ", ""),
        (b"{", "truncated"),
        (b"{}}", "trailing"),
        (b"{'prompt': 'x'}", ""),
        (b'{"prompt": "x",}', ""),
        (b"prompt=x", ""),
        (b"\xff\xfe{\0}\0", ""),
        (b'\xef\xbb\xbf{"prompt": "x"}', ""),
        (b'{"prompt": "\xff"}', "UTF-8"),
        (b'{"prompt": "\\ud800"}', ""),
        (b'{"prompt": "\\udc00\\ud800"}', ""),
        (b'{"prompt": "a\nb"}', ""),
        (b'{"prompt": "x", "seed": NaN}', ""),
        (b'{"prompt": "x", "seed": Infinity}', ""),
        (b'{"prompt": "x", "seed": 1e400}', "out of range"),
        (b'{"prompt": "x", "seed": 01}', ""),
        (b'{"prompt": "x", "seed": 0x1}', ""),
        (b'{"prompt": "x", "seed": ' + b"9" * 9000 + b"}", "out of range"),
        (b'{"prompt":' + b"[" * 60_000, "deep"),
        (b'{"prompt":' * 5000 + b"1" + b"}" * 5000, "deep"),
    ],
)
def test_unreadable_bodies(still: Service, body: bytes, word: str) -> None:
    ana = still.person()
    error = fault(ana.ask("POST", RUN, content=body), 400, "invalid_json")
    assert word in error["message"]
    assert len(error["message"]) < 300
    assert ana.entries() == [("grant", 100_000)]


@pytest.mark.parametrize("depth", [100, 254, 255, 256, 300, 500, 700, 800, 900, 950, 2000])
@pytest.mark.parametrize("shape", ["list", "object"])
def test_deep_bodies(still: Service, depth: int, shape: str) -> None:
    start, end = (b"[", b"]") if shape == "list" else (b'{"a":', b"}")
    body = b'{"prompt": "x", "seed": ' + start * depth + b"1" + end * depth + b"}"
    answer = still.person().ask("POST", RUN, content=body)
    fault(answer, 400, "invalid_json" if depth > 990 else answer.json()["error"]["code"])
    assert answer.json()["error"]["code"] in ("invalid_json", "validation_error")


@pytest.mark.parametrize("body", [b"[]", b"null", b'"x"', b"1", b"true", b'[{"prompt": "x"}]'])
def test_a_body_that_is_no_object(still: Service, body: bytes) -> None:
    error = fault(still.person().ask("POST", RUN, content=body), 400, "validation_error")
    assert [each["path"] for each in error["details"]] == [""]
    assert "must be an object" in error["message"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
                                  "application/xml", "json", "text/json", "x" * 3000])  # fmt: skip
def test_wrong_content_types(still: Service, kind: str) -> None:
    ana = still.person()
    answer = ana.ask("POST", RUN, content=b'{"prompt": "x"}', headers={"content-type": kind})
    assert "application/json" in fault(answer, 400, "invalid_json")["message"]
    assert ana.entries() == [("grant", 100_000)]


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "APPLICATION/JSON",
                                  "application/vnd.api+json", " application/json ;x=y", ""])  # fmt: skip
def test_content_types_that_are_json(still: Service, kind: str) -> None:
    answer = still.person().ask("POST", RUN, content=b'{"prompt": "x"}', headers={"content-type": kind})
    assert answer.status_code == 202, answer.text


def test_bodies_up_to_the_limit_and_over_it(serve: Callable[..., Service]) -> None:
    service = serve(works=False, max_body_bytes=100_000)
    ana = service.person()
    body = b'{"prompt": "x"' + b" " * (100_000 - 15) + b"}"
    assert ana.ask("POST", RUN, content=body).status_code == 202
    error = fault(ana.ask("POST", RUN, content=body + b" "), 400, "validation_error")
    assert "100000 bytes" in error["message"]
    fault(service.ask("POST", RUN, content=body + b" "), 401, "unauthorized")
    assert ana.balance() == 99_000


def _chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)


def _post(wire: Wire, key: str, *more: str, body: bytes = b"") -> Any:
    head = f"POST {RUN} HTTP/1.1\r\nauthorization: Bearer {key}\r\ncontent-type: application/json"
    return wire.ask("\r\n".join((head, *more)), body=body)


def test_bodies_on_the_wire(serve: Callable[..., Service]) -> None:
    service = serve(works=False, max_body_bytes=100_000)
    ana = service.person()
    small = b'{"prompt": "x"}'
    large = b'{"prompt": "' + b"x" * 200_000
    with service.wire() as wire:
        assert _post(wire, ana.key, f"content-length: {len(small)}", body=small).status_code == 202
        chunked = "transfer-encoding: chunked"
        sent = _chunked(small[:4], small[4:]) + b"0\r\n\r\n"
        assert _post(wire, ana.key, chunked, body=sent).status_code == 202
        over = _post(wire, ana.key, f"content-length: {len(large)}", body=large)
        fault(over, 400, "validation_error")
        endless = _post(wire, ana.key, chunked, body=_chunked(*[large] * 5))
        fault(endless, 400, "validation_error")
        for length in ("content-length: 999999999999", chunked):
            nobody = _post(wire, "pd_nobody", length)  # answered before a byte of the body has come
            fault(nobody, 401, "unauthorized")
        fault(_post(wire, ana.key, "content-length: 0"), 400, "invalid_json")
        fault(_post(wire, ana.key), 400, "invalid_json")
        raw = wire.send(b"GET /healthz HTTP/1.1\r\ncontent-length: x\r\n\r\n")
        assert raw.startswith(b"HTTP/1.1 400 ")
    assert ana.entries() == [("grant", 100_000), *[("charge", -1000)] * 2]


def test_a_body_that_breaks_off_makes_no_job(serve: Callable[..., Service]) -> None:
    service = serve(works=False)
    ana = service.person()
    body = b'{"prompt": "x"}'
    head = f"POST {RUN} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ana.key}\r\ncontent-length: 100\r\n\r\n"

    async def hang_up() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", wire.port)
        writer.write(head.encode() + body)  # valid so far, and 85 bytes short
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(0.05)

    with service.wire() as wire:
        service.do(hang_up())
    assert ana.entries() == [("grant", 100_000)]


@pytest.mark.parametrize("error", [RuntimeError("a secret"), OSError(28, "a secret"), RecursionError("a secret")])
def test_an_unexpected_fault_says_nothing_of_the_inside(still: Service, error: Exception) -> None:
    ana = still.person()
    broken = _broken(still, error)
    for method, url in (("POST", RUN), ("GET", f"{API}/jobs"), ("GET", f"{API}/jobs/job_x"), ("GET", "/readyz")):
        body = {"json": {"prompt": "x"}} if method == "POST" else {}
        answer = still.ask(method, url, at=broken, headers=ana.headers, **body)
        fault(answer, 500, "internal_error")
        assert "secret" not in answer.text


def test_a_database_that_is_away(still: Service) -> None:
    ana = still.person()
    away = _broken(still, DatabaseUnavailable("a secret path"))
    answers = [
        still.ask("GET", f"{API}/jobs", at=away, headers=ana.headers),
        still.ask("GET", f"{API}/jobs/job_x", at=away, headers=ana.headers),
        still.ask("POST", RUN, at=away, headers=ana.headers, json={"prompt": 1}),
    ]
    for answer in answers:
        fault(answer, 500, "internal_error")
    answers.append(still.ask("POST", RUN, at=away, headers=ana.headers, json={"prompt": "x"}))
    fault(answers[-1], 500, "submission_failed")
    for answer in answers:
        assert answer.headers["retry-after"] == "5"
        assert "secret" not in answer.text
    fault(still.ask("GET", "/readyz", at=away), 500, "internal_error")
    assert still.ask("GET", "/healthz", at=away).status_code == 200


def test_a_closed_house(service: Service, serve: Callable[..., Service]) -> None:
    settings = serve(works=False).house.settings

    async def closed() -> House:
        async with app.open_house(settings) as house:
            return house

    at = api.build(service.do(closed()))
    fault(service.ask("GET", f"{API}/jobs", at=at, headers={"authorization": "Bearer pd_x"}), 500, "internal_error")


def test_the_edge_answers_when_the_application_itself_raises(still: Service) -> None:
    async def raises(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("a secret")

    async def breaks_off(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("too late")

    answer = still.ask("GET", "/", at=Edge(raises, still.house))
    fault(answer, 500, "internal_error")
    assert "secret" not in answer.text
    with pytest.raises(RuntimeError, match="too late"):
        still.ask("GET", "/", at=Edge(breaks_off, still.house))
