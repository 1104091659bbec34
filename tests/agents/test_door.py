"""`/mcp` as HTTP sees it: who comes in, what the protocol's headers say, and what is refused in which words."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from mcp.shared.exceptions import MCPError

from agents.conftest import Desk, data_of, environment, fault_of, over_http
from doors.conftest import BASE, Person, Service
from pixeldojo import errors
from pixeldojo.api import app as api
from pixeldojo.assets.uploads import KEPT_S, Uploads

METADATA = "/.well-known/oauth-protected-resource"
ACCEPT = {"accept": "application/json, text/event-stream"}


def message(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def post(who: Person, body: Any, **headers: str) -> httpx2.Response:
    return who.ask("POST", "/mcp", json=body, headers=ACCEPT | headers)


def events(response: httpx2.Response) -> list[Any]:
    """The messages in an event stream."""
    assert response.headers["content-type"].startswith("text/event-stream")
    return [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: ")]


def refusal(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """The error of a request that was not let in: JSON-RPC, because clients show its message."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert body["jsonrpc"] == "2.0"
    assert body["id"] is None
    error: dict[str, Any] = body["error"]
    assert error["data"]["code"] == code
    assert error["data"]["requestId"] == response.headers["x-request-id"]
    assert error["message"].strip()
    return error


@pytest.fixture
def ana(web: Desk) -> Person:
    return web.ana


@pytest.mark.parametrize("authorization", [None, "Bearer pd_made-up", "Basic YTpi", "Bearer "])
def test_without_a_key_that_works(web: Desk, authorization: str | None) -> None:
    headers = ACCEPT | ({} if authorization is None else {"authorization": authorization})
    for method in ("POST", "GET", "OPTIONS"):
        answer = web.service.ask(method, "/mcp", json=message("ping"), headers=headers)
        refusal(answer, 401, "unauthorized")
        challenge = answer.headers["www-authenticate"]
        assert challenge.startswith("Bearer ")
        assert f'resource_metadata="{BASE}{METADATA}/mcp"' in challenge
        assert ('error="invalid_token"' in challenge) is (authorization is not None)


def test_of_two_keys_none_counts(web: Desk) -> None:
    two = [("authorization", f"Bearer {web.ana.key}"), ("authorization", f"Bearer {web.service.person().key}")]
    refusal(web.service.ask("POST", "/mcp", json=message("ping"), headers=[*ACCEPT.items(), *two]), 401, "unauthorized")


def test_a_revoked_key_is_out_with_the_next_call(ana: Person) -> None:
    key = ana.another_key()
    assert post(key, message("ping")).status_code == 200
    key.ask("DELETE", f"/api/v1/account/keys/{key.key_id}")
    assert "revoked" in refusal(post(key, message("ping")), 401, "unauthorized")["message"]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_client_without_a_key_shows_the_message(web: Desk, mode: str) -> None:
    async def enter() -> None:
        async with over_http(web.address, None, mode=mode):
            pass

    with pytest.raises(BaseExceptionGroup) as caught:
        web.service.do(enter())
    assert caught.group_contains(MCPError, match="Missing API key")


def test_the_metadata_that_clients_look_for(web: Desk, serve: Callable[..., Service]) -> None:
    for path in (METADATA, f"{METADATA}/mcp"):
        answer = web.service.ask("GET", path)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        told = answer.json()
        assert told["resource"] == f"{BASE}/mcp"
        assert told["bearer_methods_supported"] == ["header"]
        assert "authorization_servers" not in told, "RFC 9728: left out where there is none"
        assert web.service.ask("HEAD", path).content == b""
        assert refusal(web.service.ask("POST", path), 405, "not_found")
        assert web.service.ask("POST", path).headers["allow"] == "GET, HEAD"
    behind = serve(works=False, public_url="https://dojo.example/")
    assert behind.ask("GET", METADATA).json()["resource"] == "https://dojo.example/mcp"
    assert f"https://dojo.example{METADATA}/mcp" in behind.ask("POST", "/mcp").headers["www-authenticate"]


