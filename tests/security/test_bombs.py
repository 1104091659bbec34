"""Small things that want to become large: pictures, compressed bodies, JSON, answers without an end."""

import asyncio
import gzip
import ipaddress
import json
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

import pixeldojo
from doors.conftest import API, RUN, Person, Service, fault, faults
from doors.test_api_inputs import _uri
from pixeldojo import outbound
from pixeldojo.api import run as run_door
from pixeldojo.assets import pictures
from pixeldojo.outbound import OutboundError
from pixeldojo.post import Poster
from postbox import Postbox
from security import bombs

HOME = (ipaddress.ip_network("127.0.0.0/8"),)


@pytest.fixture(scope="module")
def ana(site: Service) -> Person:
    return site.person()


_LIMITED = """
import pickle, resource, sys
from pixeldojo.assets import pictures
for name, data in pickle.load(sys.stdin.buffer).items():
    start = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (start + 300 * 2**20, resource.getrlimit(resource.RLIMIT_AS)[1]))
    try:
        pictures.check(data)
        print(name, "was taken")
    except pictures.PictureError:
        pass
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory work otherwise there")
def test_pictures_that_want_to_become_large() -> None:
    """In a process that may not take more than 300 MB: each is refused, or is a small picture after all."""
    import pickle

    done = subprocess.run(
        [sys.executable, "-c", _LIMITED],
        input=pickle.dumps(bombs.pictures()),
        env={"PYTHONPATH": str(Path(pixeldojo.__file__).parents[1])},
        capture_output=True,
        check=True,
        timeout=60,
    )
    taken = done.stdout.decode().splitlines()
    assert set(taken) <= {
        f"{name} was taken"
        for name in bombs.pictures()
        if "text of" in name or "profile of" in name or "more rows" in name
    }  # what surrounds the pixels is not unpacked
    assert done.stderr == b""


def test_they_are_refused_through_the_api(ana: Person) -> None:
    for name, data in bombs.pictures().items():
        if len(data) > 100_000 or "text of" in name or "profile of" in name or "more rows" in name:
            continue
        for kind in ("image/png", "image/webp"):
            answer = ana.run(image_url=_uri(data, kind))
            assert set(faults(answer)) == {"image_url"}, name


def test_no_picture_is_decoded_for_somebody_without_a_key(site: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four kilobytes can be thirty million pixels: that is work, and only for those who can be asked to pay."""
    decoded: list[int] = []
    monkeypatch.setattr(pictures, "check", lambda data: decoded.append(len(data)))
    small = bombs.png(5792, 5792, rows=bytes(725 * 5792))
    assert len(small) < run_door._SMALL_BODY / 2
    for uri in (_uri(small), "DATA" + _uri(small)[4:]):
        for route in (RUN, f"{API}/models/testcard/estimate"):
            for headers in ({}, {"authorization": "Bearer pd_made-up"}):
                answer = site.ask("POST", route, json={"prompt": "x", "image_url": uri}, headers=headers)
                fault(answer, 401, "unauthorized")
    assert decoded == []


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "identity, gzip", "gzip, gzip", "x-gzip"])
def test_a_compressed_request_is_not_unpacked(ana: Person, coding: str) -> None:
    bomb = gzip.compress(b'{"prompt": "' + b"x" * 20_000_000 + b'"}')
    for body in (bomb, gzip.compress(b'{"prompt": "x"}'), zlib.compress(b'{"prompt": "x"}')):
        answer = ana.ask("POST", RUN, content=body, headers={"content-encoding": coding})
        fault(answer, 400, "invalid_json")
        assert len(answer.content) < 500


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "identity, gzip", "GZIP", "compress"])
def test_a_compressed_answer_is_not_unpacked(coding: str) -> None:
    bomb = gzip.compress(bytes(5_000_000))

    async def test() -> None:
        async with Postbox() as box:
            head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: {len(bomb)}\r\n\r\n"
            box.answers["/"] = head.encode() + bomb
            with pytest.raises(OutboundError) as caught:
                await outbound.fetch(box.url("/"), allow=HOME, timeout_s=5, max_bytes=10**6)
            assert caught.value.permanent
            answer = await Poster(HOME).post(box.url("/"), headers={}, body=b"{}", timeout_s=5, most=2048)
            assert answer.body == bomb[:2048], "as it came"

    asyncio.run(test())


def test_json_that_wants_to_become_large(ana: Person) -> None:
    before = ana.entries()
    for name, body in bombs.bodies().items():
        answer = ana.ask("POST", RUN, content=body)
        assert answer.status_code == 400, (name, answer.text[:300])
        assert answer.json()["error"]["code"] in ("invalid_json", "validation_error"), name
        assert len(answer.content) < 20_000, name
        fault(ana.service.ask("POST", RUN, content=body), 401, "unauthorized")
    assert ana.entries() == before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory work otherwise there")
