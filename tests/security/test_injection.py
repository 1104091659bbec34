"""Line breaks and control sequences in everything a caller writes: no header, no log line, no page becomes another."""

import asyncio
import dataclasses
import ipaddress
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any, NoReturn, cast
from urllib.parse import quote

import httpx2
import pytest
import structlog

from doors.conftest import API, BASE, RUN, Person, Service, fault, faults
from doors.test_api_errors import Broken
from pixeldojo import logs, outbound
from pixeldojo.api import app as api
from pixeldojo.db import Database
from pixeldojo.outbound import OutboundError
from pixeldojo.post import Poster
from postbox import Postbox

HOME = (ipaddress.ip_network("127.0.0.0/8"),)
CRLF = "x\r\nX-Evil: yes\r\n\r\n<script>alert(1)</script>"
NASTY = 'a\n{"event":"forged"}\r\n2026-01-01T00:00:00Z [info] forged\x1b[31m\x1b]0;title\x07\x00\x7f\x85\u2028\u202e'
BREAKS = ("\r\n", "\n", "\r", "\x85", "\u2028", "\u2029", "\x0b", "\x0c", "\x1c", "\x00", "\x1b[2J")
ENCODED = ("%0d%0a", "\u560a\u560d")  # the lower bytes of these two characters are a line break
HEADERS = (
    b"idempotency-key", b"cancel-after", b"start-within", b"content-type", b"x-request-id", b"last-event-id",
    b"range", b"if-none-match", b"if-range", b"origin", b"x-forwarded-for", b"traceparent",
    b"x-forwarded-host", b"x-forwarded-proto", b"accept",
)  # fmt: skip


@pytest.fixture(scope="module")
def ana(site: Service) -> Person:
    return site.person(scopes=["account:read", "account:write", "jobs:read", "jobs:write"])


def _clean(answer: httpx2.Response) -> None:
    """Nothing a caller wrote has become a header, and none holds a character that could end one."""
    assert "x-evil" not in answer.headers
    for name, value in answer.headers.raw:
        assert all(32 <= byte < 127 for byte in name + value), (name, value)
    assert not answer.text.startswith("<script")
    if "<script>" in answer.text:  # shown back as text, in what no browser takes for a page
        assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("text", [CRLF, NASTY, *BREAKS, *ENCODED])
def test_what_a_caller_writes_becomes_no_header(ana: Person, text: str) -> None:
    job, keys = "job_" + "0" * 32, f"{API}/account/keys"
    raw = text.encode("utf-8", "surrogatepass")
    key = {b"authorization": f"Bearer {ana.key}".encode()}
    for sent in (
        dict.fromkeys(HEADERS, raw) | key,
        {b"authorization": raw},
        {b"host": raw} | key,
        {b"prefer": raw} | key,
    ):
        _clean(ana.service.ask("POST", RUN, headers=sent, json={"prompt": "!refuse"}))
        for url in (f"{API}/jobs/{job}", f"{API}/jobs", "/nowhere"):
            _clean(ana.service.ask("GET", url, headers=sent))
    quoted = quote(raw)
    for url in (
        f"{API}/{quoted}", f"{API}/jobs/{quoted}", f"{API}/models/{quoted}", f"{API}/assets/{quoted}/{quoted}",
        f"{API}/jobs?cursor={quoted}&limit={quoted}&status={quoted}&metadata.{quoted}={quoted}",
        f"{keys}?cursor={quoted}", f"{API}/models?modality={quoted}",
        f"{API}/assets/{job}/0.png?expires={quoted}&signature={quoted}",
    ):  # fmt: skip
        _clean(ana.ask("GET", url))
    bodies: list[tuple[str, dict[str, Any]]] = [
        (RUN, {"prompt": text, "metadata": {text: text}, "webhook_url": f"https://x.test/{text}"}), (RUN, {text: text}),
        (keys, {"name": text, "rateLimit": text, "models": [text]}), (keys, {text: text}),
    ]  # fmt: skip
    for url, body in bodies:
        answer = ana.ask("POST", url, json=body)
        _clean(answer)
        assert answer.status_code == 400, body


def test_on_the_wire_too(ana: Person) -> None:
    key = f"authorization: Bearer {ana.key}"
    with ana.service.wire() as wire:
        for text in ("%0d%0aX-Evil:%20yes", "%0aX-Evil:%20yes", "%00", "%e5%98%8a%e5%98%8dX-Evil:%20yes"):
            for path in (
                f"{API}/{text}",
                f"{API}/jobs/{text}",
                f"{API}/jobs?cursor={text}",
                f"{API}/assets/{text}/0.png",
            ):
                _clean(wire.ask(f"GET {path} HTTP/1.1\r\n{key}"))
        for line in ("Idempotency-Key: a\rX-Evil: yes", "Idempotency-Key: a\nX-Evil: yes", "Idempotency-Key: a\0b",
                     "Host: a\rb", "X-Evil\r\n : yes", "Prefer: wait=1\x0bX-Evil: yes"):  # fmt: skip
            raw = wire.send(f"GET {API}/jobs HTTP/1.1\r\n{line}\r\nconnection: close\r\n\r\n".encode())
            head, _, body = raw.partition(b"\r\n\r\n")
            assert b"\nx-evil" not in head.lower()
            assert raw.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 401 ", b"HTTP/1.1 404 ")), raw
            assert json.loads(body)["error"]["requestId"].encode() in head, (
                "what is no HTTP is told in the envelope too"
            )


