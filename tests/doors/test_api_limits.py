"""Rate limits over HTTP: who is counted as whom, what the answers say, and that of 61 calls exactly 60 pass."""

import contextlib
import ipaddress
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

import pixeldojo
from doors.conftest import API, BASE, RUN, Service, fault
from pixeldojo import clock
from pixeldojo.accounts import service as accounts

MODELS = f"{API}/models"
HEADERS = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")
Serve = Callable[..., Service]


def said(response: httpx2.Response) -> tuple[int, int, int]:
    """(limit, remaining, reset) of an answer."""
    limit, remaining, reset = (int(response.headers[name]) for name in HEADERS)
    return limit, remaining, reset


def from_address(service: Service, address: str, url: str = MODELS, **headers: str) -> httpx2.Response:
    async def ask() -> httpx2.Response:
        transport = httpx2.ASGITransport(service.app, client=(address, 1))
        async with httpx2.AsyncClient(transport=transport, base_url=BASE) as client:
            return await client.get(url, headers=headers)

    return service.do(ask())


@pytest.fixture
def service(serve: Serve) -> Service:
    return serve(works=False, rate_limit="60/minute")


def test_exactly_sixty_of_sixty_one_at_once(service: Service, later: Callable[[int], None]) -> None:
    ana = service.person()
    answers = service.ask_at_once(*[("GET", f"{API}/jobs", {"headers": ana.headers})] * 61)
    assert sorted(answer.status_code for answer in answers) == [200] * 60 + [429]
    assert sorted(said(answer)[1] for answer in answers) == [0, *range(60)]
    assert {said(answer)[0] for answer in answers} == {60}
    (reset,) = {said(answer)[2] for answer in answers}
    assert 0 < reset - clock.now_ms() / 1000 <= 61
    refused = ana.ask("GET", f"{API}/jobs")
    fault(refused, 429, "rate_limit_exceeded")
    assert "60/minute" in refused.json()["error"]["message"]
    wait_s = int(refused.headers["retry-after"])
    assert 1 <= wait_s <= 60
    later(wait_s * 1000)
    again = ana.ask("GET", f"{API}/jobs")
    assert (again.status_code, said(again)[1]) == (200, 59), "who waits as told gets through"


def test_every_counted_answer_says_so(service: Service) -> None:
    ana = service.person()
    asked: list[tuple[int, str, str, dict[str, Any]]] = [
        (200, "GET", MODELS, {}),
        (200, "GET", f"{API}/jobs", {}),
        (202, "POST", RUN, {"json": {"prompt": "x"}}),
        (400, "POST", RUN, {"content": b"{"}),
        (400, "POST", RUN, {"json": {"prompt": 1}}),
        (404, "GET", f"{API}/jobs/job_nothing", {}),
        (404, "GET", "/nowhere", {}),
        (404, "DELETE", MODELS, {}),
        (200, "GET", f"{API}/openapi.json", {}),
    ]
    for number, (status, method, url, more) in enumerate(asked, 1):
        answer = ana.ask(method, url, **more)
        assert (answer.status_code, said(answer)[:2]) == (status, (60, 60 - number)), "shared across endpoints"
    assert said(service.ask("GET", f"{API}/jobs"))[1] == 59, "a 401 counts for the address"


def test_what_is_not_counted(service: Service) -> None:
    for url in ("/healthz", "/readyz", "/metrics", f"{API}/assets/job_x/0.png?expires=1&signature=x"):
        for _ in range(2):
            assert not set(service.ask("GET", url).headers) & set(HEADERS)


def test_two_keys_and_an_address_are_three(service: Service) -> None:
    ana, bob = service.person(), service.person()
    for person in (ana, bob, ana.another_key()):
        assert said(person.ask("GET", MODELS))[1] == 59
    assert said(service.ask("GET", MODELS))[1] == 59
    assert said(ana.ask("GET", MODELS))[1] == 58


