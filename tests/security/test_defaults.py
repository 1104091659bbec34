"""What SECURITY.md says of the defaults is what the program does: files, processes, limits, cards."""

import asyncio
import ipaddress
import json
import os
import re
import socket
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest

from doors.conftest import API, Service
from pixeldojo import ids, limits, outbound, post, settings
from pixeldojo.accounts import handing
from pixeldojo.accounts import service as accounts
from pixeldojo.api import connections, fields
from pixeldojo.api import jobs as jobs_door
from pixeldojo.assets import pictures
from pixeldojo.catalogue import card, checks
from pixeldojo.catalogue.card import CardError, EngineSpec
from pixeldojo.catalogue.service import URL_CHARS
from pixeldojo.jobs import intake
from pixeldojo.webhooks import service as webhooks
from pixeldojo.worker.runner import ChildRunner

ROOT = Path(__file__).parents[2]
PAGE = " ".join((ROOT / "SECURITY.md").read_text(encoding="utf-8").split())
USUAL = settings.Settings()


def _mb(size: int) -> str:
    return f"{size // 2**20} MiB"


def _kb(size: int) -> str:
    return f"{size // 1024} KiB"


SAID = (
    f"listens on {USUAL.host}",
    f"`{USUAL.rate_limit}`",
    f"| request body | {_mb(USUAL.max_body_bytes)}",
    f"| request body without a key, or of the account API | {_kb(fields._MOST_BYTES)}",
    f"| request head | {_kb(connections.HEAD_BYTES)}",
    f"| a client that stalls with a request, or takes nothing of its answer | {USUAL.client_timeout_s:g} s",
    f"{_kb(connections.BODY_PACE)}/s",
    f"| requests that are half sent | {connections.MOST_WAITING:,}",
    f"| members of an object in a request of more than {_kb(checks._SMALL)} | {checks._MOST_MEMBERS}",
    f"| values in a request of more than {_kb(checks._SMALL)} | {checks._MOST_VALUES:,}",
    f"| commas and brackets in a large request | {intake._MOST_PARTS:,}",
    f"| metadata filters of a list | {jobs_door._MOST_FILTERS}",
    f"| URL of a picture or a webhook | {URL_CHARS:,} characters",
    f"| input picture | {_mb(USUAL.input_max_bytes)}, {pictures.MAX_PIXELS:,} pixels",
    f"no side over {pictures.MAX_SIDE:,}",
    f"{pictures.MAX_PARTS:,} parts",
    f"| fetching an input picture | {USUAL.input_timeout_s:g} s, {outbound.MAX_REDIRECTS} redirects",
    f"| one attempt at a webhook | {USUAL.webhook_timeout_s:g} s",
    f"{_kb(post._HEAD_BYTES)} of head, {webhooks.RESPONSE_BYTES:,} bytes of body kept",
    f"{post._BODY_S:g} s for it",
    f"| attempts at a webhook | {len(USUAL.webhook_retry_schedule)}",
    f"| attempts at a job | {USUAL.max_attempts}",
    f"| keys of an account that work | {handing.MOST_KEYS}",
    f"| results and prompts | {USUAL.retention_s // 3600} hours",
    f"| webhook secret after a rotation | {webhooks.ROTATION_MS // 3_600_000} hours",
    f"| look-ups of names at once | {outbound.MAX_CONNECTIONS}",
)


@pytest.mark.parametrize("sentence", SAID)
def test_the_page_says_what_the_program_does(sentence: str) -> None:
    assert sentence in PAGE


def test_what_it_says_of_keys_and_secrets() -> None:
    assert "192 random bits" in PAGE
    assert len(ids.new_key()) == 3 + 192 // 6
    assert "SHA-256" in PAGE
    assert "256 random bits" in PAGE
    assert len(ids.new_secret()) * 4 == 256
    for scope in accounts.SCOPES:
        assert f"`{scope}`" in PAGE
    assert f"has {', '.join(f'`{scope}`' for scope in accounts.DEFAULT_SCOPES)}" in PAGE