def test_pages_of_other_sites_are_refused(ana: Person, serve: Callable[..., Service]) -> None:
    for origin in (
        "https://evil.example",
        "http://dojo.test:8787",
        "null",
        "http://127.0.0.1.evil.example",
        "http://[",
    ):
        refusal(post(ana, message("ping"), origin=origin), 403, "unauthorized")
    for origin in ("http://localhost:6274", "http://127.0.0.1:8787", "http://[::1]:1"):
        assert post(ana, message("ping"), origin=origin).status_code == 200
    bob = serve(works=False, public_url="https://dojo.example").person()
    assert post(bob, message("ping"), origin="https://dojo.example").status_code == 200
    refusal(post(bob, message("ping"), origin="https://dojo.example.org"), 403, "unauthorized")


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
def test_there_are_no_sessions_and_no_streams_to_open(ana: Person, method: str) -> None:
    answer = ana.ask(method, "/mcp", headers=ACCEPT)
    refusal(answer, 405, "not_found")
    assert answer.headers["allow"] == "POST"


def test_a_body_that_is_too_large(serve: Callable[..., Service]) -> None:
    ana = serve(works=False, max_body_bytes=2000).person()
    large = json.dumps(message("ping", padding="x" * 3000)).encode()
    headers = ACCEPT | {"content-type": "application/json"}
    refusal(ana.ask("POST", "/mcp", content=large, headers=headers), 413, "validation_error")

    async def parts() -> Any:
        yield large[:1500]
        yield large[1500:]

    refusal(ana.ask("POST", "/mcp", content=parts(), headers=headers), 413, "validation_error")


def test_a_client_that_leaves_while_it_sends(ana: Person) -> None:
    came: list[dict[str, Any]] = [
        {"type": "http.request", "body": b'{"jsonrpc"', "more_body": True}, {"type": "http.disconnect"},
    ]  # fmt: skip
    sent: list[Any] = []

    async def ask() -> None:
        async def receive() -> dict[str, Any]:
            return came.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"host", b"dojo.test"), (b"authorization", f"Bearer {ana.key}".encode())]
        scope = {"type": "http", "method": "POST", "path": "/mcp", "scheme": "http", "headers": headers}
        await ana.service.app(scope | {"query_string": b"", "server": None, "client": None}, receive, send)

    ana.service.do(ask())
    assert sent == [], "nobody is there to hear anything"


def test_the_handshake_of_the_older_era_on_the_wire(ana: Person) -> None:
    about = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
    answer = post(ana, message("initialize", **about))
    assert answer.status_code == 200
    assert "mcp-session-id" not in answer.headers
    (told,) = events(answer)
    assert told["result"]["protocolVersion"] == "2025-06-18"
    assert told["result"]["serverInfo"]["name"] == "pixeldojo"
    assert told["result"]["capabilities"] == {"tools": {"listChanged": False}}
    ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    assert post(ana, ready).status_code == 202
    # nothing was kept: the next call is served by whoever gets it
    other = api.build(ana.service.house)
    headers = ACCEPT | {"mcp-protocol-version": "2025-06-18"}
    (told,) = events(ana.ask("POST", "/mcp", json=message("tools/list"), headers=headers, at=other))
    assert told["result"]["tools"][0]["name"] == "list_models"


def test_a_call_of_the_newer_era_on_the_wire(ana: Person) -> None:
    version = "2026-07-28"
    meta = {
        "io.modelcontextprotocol/protocolVersion": version, "io.modelcontextprotocol/clientCapabilities": {},
        "progressToken": "p1",
    }  # fmt: skip
    headers = {"mcp-protocol-version": version, "mcp-method": "tools/call", "mcp-name": "generate"}
    arguments = {"model": "testcard", "prompt": "bars"}
    answer = post(ana, message("tools/call", name="generate", arguments=arguments, _meta=meta), **headers)
    *progress, last = events(answer)
    assert progress[0]["method"] == "notifications/progress"
    assert progress[0]["params"]["progressToken"] == "p1"
    assert last["id"] == 1
    assert [each["type"] for each in last["result"]["content"]] == ["text", "image"]
    other = post(ana, message("tools/call", name="balance", _meta=meta), **headers)
    assert other.status_code == 400, "a header that says something else than the body"
    assert post(ana, message("ping"), **{"mcp-protocol-version": "1999-01-01"}).status_code == 400


