"""What comes in with a submit: parameters of every wrong kind, each named; URLs; input pictures, sent and fetched."""

import asyncio
import base64
import contextlib
import io
import ipaddress
import json
import struct
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from PIL import Image

from doors.conftest import API, BASE, RUN, Person, Service, fault, faults
from pixeldojo import clock
from pixeldojo.janitor import Janitor

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


def _picture(form: str = "PNG", size: tuple[int, int] = (32, 24)) -> bytes:
    out = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(out, form)
    return out.getvalue()


def _bomb() -> bytes:
    """A PNG that says it is 60000 × 60000."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(60_001 * 10))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _uri(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


PNG = _picture()


@pytest.fixture(scope="module")
def ana(still: Service) -> Iterator[Person]:
    """Somebody who sends nonsense for the whole module, and is charged for nothing of it."""
    person = still.person()
    yield person
    assert person.entries() == [("grant", 100_000)]
    assert person.jobs()["jobs"] == []


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, {"prompt"}),
        ({"prompt": None}, {"prompt"}),
        ({"prompt": 1}, {"prompt"}),
        ({"prompt": True}, {"prompt"}),
        ({"prompt": ["x"]}, {"prompt"}),
        ({"prompt": {"text": "x"}}, {"prompt"}),
        ({"prompt": ""}, {"prompt"}),
        ({"prompt": " \t\n"}, {"prompt"}),
        ({"prompt": "x" * 1001}, {"prompt"}),
        ({"prompt": "x" * 1_000_000}, {"prompt"}),
        ({"prompt": "𝕏" * 1001}, {"prompt"}),
        ({"prompt": "a\0b"}, {"prompt"}),
        ({"Prompt": "x"}, {"prompt", "Prompt"}),
        ({"prompt": "x", "seed": -1}, {"seed"}),
        ({"prompt": "x", "seed": 2**32}, {"seed"}),
        ({"prompt": "x", "seed": 2**64 + 1}, {"seed"}),
        ({"prompt": "x", "seed": 10**300}, {"seed"}),
        ({"prompt": "x", "seed": 1e300}, {"seed"}),
        ({"prompt": "x", "seed": 1.5}, {"seed"}),
        ({"prompt": "x", "seed": "1"}, {"seed"}),
        ({"prompt": "x", "seed": True}, {"seed"}),
        ({"prompt": "x", "seed": None}, {"seed"}),
        ({"prompt": "x", "num_outputs": 0}, {"num_outputs"}),
        ({"prompt": "x", "num_outputs": -1}, {"num_outputs"}),
        ({"prompt": "x", "num_outputs": 5}, {"num_outputs"}),
        ({"prompt": "x", "num_outputs": 1.0001}, {"num_outputs"}),
        ({"prompt": "x", "num_outputs": True}, {"num_outputs"}),
        ({"prompt": "x", "num_outputs": False}, {"num_outputs"}),
        ({"prompt": "x", "num_outputs": "2"}, {"num_outputs"}),
        ({"prompt": "x", "num_outputs": []}, {"num_outputs"}),
        ({"prompt": "x", "aspect_ratio": "2:1"}, {"aspect_ratio"}),
        ({"prompt": "x", "aspect_ratio": "1:1 "}, {"aspect_ratio"}),
        ({"prompt": "x", "aspect_ratio": 1}, {"aspect_ratio"}),
        ({"prompt": "x", "aspect_ratio": None}, {"aspect_ratio"}),
        ({"prompt": "x", "": 1}, {""}),
        ({"prompt": "x", "a.b": 1, "\0": 2}, {"a.b", "\0"}),
        ({"prompt": "x", "jobId": "job_1", "cost_milli": 0, "account_id": "x"}, {"jobId", "cost_milli", "account_id"}),
        ({"prompt": "x", "__proto__": {}, "$ref": "#"}, {"__proto__", "$ref"}),
        ({"prompt": "x", "image_url": ""}, {"image_url"}),
        ({"prompt": "x", "image_url": 5}, {"image_url"}),
        ({"prompt": "x", "webhook_url": ""}, {"webhook_url"}),
        ({"prompt": "x", "webhook_url": []}, {"webhook_url"}),
        ({"prompt": "x", "webhook_url": "https://a.test/\0"}, {"webhook_url"}),
        (
            {"promt": "x", "seed": "1", "num_outputs": 9, "aspect_ratio": "1", "image_url": 1, "webhook_url": 1},
            {"prompt", "promt", "seed", "num_outputs", "aspect_ratio", "image_url", "webhook_url"},
        ),
    ],
)
def test_every_fault_is_named_by_its_path(ana: Person, body: dict[str, Any], named: set[str]) -> None:
    response = ana.ask("POST", RUN, json=body)
    found = faults(response)
    assert set(found) == named
    error = response.json()["error"]
    assert error["message"].startswith(f"{error['details'][0]['path']}: ".removeprefix(": "))
    assert len(response.content) < 4000


def test_the_remedy_is_named_too(ana: Person) -> None:
    found = faults(ana.ask("POST", RUN, json={"promt": "x", "sead": 1, "zzz": 1, "num_outputs": True, "seed": None}))
    assert "did you mean 'prompt'" in found["promt"]
    assert "did you mean 'seed'" in found["sead"]
    assert "prompt, image_url" in found["zzz"]
    assert found["num_outputs"] == "must be a whole number, not true"
    assert found["seed"] == "must be a whole number, not null"
    assert found["prompt"] == "is required"


def test_a_huge_body_of_nonsense_is_answered_soon_and_shortly(ana: Person) -> None:
    names = json.dumps({f"parameter number {number}": 1 for number in range(20_000)}).encode()
    started = time.perf_counter()
    response = ana.ask("POST", RUN, content=names)
    assert "at most 256 members" in fault(response, 400, "validation_error")["message"]
    several = ana.ask("POST", RUN, json={f"parameter number {number}": 1 for number in range(250)})
    assert len(fault(several, 400, "validation_error")["details"]) == 50
    assert max(len(response.content), len(several.content)) < 20_000
    fault(ana.ask("POST", RUN, json={"prompt": ["\0"] * 100_000}), 400, "validation_error")
    fault(ana.ask("POST", RUN, json={"x" * 1_000_000: 1}), 400, "validation_error")
    fault(ana.ask("POST", RUN, json={"prompt": list(range(100_000))}), 400, "validation_error")
    assert time.perf_counter() - started < 3


def test_unknown_models(ana: Person) -> None:
    for model in ("none", "Testcard", "testcard ", "..", "%00", "dojo-mini"):
        fault(ana.run(model=model), 404, "not_found")


@pytest.mark.parametrize(("sent", "kept"), [("2.0", 2), ("2", 2), ("2e0", 2), ("0.2e1", 2)])
def test_a_whole_number_may_be_written_with_a_point(still: Service, sent: str, kept: int) -> None:
    ben = still.person()
    body = f'{{"prompt": "x", "num_outputs": {sent}, "seed": 4294967295.0}}'.encode()
    receipt = ben.ask("POST", RUN, content=body).json()
    assert receipt["creditCost"] == 2
    raw = ben.ask("GET", receipt["statusUrl"]).text
    assert f'"num_outputs":{kept},' in raw
    assert '"seed":4294967295' in raw
    assert "4294967295.0" not in raw


def test_a_webhook_is_no_data_uri(ana: Person) -> None:
    assert set(faults(ana.run(webhook_url=_uri(PNG)))) == {"webhook_url"}


def test_urls_that_may_be_followed(still: Service) -> None:
    ben = still.person()
    for url in ("https://example.com/a.png?b=c#d", "https://1.1.1.1/", "https://bücher.example/",
                "https://[2606:4700::1111]/",
                "HTTPS://EXAMPLE.COM:8443"):  # fmt: skip
        receipt = ben.submit(webhook_url=url, image_url=url)
        assert ben.job(receipt["jobId"])["input"]["image_url"] == url


@pytest.mark.parametrize(
    "uri",
    [
        "data:",
        "data:,",
        "data:image/png",
        "data:image/png;base64",
        "data:image/png;base64,",
        "data:image/png;base64,%%%",
        "data:image/png;base64,AAA",
        "data:image/png;base64,iVBOR===",
        "data:image/png;base64,é",
        "data:text/html;base64,PGI+",
        "data:image/svg+xml;base64,PHN2Zy8+",
        "data:image/gif;base64,R0lGODlhAQABAAAAACw=",
        "data:;base64,iVBORw0KGgo=",
        "DATA:image/png;base64,iVBORw0KGgo=",
        _uri(b"GIF89a"),
        _uri(b"\x89PNG\r\n\x1a\n"),
        _uri(PNG[: len(PNG) // 2]),
        _uri(PNG[:40] + b"\xff" * 40 + PNG[80:]),
        _uri(_picture("JPEG")[:-100]),
        _uri(_picture("WEBP")[:-50], "image/webp"),
        _uri(_bomb()),
        _uri(b"\0" * (11 * 2**20)),
        _uri(b"<?xml version='1.0'?><svg/>"),
        f"data:image/png;{'x' * 5000};base64,{base64.b64encode(PNG).decode()}",
    ],
)
def test_data_uris_that_are_no_pictures(ana: Person, uri: str) -> None:
    response = ana.run(image_url=uri)
    assert set(faults(response)) == {"image_url"}
    assert len(response.content) < 1000


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_a_picture_inside_the_request(service: Service, form: str) -> None:
    ben = service.person()
    data = _picture(form)
    job = ben.done(image_url=_uri(data, f"image/{form.lower()}"), seed=1)
    assert job["status"] == "completed"
    assert job["input"]["image_url"] == f"data:image/{form.lower()};base64,…"
    same = ben.done(image_url=_uri(data, "image/png"), seed=1)  # what it is called does not matter
    other = ben.done(image_url=_uri(_picture(size=(8, 8))), seed=1)
    none = ben.done(seed=1)
    made = [service.ask("GET", each["output"]["image"]).content for each in (job, same, other, none)]
    assert made[0] == made[1]
    assert len(set(made)) == 3
    assert ben.entries()[1:] == [("charge", -1000)] * 4


def test_a_scheme_in_capitals_is_a_data_uri_as_well(service: Service) -> None:
    job = service.person().done(image_url="DATA" + _uri(PNG)[4:])
    assert job["status"] == "completed"


def test_a_picture_counts_for_idempotency(service: Service) -> None:
    ben = service.person()
    first = ben.submit(key="k", image_url=_uri(PNG))
    assert ben.submit(key="k", image_url=_uri(PNG))["jobId"] == first["jobId"]
    assert "Idempotency-Key" in faults(ben.run(key="k", image_url=_uri(_picture(size=(8, 8)))))
    assert ben.wait(first["jobId"])["status"] == "completed"


def test_a_picture_is_kept_for_every_attempt_and_not_longer(service: Service) -> None:
    ben = service.person()
    for prompt, code in (("!raise", "engine_failed"), ("!refuse", "validation_error")):
        job = ben.done(prompt, image_url=_uri(PNG))
        assert job["error"]["code"] == code
        assert service.read(lambda tx, job_id: tx.all("SELECT name FROM job_inputs WHERE job_id = ?", job_id),
                            job_id=job["jobId"]) == []  # fmt: skip
    assert ben.balance() == 100_000


class Source:
    """A real server of pictures."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split()[1].decode()
            self.asked.append(path)
            if path == "/slow":
                await reader.read()  # says nothing until the other side gives up
            else:
                writer.write(self._reply(path))
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    def _reply(self, path: str) -> bytes:
        bodies = {
            "/good.png": PNG,
            "/huge": PNG + bytes(60_000),
            "/page": b"<html>",
            "/cut": PNG[:-30],
            "/bomb": _bomb(),
        }
        if path == "/moved":
            return b"HTTP/1.1 302 Found\r\nlocation: /good.png\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        if path == "/inside":
            return b"HTTP/1.1 302 Found\r\nlocation: http://10.0.0.1/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        if path == "/short":
            return b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\nconnection: close\r\n\r\n" + PNG
        status, body = ("200 OK", bodies[path]) if path in bodies else (f"{path[1:]} No", b"secret of the inside")
        head = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        return head.encode() + body