@pytest.mark.parametrize(
    "head",
    [
        "content-length: 5\r\ncontent-length: 6",
        "content-length: 5, 6",
        "content-length: +5",
        "content-length: -1",
        "content-length: 0x5",
        "content-length: 5\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 5",
        "transfer-encoding: identity, chunked, identity",
        "transfer-encoding: xchunked",
        "transfer-encoding : chunked",
        "transfer-encoding: chunked\r\ntransfer-encoding: cow",
    ],
)
def test_a_request_that_two_servers_would_cut_differently(ana: Person, head: str) -> None:
    """Smuggling: where a proxy and this service could disagree about the end of a request, it is none at all."""
    inner = f"GET {API}/account HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ana.key}\r\nconnection: close\r\n\r\n"
    before = ana.entries()
    with ana.service.wire() as wire:
        raw = wire.send(f"POST {RUN} HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n0\r\n\r\n{inner}".encode())
    assert raw.startswith(b"HTTP/1.1 400 ")
    assert raw.count(b"HTTP/1.1 ") == 1
    assert ana.account_id.encode() not in raw
    assert ana.entries() == before


def test_a_host_that_is_none_is_written_nowhere(ana: Person) -> None:
    """The Host header names the service in URLs, pages and rows: only what can be a host is taken from it."""
    hosts = (
        "evil.test/path", "evil.test?x", "evil.test#x", "user@evil.test", "<script>", 'a"b', "a b", "x" * 300, "a,b",
        "evil.test:x", "evil.test:123456", "[::1", "\xe9vil.test", "a\x1bb", "[::1]evil", "", "[<b>]",
    )  # fmt: skip
    for host in hosts:
        sent = {b"host": host.encode("latin-1"), b"authorization": f"Bearer {ana.key}".encode()}
        receipt = ana.service.ask("POST", RUN, json={"prompt": "x", "webhook_url": "https://x.test/"}, headers=sent)
        if receipt.status_code == 400:
            assert fault(receipt, 400, "validation_error")["message"] == "Invalid host header"
            continue
        assert receipt.json()["statusUrl"].startswith(("http://dojo.test:8787/api/", "http://dojo.test/api/")), host
        document = ana.service.ask("GET", f"{API}/openapi.json", headers=sent).json()
        assert host == "" or host not in document["servers"][0]["url"]
    for host in ("a.test", "A-1.test:80", "127.0.0.1:8787", "[::1]:8787", "localhost"):
        receipt = ana.service.ask("POST", RUN, json={"prompt": "x"}, headers=ana.headers | {"host": host})
        assert receipt.json()["statusUrl"].startswith(f"http://{host}/api/")


def test_a_webhook_s_url_becomes_no_header_of_its_request() -> None:
    async def test() -> None:
        async with Postbox() as box:
            poster = Poster(HOME)
            base = box.url("")
            paths = (
                "/%0d%0aX-Evil:%20yes", "/a?b=%0d%0aX-Evil:%20yes", "/%00%0a", "/\u560a\u560dX-Evil:%20yes", "/a\\b",
                "/a?b#%0d%0aX-Evil:%20yes", "//evil.test/", "/;@evil.test/", "/{}|^`<>\"'",
            )  # fmt: skip
            for path in paths:
                answer = await poster.post(base + path, headers={"a": "b"}, body=b"{}", timeout_s=5, most=10)
                assert answer.status == 204
            for text in BREAKS:
                for url in (f"{base}/{text}X-Evil: yes", f"{base}/?{text}", f"{base}/#{text}", f"{base}{text}/"):
                    with pytest.raises(OutboundError):
                        await poster.post(url, headers={"a": "b"}, body=b"{}", timeout_s=5, most=10)
            poster.close()
            assert len(box.received) == len(paths)
            for got in box.received:
                assert set(got.headers) == {"host", "user-agent", "accept", "a", "content-length"}
                assert got.headers["host"] == f"127.0.0.1:{box.port}"

    asyncio.run(test())


def test_no_character_of_a_url_comes_out_raw() -> None:
    """Refused, or written as ASCII that can't end a line."""
    for code in (*range(0x300), *range(0x2000, 0x2070), *range(0x3000, 0x3020), *range(0xFE50, 0xFF20), 0xD800, 0xFEFF):
        url = f"https://public.test/{chr(code)}?{chr(code)}"
        try:
            taken = outbound.target(url, ())
        except OutboundError:
            continue
        assert all(32 < ord(c) < 127 for c in taken.path + taken.authority), hex(code)