def test_what_it_names_exists() -> None:
    known = {variable for variable, *_ in settings.describe(USUAL)}
    assert {name.removesuffix("_FILE") for name in re.findall(r"PIXELDOJO_[A-Z_]+[A-Z]", PAGE)} <= known
    for path in re.findall(r"`((?:tests|src|docs)/[\w/.]+)`", PAGE):
        assert (ROOT / path).exists(), path


def test_the_settings_that_open_something_are_closed() -> None:
    assert USUAL.host == "127.0.0.1"
    assert USUAL.allow_networks == USUAL.trusted_proxies == ()
    assert USUAL.metrics_allow == (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
    assert not (USUAL.testcard or USUAL.keep_inputs or USUAL.access_log or USUAL.otlp_endpoint or USUAL.models_dir)
    assert limits.parse(USUAL.rate_limit) == (60, 60)


def test_only_the_owner_reads_the_data(serve: Callable[..., Service]) -> None:
    before = os.umask(0)  # the usual one would hide what is wrong
    try:
        service = serve()
        folder = service.house.settings.data_dir
        job = service.person().done()
        modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.iterdir()]}
    finally:
        os.umask(before)
    assert {path.name for path in modes} >= {"assets", "work", "pixeldojo.db", "pixeldojo.db-wal"}
    assert not [path for path, mode in modes.items() if mode & 0o077], modes
    inner = folder / "assets" / job["jobId"]
    assert stat.S_IMODE(inner.stat().st_mode) == 0o700


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc tells of processes there alone")
def test_an_engine_s_process_knows_and_holds_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No secret in its environment, no file of ours open, a process group of its own, and an end with ours."""
    private = {
        "PIXELDOJO_DATABASE_URL": "postgresql://u:geheim@h/d", "PIXELDOJO_API_KEY": "pd_geheim", "PGPASSWORD": "geheim",
        "AWS_SECRET_ACCESS_KEY": "geheim", "SOME_TOKEN": "geheim", "REDIS_URL": "redis://:geheim@h",
    }  # fmt: skip
    for name, value in private.items():
        monkeypatch.setenv(name, value)
    held = (tmp_path / "pixeldojo.db").open("w")
    os.set_inheritable(held.fileno(), True)

    async def look() -> None:
        runner = ChildRunner(EngineSpec(family="testcard"), folder=tmp_path / "out")
        await runner.start()
        pid = runner.pid
        assert pid is not None
        proc = Path(f"/proc/{pid}")
        environment = proc.joinpath("environ").read_bytes()
        assert b"geheim" not in environment
        assert b"PIXELDOJO_" not in environment
        assert b"geheim" not in proc.joinpath("cmdline").read_bytes()
        held_there = [str(path.readlink()) for path in proc.joinpath("fd").iterdir()]
        assert not [path for path in held_there if "pixeldojo.db" in path]
        assert os.getpgid(pid) == pid != os.getpgid(0)
        await runner.stop()
        assert not proc.exists() or "zombie" in proc.joinpath("status").read_text()

    asyncio.run(look())
    held.close()


def _card(folder: Path, **parameter: Any) -> Path:
    test = json.loads((Path(card.__file__).parent / "cards" / "testcard.json").read_text())
    test |= {"apiId": "made", "engine": {"family": "testcard"}}
    test["schema"]["properties"]["more"] = parameter
    path = folder / "made.json"
    path.write_text(json.dumps(test))
    return path


@pytest.fixture
def schemas() -> Iterator[tuple[str, list[str]]]:
    """A server of schemas, and what it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = b'{"type": "string"}'
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "parameter",
    [
        {"$ref": "{url}/a"},
        {"$ref": "{url}/a#/$defs/b"},
        {"$dynamicRef": "{url}/a#b"},
        {"$id": "{url}/base", "anyOf": [{"$ref": "other"}]},
        {"items": {"properties": {"x": {"$ref": "{url}/deep"}}}},
        {"$ref": "file://{file}"},
        {"$ref": "//127.0.0.1/a"},
        {"$ref": "other.json"},
    ],
    ids=str,
)
def test_a_card_fetches_nothing(tmp_path: Path, schemas: tuple[str, list[str]], parameter: dict[str, Any]) -> None:
    """The validator would fetch what a schema refers to, past the guard: so a card that needs that can't be used."""
    url, asked = schemas
    (tmp_path / "kept.txt").write_text('{"type": "string"}')
    text = json.dumps(parameter).replace("{url}", url).replace("{file}", str(tmp_path / "kept.txt"))
    with pytest.raises(CardError, match=r"made\.json: schema: "):
        card.read(_card(tmp_path, **json.loads(text)))
    assert asked == []