@pytest.fixture
def fetching(serve: Callable[..., Service]) -> Iterator[tuple[Person, str, Source]]:
    """Somebody whose service may fetch from this machine, a source there, and its address."""
    service = serve(
        allow_networks=LOOPBACK, input_timeout_s=0.3, input_max_bytes=50_000, max_attempts=2, janitor_interval_s=0.1
    )
    source = Source()
    with contextlib.ExitStack() as stack:
        context = source.listening()
        address = service.do(context.__aenter__())
        stack.callback(lambda: service.do(context.__aexit__(None, None, None)))
        yield service.person(), address, source


def test_a_picture_from_a_url(fetching: tuple[Person, str, Source]) -> None:
    ben, address, source = fetching
    job = ben.done(image_url=f"{address}/good.png", seed=1)
    assert (job["status"], job["input"]["image_url"]) == ("completed", f"{address}/good.png")
    moved, sent = ben.done(image_url=f"{address}/moved", seed=1), ben.done(image_url=_uri(PNG), seed=1)
    made = {ben.service.ask("GET", each["output"]["image"]).content for each in (job, moved, sent)}
    assert len(made) == 1
    assert source.asked == ["/good.png", "/moved", "/good.png"]


@pytest.mark.parametrize(
    ("path", "code", "word", "tries"),
    [
        ("/404", "input_unavailable", "404", 1),
        ("/403", "input_unavailable", "403", 1),
        ("/503", "input_unavailable", "503", 2),
        ("/slow", "input_unavailable", "took longer", 2),
        ("/short", "input_unavailable", "cut short", 2),
        ("/huge", "input_unavailable", "larger than 50,000 bytes", 1),
        ("/inside", "input_unavailable", "not public", 1),
        ("/page", "validation_error", "not a picture", 1),
        ("/cut", "validation_error", "damaged", 1),
        ("/bomb", "validation_error", "too large", 1),
    ],
)
def test_a_source_that_fails_fails_the_job_and_refunds_it(
    fetching: tuple[Person, str, Source], path: str, code: str, word: str, tries: int
) -> None:
    ben, address, source = fetching
    job = ben.done(image_url=f"{address}{path}")
    assert (job["status"], job["error"]["code"]) == ("failed", code)
    assert job["error"]["message"].startswith("image_url: ")
    assert word in job["error"]["message"]
    assert "secret" not in job["error"]["message"]
    assert len(source.asked) == tries
    assert ben.entries() == [("grant", 100_000), ("charge", -1000), ("refund", 1000)]
    ben.service.audit()