def test_guessing_keys_uses_up_the_address(serve: Serve) -> None:
    service = serve(works=False, rate_limit="3/minute")
    ana = service.person()
    revoked = ana.another_key()
    service.write(accounts.revoke_key, account_id=ana.account_id, key=revoked.key_id)
    tries = [f"Bearer pd_{secrets.token_urlsafe(24)}", "Basic xyz", f"Bearer {revoked.key}"]
    for number, text in enumerate(tries, 1):
        answer = service.ask("GET", f"{API}/jobs", headers={"authorization": text})
        assert (answer.status_code, said(answer)[1]) == (401, 3 - number)
    late = service.ask("GET", f"{API}/jobs", headers={"authorization": f"Bearer pd_{secrets.token_urlsafe(24)}"})
    fault(late, 429, "rate_limit_exceeded")
    fault(service.ask("GET", MODELS), 429, "rate_limit_exceeded")
    assert ana.ask("GET", MODELS).status_code == 200, "a key that works is counted by itself"


def test_a_key_may_have_a_limit_of_its_own(serve: Serve, later: Callable[[int], None]) -> None:
    service = serve(works=False, rate_limit="2/minute")
    ana = service.person()
    fast, free = ana.another_key(rate_limit="5/Hour"), ana.another_key(rate_limit="off")
    assert [fast.ask("GET", MODELS).status_code for _ in range(6)] == [200] * 5 + [429]
    later(61_000)
    assert fast.ask("GET", MODELS).status_code == 429, "an hour is an hour"
    answers = [free.ask("GET", MODELS) for _ in range(10)]
    assert {answer.status_code for answer in answers} == {200}
    assert not set(answers[0].headers) & set(HEADERS)
    assert [ana.ask("GET", MODELS).status_code for _ in range(3)] == [200, 200, 429]


def test_a_new_key_and_a_revoked_one_are_known_within_seconds(service: Service, later: Callable[[int], None]) -> None:
    ana = service.person()
    key = ana.another_key()
    assert said(key.ask("GET", MODELS))[1] == 59
    service.write(accounts.revoke_key, account_id=ana.account_id, key=key.key_id)
    fault(key.ask("GET", f"{API}/jobs"), 401, "unauthorized")  # refused at once; counted by key for some seconds
    later(5_001)
    before = said(service.ask("GET", MODELS))[1]
    assert said(key.ask("GET", MODELS))[1] == before - 1


def test_addresses(service: Service) -> None:
    assert said(from_address(service, "192.0.2.1"))[1] == 59
    assert said(from_address(service, "192.0.2.2"))[1] == 59
    assert said(from_address(service, "::ffff:192.0.2.1"))[1] == 58
    assert said(from_address(service, "2001:db8::1"))[1] == 59
    assert said(from_address(service, "2001:db8::ffff:2"))[1] == 58, "the same /64"
    assert said(from_address(service, "2001:db8:0:1::1"))[1] == 59
    for spoofed in ("203.0.113.1", "203.0.113.2", ""):
        answer = from_address(service, "192.0.2.3", **{"x-forwarded-for": spoofed})
    assert said(answer)[1] == 57, "nobody named a proxy: its header is anybody's"


def test_forwarded_addresses(serve: Serve) -> None:
    networks = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1"))
    service = serve(works=False, rate_limit="60/minute", trusted_proxies=networks)

    def left(peer: str, forwarded: str) -> int:
        return said(from_address(service, peer, **{"x-forwarded-for": forwarded}))[1]

    assert left("10.0.0.1", "203.0.113.1") == 59
    assert left("10.0.0.2", "203.0.113.1, 10.0.0.9") == 58, "over two proxies"
    assert left("10.0.0.1", "8.8.8.8, 203.0.113.1") == 57, "what stands before it is the caller's own invention"
    assert left("::1", "203.0.113.1:4711") == 56
    assert left("10.0.0.1", "203.0.113.2") == 59
    assert left("192.0.2.1", "203.0.113.2") == 59, "no proxy of ours"
    assert left("10.0.0.1", "nonsense") == 59, "counted as the proxy"
    assert left("10.0.0.1", "203.0.113.1, nonsense") == 58