def test_a_card_may_refer_to_itself(tmp_path: Path, schemas: tuple[str, list[str]]) -> None:
    url, asked = schemas
    assert card.read(_card(tmp_path, **{"$ref": "#/properties/prompt"})).api_id == "made"
    assert card.read(_card(tmp_path, **{"$schema": f"{url}/meta", "type": "string"})).api_id == "made"
    assert asked == []


def test_asking_whether_the_service_is_ready_is_cheap(site: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """It needs no key and is not counted, so a thousand questions are one write."""
    real, written = site.house.db.write, []

    async def write(fn: Any, *more: Any, **named: Any) -> Any:
        written.append(fn)
        return await real(fn, *more, **named)

    monkeypatch.setattr(site.house.db, "write", write)
    answers = site.ask_at_once(*[("GET", "/readyz", {})] * 50)
    assert {each.status_code for each in answers} == {200}
    assert written.count(accounts.touch) <= 2


def test_metrics_are_for_this_machine(site: Service) -> None:
    async def ask(client: tuple[str, int], **headers: str) -> int:
        transport = httpx2.ASGITransport(site.app, client=client)
        async with httpx2.AsyncClient(transport=transport, base_url="http://x") as asking:
            return (await asking.get("/metrics", headers=headers)).status_code

    assert site.do(ask(("127.0.0.1", 1))) == 200
    for address in ("10.0.0.1", "192.168.1.5", "93.184.216.34", "::2", "fe80::1"):
        assert site.do(ask((address, 1))) == 404
    for name in ("X-Forwarded-For", "Forwarded", "X-Real-IP"):  # a proxy nobody named says nothing about its callers
        assert site.do(ask(("127.0.0.1", 1), **{name: "127.0.0.1"})) == 404


def test_the_service_listens_on_loopback() -> None:
    from pixeldojo import app

    sock = app.listen(settings.Settings(port=0))
    with sock:
        assert sock.getsockname()[0] == "127.0.0.1"
        assert sock.family == socket.AF_INET


def test_secrets_are_masked_where_settings_are_shown() -> None:
    shown = settings.describe(
        settings.Settings(database_url="postgresql://u:geheim@h/d", rate_limit_storage="redis://:geheim@h")
    )
    assert not [value for _, value, _ in shown if "geheim" in value]


def test_no_answer_with_a_secret_may_be_kept(site: Service) -> None:
    owner = site.person(scopes=["account:read", "account:write"])
    made = owner.ask("POST", f"{API}/account/keys", json={"name": "x", "scopes": ["account:read"]})
    for answer in (
        made,
        owner.ask("POST", f"{API}/account/keys/{made.json()['id']}/rotate", json={}),
        owner.ask("GET", f"{API}/account/webhook-secret"),
        owner.ask("POST", f"{API}/account/webhook-secret/rotate"),
    ):
        assert answer.status_code in (200, 201), answer.text
        assert answer.headers["cache-control"] == "no-store"
