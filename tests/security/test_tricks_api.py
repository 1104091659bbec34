"""The same tricks through the HTTP API: refused with the submit, or when the name is looked up; nothing is charged."""

import ipaddress
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from doors.conftest import API, RUN, Person, Service, fault, faults
from postbox import Postbox
from security.test_tricks import _look_up
from security.tricks import NAMES, TRICKS

SAMPLE = TRICKS[::5]
LOOKED_UP = ("loopback.test", "metadata.test", "mapped.test", "both.test", "127.0.0.1.wildcard.test")


@pytest.fixture(scope="module")
def eve(still: Service) -> Iterator[Person]:
    """Somebody who tries all of them, and is charged for nothing."""
    person = still.person()
    yield person
    assert person.entries() == [("grant", 100_000)]
    assert person.jobs()["jobs"] == []


def test_the_submit_refuses_what_can_be_told_from_the_url(eve: Person) -> None:
    told = 0
    for trick, reason in SAMPLE:
        url = trick.replace("{port}", "9")
        body = json.dumps({"prompt": "x", "image_url": url, "webhook_url": url}).encode()
        if eve.ask("POST", f"{API}/models/testcard/estimate", content=body).status_code == 200:
            continue  # it has to be looked up first: see below
        answer = eve.ask("POST", RUN, content=body)
        if "\ud800" in url:
            fault(answer, 400, "invalid_json")
            continue
        # what is too long for a webhook may still be a picture
        assert "webhook_url" in faults(answer), (url, reason)
        assert set(faults(answer)) == {"image_url", "webhook_url"} or len(url) > 2048, (url, reason)
        told += 1
    assert told > len(SAMPLE) * 0.8


@pytest.fixture
def hooked(serve: Callable[..., Service], monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Service, Postbox]]:
    """A service that may reach one address of this machine, a receiver there, and a hostile name server."""
    monkeypatch.setattr(socket, "getaddrinfo", _look_up(NAMES))
    made = serve(allow_networks=(ipaddress.ip_network("127.0.0.9/32"),), webhook_retry_schedule=(0,))
    box = Postbox()
    made.do(box.__aenter__())
    yield made, box
    made.do(box.__aexit__())


@pytest.mark.parametrize("name", LOOKED_UP)
def test_a_name_is_judged_by_where_it_leads(hooked: tuple[Service, Postbox], name: str) -> None:
    service, box = hooked
    ana = service.person()
    url = f"https://{name}:{box.port}/"
    job = ana.done(image_url=url)
    assert job["error"]["code"] == "input_unavailable"
    assert "not public" in job["error"]["message"]
    done = ana.submit(webhook_url=url)["jobId"]
    told: Any = service.until(
        lambda: ana.ask("GET", f"{API}/jobs/{done}/webhook").json(), lambda seen: bool(seen["status"] == "failed")
    )
    (attempt,) = told["deliveries"][0]["attempts"]
    assert (attempt["responseStatus"], attempt["response"]) == (None, None)
    assert "not public" in attempt["error"]
    assert box.connections == 0
    assert ana.entries()[-1] == ("charge", -1000), "a webhook that can't be sent is no reason for a refund"