@pytest.mark.parametrize(
    ("body", "code"),
    [(b"{", -32700), (b"[]", -32602), (b'{"jsonrpc": "2.0", "id": 1}', -32602), (b"\xff\xfe", -32700)],
)
def test_what_is_no_message(ana: Person, body: bytes, code: int) -> None:
    answer = ana.ask("POST", "/mcp", content=body, headers=ACCEPT | {"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == code


def test_what_cannot_be_served(ana: Person) -> None:
    (told,) = events(post(ana, message("resources/list")))
    assert told["error"]["code"] == -32601
    assert post(ana, message("ping"), accept="text/plain").status_code == 406
    assert ana.ask("POST", "/mcp", content=b"{}", headers=ACCEPT | {"content-type": "text/plain"}).status_code == 400


def test_every_request_counts_once(serve: Callable[..., Service]) -> None:
    service = serve(rate_limit="4/minute")
    ana = service.person()
    for left in (3, 2, 1, 0):  # each asks the API several times in turn, which doesn't count
        answer = post(ana, message("tools/call", name="generate", arguments={"model": "testcard", "prompt": "bars"}))
        assert answer.headers["x-ratelimit-remaining"] == str(left)
        assert events(answer)[-1]["result"]["isError"] is False
    answer = post(ana, message("ping"))
    error = refusal(answer, 429, "rate_limit_exceeded")
    assert error["data"]["retryAfterSeconds"] == int(answer.headers["retry-after"])
    assert "4/minute" in error["message"]
    bob = service.person()

    async def too_many() -> None:
        async with over_http(f"http://127.0.0.1:{wire.port}", bob.key) as client:
            for _ in range(5):
                await client.call_tool("balance", {})

    with service.wire() as wire, pytest.raises(BaseExceptionGroup) as caught:
        service.do(too_many())
    assert caught.group_contains(MCPError, match="Try again in")
    guesses = [service.ask("POST", "/mcp", headers=ACCEPT | {"authorization": "Bearer pd_x"}) for _ in range(5)]
    assert [each.status_code for each in guesses] == [401] * 4 + [429], "guessing keys uses up the guesser's address"


def test_a_database_that_is_away(web: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> None:
        raise errors.DatabaseUnavailable("gone")

    monkeypatch.setattr("pixeldojo.accounts.service.authenticate", away)
    assert "Try again" in refusal(post(web.ana, message("ping")), 500, "internal_error")["message"]


def test_requests_are_measured_by_route(web: Desk) -> None:
    post(web.ana, message("ping"))
    seen = web.service.ask("GET", "/metrics").text
    assert 'route="/mcp"' in seen


def test_it_is_no_part_of_the_api_document(web: Desk) -> None:
    document = web.service.ask("GET", "/api/v1/openapi.json").json()
    assert not [path for path in document["paths"] if "mcp" in path or "oauth" in path]


def test_uploads_are_the_accounts_own(web: Desk) -> None:
    picture = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
    (kept,) = web.ask_all(("upload_image", {"data": picture}))
    upload_id = data_of(kept)["uploadId"]
    edit = {"model": "testcard", "prompt": "bars", "image": upload_id}
    mine, theirs = web.ask("edit_image", edit), web.ask("edit_image", edit, of=web.service.person())
    assert data_of(mine)["status"] == "completed"
    assert "upload_image" in fault_of(theirs, "validation_error")["remedy"]
    call = message("tools/call", name="edit_image", arguments=edit)
    other = web.ana.ask("POST", "/mcp", json=call, headers=ACCEPT, at=api.build(web.service.house))
    assert events(other)[-1]["result"]["isError"] is False, "another process finds it"
    reader = web.ana.another_key(scopes=["jobs:read"])
    assert "jobs:write" in fault_of(web.ask("upload_image", {"data": picture}, of=reader), "unauthorized")["message"]


def test_the_janitor_sweeps_uploads(
    serve: Callable[..., Service], later: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pixeldojo.janitor._UPLOADS_EVERY_S", 0.0)
    service = serve(janitor_interval_s=0.05)
    ana = Uploads(service.house.files, "acct_ana")
    upload_id = service.do(ana.keep(b"a picture"))
    later((KEPT_S + 60) * 1000)
    assert service.until(lambda: service.do(ana.find(upload_id)), lambda found: found is None) is None


def test_the_sdk_is_imported_with_the_first_call_only() -> None:
    code = "import sys, pixeldojo.cli.serve_command; print([m for m in sys.modules if m.split('.')[0] in "
    code += "('mcp', 'mcp_types', 'pydantic', 'starlette')])"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unforeseen_fault_is_told_without_its_words(web: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        await asyncio.sleep(0)
        raise RuntimeError("a secret")

    monkeypatch.setattr("pixeldojo.mcp.tools.perform", broken)
    (told,) = events(post(web.ana, message("tools/call", name="balance", arguments={})))
    assert told["result"]["isError"] is True
    assert "internal_error" in told["result"]["content"][0]["text"]
    assert "secret" not in json.dumps(told)