def test_nobody_listens_there(fetching: tuple[Person, str, Source]) -> None:
    ben, _, _ = fetching
    job = ben.done(image_url="http://127.0.0.1:9/a.png")
    assert job["error"]["code"] == "input_unavailable"
    assert ben.balance() == 100_000


def test_this_machine_is_out_of_reach_unless_allowed(still: Service, fetching: tuple[Person, str, Source]) -> None:
    _, address, source = fetching
    ben = still.person()
    for url in (f"{address}/good.png", address.replace("http", "https"), address.replace("127.0.0.1", "localhost")):
        assert set(faults(ben.run(image_url=url))) == {"image_url"}
    assert ben.entries() == [("grant", 100_000)]
    assert source.asked == []


def test_a_result_is_an_input(service: Service) -> None:
    """The URL of a result works although it leads to a private address: it is read, not fetched."""
    ana, ben = service.person(), service.person()
    first = ana.done("bars", seed=1)
    url = first["output"]["image"]
    made = ana.done("more", seed=2, image_url=url)
    held = service.ask("GET", url).content
    assert (
        service.ask("GET", made["output"]["image"]).content
        == service.ask("GET", ana.done("more", seed=2, image_url=_uri(held))["output"]["image"]).content
    )
    elsewhere = url.replace(BASE, "https://cdn.example.com/under/a/path")
    assert ben.done("more", seed=2, image_url=elsewhere)["status"] == "completed"  # who has the URL may use it
    job_id = ana.submit("more", seed=2, image_url=url, priority=-5)["jobId"]
    assert ana.ask("DELETE", f"{API}/jobs/{first['jobId']}").status_code == 200
    assert ana.wait(job_id)["status"] == "completed"  # it has a copy of its own


def test_what_is_no_result_of_ours_any_more(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    ana = service.person()
    job = ana.done("bars")
    url = job["output"]["image"]
    balance = ana.balance()

    def told(image_url: str) -> str:
        (message,) = faults(ana.run(image_url=image_url)).values()
        return str(message)

    assert "https://" in told(url[:-1] + ("0" if url[-1] != "0" else "1"))
    assert "https://" in told(url.replace("0.png", "1.png"))
    assert "https://" in told(url + "&more=1")
    assert "https://" in told(url.replace("expires=", "expires=1"))
    ana.ask("DELETE", f"{API}/jobs/{job['jobId']}")
    service.do(Janitor(service.house).step())
    assert "expired" in told(url)
    monkeypatch.setattr(clock, "now_ms", lambda: 2**42)
    assert "expired" in told(url)
    assert ana.balance() == balance