def test_what_is_wrong_with_a_body_takes_little_memory_to_say() -> None:
    """Each wrong name of an object once cost a copy of the object."""
    code = """
import resource, sys
from pixeldojo.catalogue import card, checks
from pixeldojo.catalogue.service import Catalogue
listed = Catalogue([each for each in card.read_all(None) if each.api_id == "testcard"])._listed["testcard"]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for count, size in ((256, 100), (200, 300), (60, 1000), (257, 10), (5000, 1), (250, 40_000)):
    names = {f"k {number}": "z" * size for number in range(count)}
    for body in ({"prompt": "x", "metadata": names}, {"prompt": "x", "": names}, names, {"prompt": [names] * 30}):
        assert 0 < len(checks.faults(listed.validator, body, known=listed.known)) <= 50
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    env = {"PYTHONPATH": str(Path(pixeldojo.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True, timeout=60)
    assert int(done.stdout) < 100, "megabytes"


def test_of_two_members_with_one_name_the_last_counts_everywhere(ana: Person) -> None:
    """So what is checked is what is run, priced and shown."""
    body = (
        b'{"prompt": "x", "num_outputs": 4, "num_outputs": 1, "webhook_url": "https://127.0.0.1/", "webhook_url": "%s"}'
    )
    answer = ana.ask("POST", RUN, content=body % b"https://public.test/")
    assert answer.status_code == 202, answer.text
    assert answer.json()["creditCost"] == 1
    job = ana.job(answer.json()["jobId"])
    assert (job["input"]["num_outputs"], job["webhook"]["url"]) == (1, "https://public.test/")
    assert "webhook_url" in faults(ana.ask("POST", RUN, content=body % b"https://127.0.0.1/"))


def test_queries_of_very_many_parts(ana: Person) -> None:
    owner = ana.another_key(scopes=["account:read", "account:write", "jobs:read"])
    parts = ("metadata.a{}=1", "metadata.a=1", "a{}=1", "a=1", "groupBy=day", "limit=1", "cursor=x", "status=failed")
    for part in parts:
        query = "&".join(part.format(number) for number in range(3000))
        for path in ("jobs", "account/usage", "account/ledger", "account/keys", "models"):
            assert owner.ask("GET", f"{API}/{path}?{query}").status_code in (200, 400), (path, part)
    sixteen = "&".join(f"metadata.a{number}=1" for number in range(16))
    assert owner.jobs(f"?{sixteen}") == {"jobs": [], "nextCursor": None}
    assert set(faults(owner.ask("GET", f"{API}/jobs?{sixteen}&metadata.more=1"))) == {"metadata"}


async def _for_ever(writer: asyncio.StreamWriter, first: bytes, more: bytes) -> None:
    writer.write(first)
    while True:
        writer.write(more)
        await writer.drain()
        await asyncio.sleep(0)


ENDLESS: dict[str, tuple[bytes, bytes]] = {
    "a body": (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536),
    "chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + b"x" * 4096 + b"\r\n"),
    "tiny chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 1000),
    "an extension of a chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x" * 65536),
    "trailers": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"x-a: b\r\n" * 1000),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"x-a: b\r\n" * 1000),
    "one header": (b"HTTP/1.1 200 OK\r\nx-a: ", b"x" * 65536),
    "hints": (b"", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 100),
    "a reason": (b"HTTP/1.1 200 ", b"x" * 65536),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_an_answer_without_an_end(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The picture's and the webhook's: little is read of it, and neither waits for more."""
    monkeypatch.setattr("pixeldojo.post._BODY_S", 0.2)
    first, more = ENDLESS[kind]
    sent = 0

    async def flood(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(first)
        while True:
            writer.write(more)
            await writer.drain()
            sent += len(more)
            await asyncio.sleep(0.001)

    async def test() -> None:
        async with Postbox() as box:
            box.answers["/"] = flood
            with pytest.raises(OutboundError):
                await outbound.fetch(box.url("/"), allow=HOME, timeout_s=1, max_bytes=100_000)
            poster = Poster(HOME)
            try:
                answer = await poster.post(box.url("/"), headers={}, body=b"{}", timeout_s=1, most=2048)
                assert (answer.status, len(answer.body) <= 2048) == (200, True)
            except OutboundError as error:
                assert error.message
            assert poster._by_target == {}, "nobody uses that connection again"
            poster.close()

    asyncio.run(test())
    assert sent < 256 * 2**20


def test_a_slow_receiver_of_one_account_holds_up_no_other(serve: Callable[..., Service]) -> None:
    """Through the courier: one that drips for ever is given up, and the next one is heard meanwhile."""
    service = serve(allow_networks=HOME, webhook_timeout_s=1.0, webhook_retry_schedule=(0,))
    box = Postbox()

    async def drip(writer: asyncio.StreamWriter) -> None:
        await _for_ever(writer, b"HTTP/1.1 200 OK\r\nx-a: ", b"x")

    box.answers["/drip"] = drip
    service.do(box.__aenter__())
    try:
        eve, ana = service.person(), service.person()
        slow = [eve.submit(webhook_url=box.url("/drip"))["jobId"] for _ in range(5)]
        ana.submit(webhook_url=box.url("/quick"))
        service.until(lambda: len(box.at("/quick")), lambda count: count == 1)
        for job_id in slow:
            told = service.until(
                lambda job_id=job_id: eve.ask("GET", f"{API}/jobs/{job_id}/webhook").json(),  # type: ignore[misc]
                lambda seen: bool(seen["status"] == "failed"),
            )
            assert json.dumps(told["deliveries"][0]["attempts"]).count("no answer within 1 s") == 1
    finally:
        service.do(box.__aexit__())