def _forget_loggers() -> None:
    """Loggers keep what they were first used with."""
    for name, module in list(sys.modules.items()):
        if name.startswith("pixeldojo") and hasattr(module, "_log"):
            vars(module._log).pop("bind", None)


class Hostile(Broken):
    """A database whose faults quote what a caller wrote."""

    def __init__(self) -> None:
        super().__init__(RuntimeError())

    async def read(self, *_: object, **__: object) -> NoReturn:
        raise RuntimeError(NASTY)

    scan = write = read


@pytest.fixture
def logged(capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """Sets the service's own logging up; what was logged comes from `capsys`."""
    before, handlers, level = structlog.get_config(), logging.root.handlers[:], logging.root.level

    def set_up(form: str) -> Any:
        capsys.readouterr()
        _forget_loggers()
        logs.set_up(level="debug", form=form)
        return capsys

    yield set_up
    _forget_loggers()
    structlog.configure(**before)
    structlog.contextvars.clear_contextvars()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.mark.parametrize("form", ["json", "text"])
def test_what_a_caller_writes_forges_no_log_line(site: Service, logged: Any, form: str) -> None:
    ana = site.person(scopes=["account:read", "account:write", "jobs:read", "jobs:write"])
    told = logged(form)
    house = dataclasses.replace(site.house, settings=dataclasses.replace(site.house.settings, access_log=True))
    loud, broken = api.build(house), api.build(dataclasses.replace(house, db=cast(Database, Hostile())))
    asked = 0
    for at in (loud, broken):
        for text in (NASTY, CRLF, "x" * 50_000, "\x1b[2J" * 5000):
            quoted = quote(text.encode())[:5000]
            asks: list[tuple[str, str, dict[str, Any]]] = [
                ("GET", f"/{quoted}", {}), ("GET", f"{API}/jobs/{quoted}?x={quoted}", {}),
                ("DELETE", f"{API}/account/keys/{quoted}", {}), ("POST", f"{API}/models/{quoted}/run", {"json": {}}),
                ("POST", RUN, {"json": {"prompt": text, "metadata": {"a": text}, text: 1}}),
                ("POST", RUN, {"json": {"prompt": "x"}, "headers": {b"idempotency-key": text.encode()}}),
                ("POST", f"{API}/account/keys", {"json": {"name": text}}),
                ("GET", f"{API}/assets/{quoted}/{quoted}", {}),
            ]  # fmt: skip
            for method, url, more in asks:
                sent = {b"authorization": f"Bearer {ana.key}".encode()} | more.pop("headers", {})
                site.ask(method, url, at=at, headers=sent, **more)
                asked += 1
    text = told.readouterr().err
    lines = text.split("\n")[:-1]
    events = [line for line in lines if not line.startswith("    ")]
    assert len(events) >= asked // 2
    longest = max(events, key=len)
    assert len(longest) < 20_000, longest[:300] + " ... " + longest[-300:]
    assert all(c == "\n" or c.isprintable() for c in text)
    assert ana.key not in text
    for event in events:
        if form == "json":
            assert json.loads(event)["event"] != "forged"
        else:
            assert "forged" not in event[:40], event[:200]


def test_an_engine_s_refusal_is_shown_as_text(ana: Person) -> None:
    """What comes back from an engine may quote the prompt: it is JSON in answers, and nowhere a line of its own."""
    job = ana.wait(ana.submit("!refuse " + NASTY.replace("\x00", ""))["jobId"])
    assert job["status"] == "failed"
    _clean(ana.ask("GET", f"{API}/jobs/{job['jobId']}"))
    raw = ana.ask("GET", f"{API}/jobs/{job['jobId']}").content
    assert b"\n" not in raw
    events = ana.ask("GET", f"{API}/jobs/{job['jobId']}/events").content
    assert all(line.startswith((b"id: ", b"event: ", b"data: ", b"retry: ")) for line in events.split(b"\n") if line)


def test_names_that_reach_a_header_are_checked(ana: Person) -> None:
    for text in ("a\r\nb", "a\nb", "a\x00b", "\x1b[31m", "a\u2028b", "", "   ", "x" * 101):
        assert "name" in faults(ana.ask("POST", f"{API}/account/keys", json={"name": text}))
    for raw in (b"a\r\nb", b"a\nb", b"a\x00b", b"\x1b", b"", b" ", b"x" * 256, b"\xa0"):
        sent = {b"authorization": f"Bearer {ana.key}".encode(), b"idempotency-key": raw}
        assert "Idempotency-Key" in faults(ana.service.ask("POST", RUN, json={"prompt": "x"}, headers=sent))
    fault(ana.ask("GET", f"{BASE}{API}/jobs/a%0d%0ab"), 404, "not_found")
