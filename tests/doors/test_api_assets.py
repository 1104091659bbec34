"""Downloads by signed URL: whole, in parts, again, after changes to the URL, after the end."""

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from doors.conftest import API, BASE, DAY_MS, Service, fault
from pixeldojo.janitor import Janitor


class File:
    """One result, with its URL in pieces."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.person = service.person()
        self.job = self.person.done("bars")
        self.url: str = self.job["output"]["image"]
        self.path = urlsplit(self.url).path
        self.query = {name: values[0] for name, values in parse_qs(urlsplit(self.url).query).items()}
        self.data = self.get().content
        self.size = len(self.data)

    def get(self, method: str = "GET", **headers: str) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.service.ask(method, self.url, headers=named)

    def at(self, path: str = "", **query: str) -> Any:
        return self.service.ask("GET", path or self.path, params=self.query | query)


@pytest.fixture(scope="module")
def file(service: Service) -> File:
    return File(service)


def test_the_whole_file_without_a_key(file: File) -> None:
    answer = file.get()
    assert answer.status_code == 200
    assert answer.content.startswith(b"\x89PNG\r\n\x1a\n")
    headers = answer.headers
    assert headers["content-type"] == "image/png"
    assert int(headers["content-length"]) == file.size == file.job["assets"][0]["bytes"]
    assert headers["accept-ranges"] == "bytes"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-disposition"].startswith("inline; filename=")
    assert headers["etag"].startswith('"')
    assert "content-range" not in headers
    assert file.url.startswith(f"{BASE}{API}/assets/{file.job['jobId']}/0.png?")
    assert file.get(authorization="Bearer pd_wrong").status_code == 200  # a signature is enough, whatever else comes


def test_two_looks_give_the_same_url(file: File) -> None:
    assert file.person.job(file.job["jobId"])["output"]["image"] == file.url


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-9", 0, 10),
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=10-", 10, None),
        ("bytes=0-", 0, None),
        ("bytes=-10", -10, None),
        ("bytes=-999999", 0, None),
        ("bytes=5-999999", 5, None),
        (" bytes=0-9 ", 0, 10),
    ],
)
def test_one_range(file: File, asked: str, start: int, end: int | None) -> None:
    answer = file.get(range=asked)
    wanted = file.data[start:end]
    first = start if start >= 0 else file.size + start
    assert answer.status_code == 206
    assert answer.content == wanted
    assert answer.headers["content-range"] == f"bytes {first}-{first + len(wanted) - 1}/{file.size}"
    assert int(answer.headers["content-length"]) == len(wanted)
    head = file.get("HEAD", range=asked)
    assert (head.status_code, head.content) == (206, b"")
    assert head.headers["content-range"] == answer.headers["content-range"]
    assert head.headers["content-length"] == answer.headers["content-length"]


def test_the_last_byte(file: File) -> None:
    assert file.get(range=f"bytes={file.size - 1}-").content == file.data[-1:]
    assert file.get(range="bytes=-1").content == file.data[-1:]


@pytest.mark.parametrize("asked", ["bytes={size}-", "bytes={size}-{size}", "bytes=999999-1000000", "bytes=-0"])
def test_a_range_outside_the_file(file: File, asked: str) -> None:
    for method in ("GET", "HEAD"):
        answer = file.get(method, range=asked.format(size=file.size))
        assert answer.status_code == 416
        assert answer.headers["content-range"] == f"bytes */{file.size}"
        if method == "GET":
            fault(answer, 416, "validation_error")


@pytest.mark.parametrize(
    "asked",
    ["bytes=0-1,3-4", "bytes=0-0,-1", "bytes", "bytes=", "bytes=-", "bytes=x-y", "bytes=9-0", "items=0-9", "0-9",
     "bytes=0-9x", "bytes=--9", "bytes=0x0-9", "bytes=" + "9" * 4000 + "-", "bytes=0-" + "9" * 30],
)  # fmt: skip
def test_ranges_that_are_answered_with_the_whole_file(file: File, asked: str) -> None:
    answer = file.get(range=asked)
    assert (answer.status_code, answer.content) == (200, file.data)


def test_head(file: File) -> None:
    head, whole = file.get("HEAD"), file.get()
    assert (head.status_code, head.content) == (200, b"")
    same = ("content-type", "content-length", "etag", "accept-ranges", "cache-control", "content-disposition")
    assert [head.headers[name] for name in same] == [whole.headers[name] for name in same]


def test_etags(file: File) -> None:
    tag = file.get().headers["etag"]
    for method in ("GET", "HEAD"):
        for sent in (tag, f"W/{tag}", f'"other", {tag}', f'"other",W/{tag}', "*"):
            same = file.get(method, if_none_match=sent)
            assert (same.status_code, same.content) == (304, b""), sent
            assert same.headers["etag"] == tag
        for sent in ('"other"', tag.strip('"'), "", f"{tag[:-2]}"):
            assert file.get(method, if_none_match=sent).status_code == 200, sent
    assert file.get(if_none_match=tag, range="bytes=0-9").status_code == 304
    assert File(file.service).get().headers["etag"] != tag


def test_if_range(file: File) -> None:
    tag = file.get().headers["etag"]
    assert file.get(range="bytes=0-9", if_range=tag).status_code == 206
    for other in ('"other"', f"W/{tag}", "Wed, 21 Oct 2026 07:28:00 GMT"):
        answer = file.get(range="bytes=0-9", if_range=other)
        assert (answer.status_code, answer.content) == (200, file.data)
    assert file.get(range="bytes=99999999-", if_range='"other"').status_code == 200


def test_every_output_has_its_own_url(service: Service) -> None:
    urls = service.person().done(num_outputs=4)["output"]["images"]
    bodies = {service.ask("GET", url).content for url in urls}
    assert len(bodies) == len(set(urls)) == 4


def test_after_the_end(service: Service, later: Callable[[int], None]) -> None:
    file = File(service)
    tag = file.get().headers["etag"]
    later(DAY_MS + 1000)
    fault(file.get(), 410, "expired")
    fault(file.get(range="bytes=0-9"), 410, "expired")
    fault(file.get(if_none_match=tag), 410, "expired")
    assert file.get("HEAD").status_code == 410
    fault(file.at(expires=str(int(file.query["expires"]) + DAY_MS)), 404, "not_found")


def test_a_file_that_is_gone_early(service: Service) -> None:
    file = File(service)
    service.do(service.house.files.remove_job(file.job["jobId"]))
    fault(file.get(), 410, "expired")
    assert file.get("HEAD").status_code == 410
    assert service.do(service.house.files.remove_job(file.job["jobId"])) == 0


def test_a_sweep_takes_only_what_has_expired(serve: Callable[..., Service], later: Callable[[int], None]) -> None:
    service = serve()
    old = File(service)
    later(DAY_MS // 2)
    young = File(service)
    later(DAY_MS // 2 + 1000)
    service.do(Janitor(service.house).step())
    assert service.files(old.job["jobId"]) == []
    assert (old.get().status_code, young.get().content) == (410, young.data)


def test_secrets_and_urls_outlive_a_restart(serve: Callable[..., Service]) -> None:
    file = File(serve())
    again = serve(works=False, data_dir=file.service.house.settings.data_dir)
    assert again.ask("GET", file.url).content == file.data


def test_downloads_on_the_wire(file: File) -> None:
    url = file.url.removeprefix(BASE)
    with file.service.wire() as wire:
        assert wire.ask(f"GET {url} HTTP/1.1").content == file.data
        assert wire.ask(f"GET {url} HTTP/1.1\r\nrange: bytes=3-7").content == file.data[3:8]
        head = wire.send(f"HEAD {url} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        assert head.endswith(b"\r\n\r\n")
        assert f"content-length: {file.size}".encode() in head.lower()
        tag = file.get().headers["etag"]
        same = wire.send(f"GET {url} HTTP/1.1\r\nhost: x\r\nif-none-match: {tag}\r\nconnection: close\r\n\r\n".encode())
        assert same.startswith(b"HTTP/1.1 304 ")
        assert same.endswith(b"\r\n\r\n")