def test_off(serve: Serve) -> None:
    service = serve(works=False, rate_limit="off")
    ana = service.person(rate_limit="1/minute")
    answers = [ana.ask("GET", MODELS) for _ in range(3)] + [service.ask("GET", MODELS)]
    assert {answer.status_code for answer in answers} == {200}
    assert not any(set(answer.headers) & set(HEADERS) for answer in answers)


def test_a_flood_of_guesses_costs_bounded_memory(service: Service) -> None:
    gate: Any = vars(service.app)["_gate"]
    ana = service.person()
    ana.ask("GET", MODELS)
    scope = {"path": MODELS, "client": ("192.0.2.9", 1)}

    async def flood() -> None:
        for number in range(10_500):
            await gate.admit(scope | {"headers": [(b"authorization", b"Bearer pd_%d" % number)]}, [])

    service.do(flood())
    assert len(gate._others) == 10_000
    assert len(gate._working) == 1, "guesses don't push out the keys that work"
    assert ana.key not in repr(vars(gate))


def test_a_bad_rate_for_a_key_is_refused(service: Service) -> None:
    with pytest.raises(Exception, match="rateLimit: write a rate such as 60/minute"):
        service.person(rate_limit="sometimes")


@contextlib.contextmanager
def _processes(data: Path, redis_url: str, *, count: int) -> Iterator[list[str]]:
    """The addresses of that many services on one database."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PIXELDOJO_")}
    clean |= {
        "PYTHONPATH": str(Path(pixeldojo.__file__).parents[1]), "PIXELDOJO_DATA_DIR": str(data),
        "PIXELDOJO_TESTCARD": "1", "PIXELDOJO_ROLES": "api", "PIXELDOJO_RATE_LIMIT_STORAGE": redis_url,
    }  # fmt: skip
    command = [sys.executable, "-m", "pixeldojo", "serve", "--port", "0", "--json"]
    started: list[subprocess.Popen[str]] = []
    try:
        started += (subprocess.Popen(command, env=clean, stdout=subprocess.PIPE, text=True) for _ in range(count))
        lines = [process.stdout.readline() for process in started if process.stdout is not None]
        yield [json.loads(line)["address"] for line in lines]
    finally:
        for process in started:
            process.send_signal(signal.SIGTERM)
        for process in started:
            process.communicate(timeout=20)


def test_exact_across_processes_with_redis(tmp_path: Path, serve: Serve, redis_url: str) -> None:
    made = serve(works=False)
    ana = made.person()
    with _processes(made.house.settings.data_dir, redis_url, count=2) as addresses:
        start = threading.Barrier(8)

        def ask(number: int) -> list[tuple[int, int]]:
            start.wait(20)
            found = []
            for call in range(number, 61, 8):
                request = urllib.request.Request(f"{addresses[call % 2]}{API}/jobs", headers=ana.headers)
                try:
                    with urllib.request.urlopen(request, timeout=20) as answer:
                        found.append((answer.status, int(answer.headers["x-ratelimit-remaining"])))
                except urllib.error.HTTPError as error:
                    found.append((error.code, int(error.headers["x-ratelimit-remaining"])))
                    error.close()
            return found

        with ThreadPoolExecutor(8) as pool:
            answers = [each for found in pool.map(ask, range(8)) for each in found]
    assert sorted(status for status, _ in answers) == [200] * 60 + [429]
    assert sorted(remaining for _, remaining in answers) == [0, *range(60)]


def test_the_database_is_away_but_counting_goes_on(service: Service) -> None:
    gate: Any = vars(service.app)["_gate"]
    scope = {"path": MODELS, "client": ("192.0.2.77", 1), "headers": [(b"authorization", b"Bearer pd_x")]}
    headers: list[tuple[bytes, bytes]] = []

    async def closed() -> None:
        await service.house.db.close()
        assert await gate.admit(scope, headers) is None

    service.do(closed())
    assert (b"x-ratelimit-remaining", b"59") in headers
