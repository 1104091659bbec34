"""The account API: who may call what (a matrix over every route of the app), keys, usage, ledger, grants."""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

import httpx2
import jsonschema_rs
import pytest

from doors.conftest import API, BASE, DAY_MS, RUN, Person, Service, fault, faults
from pixeldojo import clock
from pixeldojo.accounts.service import DEFAULT_SCOPES, SCOPES

PUBLIC = "public"
ANY = "any key"
# Every route of the app and the scope it needs: a new route can't be forgotten, and says here who may call it.
NEEDS = {
    "GET /healthz": PUBLIC,
    "GET /readyz": PUBLIC,
    "GET /metrics": PUBLIC,
    f"GET {API}/openapi.json": PUBLIC,
    f"GET {API}/skill": PUBLIC,
    **{
        f"{method} {path}": PUBLIC
        for method in ("GET", "HEAD")
        for path in (
            "/",
            "/llm.txt",
            "/llms.txt",
            "/.well-known/ai-plugin.json",
            "/models/{page}",
            "/docs",
            "/docs/reference",
            "/docs/assets/{name}",
            "/skill/{name}",
        )
    },
    f"GET {API}/models": PUBLIC,
    f"GET {API}/models/{{api_id}}": PUBLIC,
    f"GET {API}/models/{{api_id}}/schema": PUBLIC,
    f"GET {API}/assets/{{job_id}}/{{name}}": PUBLIC,
    f"HEAD {API}/assets/{{job_id}}/{{name}}": PUBLIC,
    f"POST {API}/models/{{api_id}}/run": "jobs:write",
    f"POST {API}/models/{{api_id}}/estimate": "jobs:read",
    f"GET {API}/jobs": "jobs:read",
    f"GET {API}/jobs/{{job_id}}": "jobs:read",
    f"GET {API}/jobs/{{job_id}}/events": "jobs:read",
    f"GET {API}/jobs/{{job_id}}/webhook": "jobs:read",
    f"POST {API}/jobs/{{job_id}}/webhook": "jobs:write",
    f"POST {API}/jobs/{{job_id}}/cancel": "jobs:write",
    f"DELETE {API}/jobs/{{job_id}}": "jobs:write",
    f"GET {API}/account": "account:read",
    f"GET {API}/account/usage": "account:read",
    f"GET {API}/account/ledger": "account:read",
    f"GET {API}/account/webhook-secret": "account:write",
    f"POST {API}/account/webhook-secret/rotate": "account:write",
    f"GET {API}/account/keys": "account:write",
    f"POST {API}/account/keys": "account:write",
    f"POST {API}/account/keys/{{key_id}}/rotate": "account:write",
    f"DELETE {API}/account/keys/{{key_id}}": "account:write",
    f"GET {API}/admin/accounts": "admin",
    f"POST {API}/admin/accounts": "admin",
    f"GET {API}/admin/accounts/{{account_id}}": "admin",
    f"PATCH {API}/admin/accounts/{{account_id}}": "admin",
    f"POST {API}/admin/accounts/{{account_id}}/grants": "admin",
    f"POST {API}/admin/accounts/{{account_id}}/keys": "admin",
}
GUARDED = [route for route, needs in NEEDS.items() if needs != PUBLIC]
BODIES: dict[str, dict[str, Any]] = {
    "run": {"prompt": "x"},
    "estimate": {"prompt": "x"},
    "keys": {"name": "made"},
    "grants": {"credits": 1},
}


def body_for(route: str) -> dict[str, Any]:
    """A JSON body that the route would take."""
    last = route.rpartition("/")[2]
    return {"name": f"account {clock.now_ms()}"} if last == "accounts" else BODIES.get(last, {})


class Ana:
    """An account with a finished job, and what strangers must not learn or touch."""

    def __init__(self, service: Service) -> None:
        self.person = service.person(scopes=list(SCOPES[:-1]))
        self.job_id = self.person.done(webhook_url="https://ana.invalid/hook")["jobId"]
        self.spare = self.person.another_key()

    def url(self, route: str) -> str:
        ids = {
            "job_id": self.job_id, "key_id": self.spare.key_id, "account_id": self.person.account_id,
            "api_id": "testcard",
        }  # fmt: skip
        return route.partition(" ")[2].format(**ids)


@pytest.fixture(scope="module")
def ana(service: Service) -> Ana:
    return Ana(service)


def call(service: Service, ana: Ana, route: str, key: str | None) -> httpx2.Response:
    method = route.partition(" ")[0]
    more: dict[str, Any] = {"json": body_for(route)} if method in ("POST", "PATCH") else {}
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    return service.ask(method, ana.url(route), headers=headers, **more)


def test_every_route_says_who_may_call_it(service: Service) -> None:
    inner = vars(service.app)["_app"]
    routes = {
        f"{method} {re.sub(':str', '', route.path)}"
        for route in inner.routes
        for method in route.methods
        if method != "OPTIONS"
    }
    assert routes == set(NEEDS)


@pytest.mark.parametrize("route", GUARDED)
def test_without_a_key_that_works(service: Service, ana: Ana, route: str) -> None:
    revoked = ana.person.another_key(scopes=list(SCOPES))
    assert revoked.ask("DELETE", f"{API}/account/keys/{revoked.key_id}").status_code == 200
    for key in (None, "", "pd_made-up", revoked.key, revoked.key[:-1]):
        answer = call(service, ana, route, key)
        fault(answer, 401, "unauthorized")
        assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("route", GUARDED)
def test_a_key_without_the_scope(service: Service, ana: Ana, route: str) -> None:
    others = [scope for scope in SCOPES if scope not in (NEEDS[route], "admin")]
    before = ana.person.entries()
    for poor in (ana.person.another_key(scopes=others), service.person(scopes=others)):
        error = fault(call(service, ana, route, poor.key), 401, "unauthorized")
        assert NEEDS[route] in error["message"]
    assert ana.person.entries() == before
    assert ana.spare.ask("GET", f"{API}/jobs").status_code == 200


def _unchanging(ana: Ana) -> tuple[list[tuple[str, int]], dict[str, Any]]:
    """Ana's entries and job, without its webhook, whose deliveries go on meanwhile."""
    job = ana.person.job(ana.job_id)
    job.pop("webhook", None)
    return ana.person.entries(), job


@pytest.mark.parametrize("route", GUARDED)
def test_a_stranger_finds_nothing(service: Service, ana: Ana, route: str) -> None:
    if NEEDS[route] == "admin":
        return  # sees every account, and that is the point of it
    stranger = service.person(scopes=list(SCOPES[:-1]))
    before = _unchanging(ana)
    answer = call(service, ana, route, stranger.key)
    if "{job_id}" in route or "{key_id}" in route:
        missing = ana.url(route).replace(ana.job_id, "job_" + "0" * 32).replace(ana.spare.key_id, "key_" + "0" * 32)
        error = fault(answer, 404, "not_found")
        other = fault(stranger.ask(route.partition(" ")[0], missing), 404, "not_found")
        told = [re.sub(r"\w+_[0-9a-f]{32}", "ID", each["message"]) for each in (error, other)]
        assert told[0] == told[1], "an answer tells that there is something"
    else:
        assert answer.status_code < 300, answer.text
        for secret in (ana.job_id, ana.person.account_id, ana.person.key_id, ana.spare.key_id):
            assert secret not in answer.text
    assert _unchanging(ana) == before
    assert ana.spare.ask("GET", f"{API}/jobs").status_code == 200


@pytest.mark.parametrize("route", GUARDED)
def test_a_key_with_the_scope_alone_and_an_admin_key(service: Service, ana: Ana, route: str) -> None:
    for scopes in ([NEEDS[route]], ["admin"]):
        owner = Ana(service) if route.startswith("DELETE") else ana
        key = owner.person.another_key(scopes=scopes)
        answer = call(service, owner, route, key.key)
        if route.endswith("/rotate") and "key_id" in route and scopes != ["admin"]:
            faults(answer)  # a key may not rotate one with other scopes
        elif route.endswith("/account/keys") and route.startswith("POST") and scopes != ["admin"]:
            assert "scopes" in faults(answer)  # it has none of the usual ones to give
        else:
            assert answer.status_code < 300, (scopes, answer.text)


def test_the_account(service: Service) -> None:
    ana = service.person(credits=2.5, cap_milli=1500, models=["testcard"])
    ana.done()
    told = ana.ask("GET", f"{API}/account").json()
    key, limits = told.pop("key"), told.pop("limits")
    assert (told["id"], told["credits"]) == (ana.account_id, 1.5)
    assert set(told) == {"id", "name", "credits", "createdAt"}
    assert (key["id"], key["name"], key["prefix"]) == (ana.key_id, "test", ana.key[:11])
    assert (key["models"], key["capCredits"], key["spentCredits"]) == (["testcard"], 1.5, 1)
    assert (key["scopes"], key["status"], key["expiresAt"]) == (list(DEFAULT_SCOPES), "active", None)
    settings = service.house.settings
    assert limits == {
        "rateLimit": "off", "concurrency": None,
        "maxBodyBytes": settings.max_body_bytes, "retentionSeconds": settings.retention_s,
    }  # fmt: skip
    quick = ana.another_key(rate_limit="600/minute")
    assert quick.ask("GET", f"{API}/account").json()["limits"]["rateLimit"] == "600/minute"


def test_usage_and_ledger_of_real_jobs(service: Service) -> None:
    ana, bob = service.person(credits=10), service.person()
    other = ana.another_key()
    bob.done()
    ana.done()
    other.done(num_outputs=2)
    ana.done("!refuse")
    told = ana.ask("GET", f"{API}/account/usage?groupBy=key,model&groupBy=model").json()
    assert told["groupBy"] == ["model", "key"]
    rows = {row["keyId"]: row for row in told["rows"]}
    assert rows[ana.key_id] == {
        "model": "testcard", "keyId": ana.key_id, "jobs": 2, "charged": 2, "refunded": 1, "net": 1,
    }  # fmt: skip
    assert rows[other.key_id]["charged"] == 2
    assert told["total"] == {"jobs": 3, "charged": 4, "refunded": 1, "net": 3}
    days = ana.ask("GET", f"{API}/account/usage").json()
    assert [row["day"] for row in days["rows"]] == [clock.rfc3339(clock.now_ms())[:10]]
    assert days["total"] == told["total"]
    assert days["from"].endswith("T00:00:00.000Z")
    assert 29 * DAY_MS < clock.now_ms() - _ms(days["from"]) <= 30 * DAY_MS
    book = ana.ask("GET", f"{API}/account/ledger").json()
    assert book["nextCursor"] is None
    assert sorted(entry["kind"] for entry in book["entries"]) == ["charge"] * 3 + ["grant", "refund"]
    assert sum(round(entry["amount"] * 1000) for entry in book["entries"]) == ana.balance() == 7000
    seen: list[Any] = []
    query = "limit=2"
    while query:
        page = ana.ask("GET", f"{API}/account/ledger?{query}").json()
        seen += page["entries"]
        query = f"limit=2&cursor={page['nextCursor']}" if page["nextCursor"] else ""
    assert seen == book["entries"]
    granted = ana.ask("GET", f"{API}/account/ledger?kind=grant").json()["entries"]
    assert [(entry["amount"], entry["credits"], entry["jobId"]) for entry in granted] == [(10, 10, None)]
    charged = ana.ask("GET", f"{API}/account/ledger?kind=charge").json()["entries"]
    assert {entry["keyId"] for entry in charged} == {ana.key_id, other.key_id}
    assert {entry["model"] for entry in charged} == {"testcard"}


def _ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


@pytest.mark.parametrize(
    ("query", "paths"),
    [
        ("usage?groupBy=year", {"groupBy"}),
        ("usage?from=yesterday", {"from"}),
        ("usage?from=2030-01-02&to=2030-01-01", {"from"}),
        ("usage?from=2030-01-01T00:00:00Z&to=2030-01-01T00:00:00Z", {"from"}),
        ("usage?from=2029-01-01&to=2030-01-02", {"from"}),
        ("usage?to=99999-01-01&groupBy=a,b", {"to", "groupBy"}),
        ("usage?from=1969-12-31&to=1970-01-02", {"from"}),
        ("usage?from=%00", {"from"}),
        ("ledger?limit=0", {"limit"}),
        ("ledger?limit=101&kind=gift&cursor=x", {"limit", "kind", "cursor"}),
        ("ledger?limit=²", {"limit"}),
        ("ledger?cursor=job_" + "0" * 32, {"cursor"}),
        ("keys?limit=-1&cursor=%00", {"limit", "cursor"}),
    ],
)  # fmt: skip
def test_bad_queries_are_named(still: Service, query: str, paths: set[str]) -> None:
    ana = still.person(scopes=["account:read", "account:write"])
    assert set(faults(ana.ask("GET", f"{API}/account/{query}"))) == paths


@pytest.mark.parametrize(
    ("query", "since", "until"),
    [
        ("from=2030-01-01&to=2030-01-01", "2030-01-01T00:00:00.000Z", "2030-01-02T00:00:00.000Z"),
        ("from=2029-01-02&to=2030-01-02", "2029-01-02T00:00:00.000Z", "2030-01-03T00:00:00.000Z"),
        ("from=2030-01-01T12:00:00%2B02:00&to=2030-01-02T00:00:00Z", "2030-01-01T10:00:00.000Z",
         "2030-01-02T00:00:00.000Z"),
        ("to=2030-01-30", "2030-01-01T00:00:00.000Z", "2030-01-31T00:00:00.000Z"),
        ("from=1970-01-01&to=1970-01-01", "1970-01-01T00:00:00.000Z", "1970-01-02T00:00:00.000Z"),
    ],
)  # fmt: skip
def test_periods(still: Service, query: str, since: str, until: str) -> None:
    told = still.person().ask("GET", f"{API}/account/usage?{query}").json()
    assert (told["from"], told["to"], told["rows"]) == (since, until, [])


def _key(person: Person, **wanted: Any) -> dict[str, Any]:
    answer = person.ask("POST", f"{API}/account/keys", json={"name": "made"} | wanted)
    assert answer.status_code == 201, answer.text
    assert answer.headers["cache-control"] == "no-store"
    made: dict[str, Any] = answer.json()
    return made


def _bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_a_key_from_making_to_revoking(service: Service) -> None:
    ana = service.person(scopes=list(SCOPES[:-1]))
    made = _key(
        ana, scopes=["jobs:write", "jobs:read"], models=["testcard"], capCredits=1.5, expiresIn=3600,
        rateLimit="5 / Second",
    )  # fmt: skip
    assert made["key"].startswith(made["prefix"])
    assert (made["scopes"], made["models"], made["capCredits"]) == (["jobs:read", "jobs:write"], ["testcard"], 1.5)
    assert (made["rateLimit"], made["status"], made["spentCredits"]) == ("5/second", "active", 0)
    assert abs(_ms(made["expiresAt"]) - _ms(made["createdAt"]) - 3_600_000) < 1000
    assert service.ask("POST", RUN, json={"prompt": "x"}, headers=_bearer(made["key"])).status_code == 202
    fault(service.ask("POST", RUN, json={"prompt": "x"}, headers=_bearer(made["key"])), 402, "insufficient_credits")
    fault(service.ask("GET", f"{API}/account", headers=_bearer(made["key"])), 401, "unauthorized")
    keys = ana.ask("GET", f"{API}/account/keys").json()
    assert [key["id"] for key in keys["keys"]] == [made["id"], ana.key_id]
    assert keys["keys"][0]["spentCredits"] == 1
    first = ana.ask("GET", f"{API}/account/keys?limit=1").json()
    second = ana.ask("GET", f"{API}/account/keys?limit=1&cursor={first['nextCursor']}").json()
    assert [*first["keys"], *second["keys"]] == keys["keys"]
    assert second["nextCursor"] is None
    gone = ana.ask("DELETE", f"{API}/account/keys/{made['id']}").json()
    assert (gone["status"], gone["id"]) == ("revoked", made["id"])
    assert ana.ask("DELETE", f"{API}/account/keys/{made['id']}").json() == gone
    fault(service.ask("GET", f"{API}/jobs", headers=_bearer(made["key"])), 401, "unauthorized")


def test_a_key_that_says_nothing_gets_the_usual(still: Service) -> None:
    ana = still.person(scopes=list(SCOPES[:-1]))
    nothing = dict.fromkeys(("scopes", "models", "capCredits", "expiresAt", "expiresIn", "rateLimit"))
    for made in (_key(ana), _key(ana, **nothing)):
        assert (made["scopes"], made["models"], made["capCredits"]) == (list(DEFAULT_SCOPES), None, None)
        assert (made["expiresAt"], made["rateLimit"], made["replacedBy"]) == (None, None, None)
    assert _key(ana, capCredits=0)["capCredits"] == 0
    assert _key(ana, expiresAt="2100-01-01")["expiresAt"] == "2100-01-01T00:00:00.000Z"


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        ([], {""}),
        ("x", {""}),
        ({}, {"name"}),
        ({"name": None}, {"name"}),
        ({"name": " "}, {"name"}),
        ({"name": "a\nb"}, {"name"}),
        ({"name": "x" * 101}, {"name"}),
        ({"name": 5}, {"name"}),
        ({"name": "x", "scope": []}, {"scope"}),
        ({"name": "x", "scopes": []}, {"scopes"}),
        ({"name": "x", "scopes": "admin"}, {"scopes"}),
        ({"name": "x", "scopes": ["jobs:read", "root"]}, {"scopes.1"}),
        ({"name": "x", "scopes": ["admin"]}, {"scopes"}),
        ({"name": "x", "models": ["dojo-max", 5]}, {"models"}),
        ({"name": "x", "models": ["testcard", "dojo-max"]}, {"models.1"}),
        ({"name": "x", "models": []}, {"models"}),
        ({"name": "x", "capCredits": -1}, {"capCredits"}),
        ({"name": "x", "capCredits": 0.0001}, {"capCredits"}),
        ({"name": "x", "capCredits": 1e300}, {"capCredits"}),
        ({"name": "x", "capCredits": True}, {"capCredits"}),
        ({"name": "x", "capCredits": "5"}, {"capCredits"}),
        ({"name": "x", "expiresAt": "2001-01-01"}, {"expiresAt"}),
        ({"name": "x", "expiresAt": "soon"}, {"expiresAt"}),
        ({"name": "x", "expiresAt": 5}, {"expiresAt"}),
        ({"name": "x", "expiresIn": 0}, {"expiresIn"}),
        ({"name": "x", "expiresIn": 1.5}, {"expiresIn"}),
        ({"name": "x", "expiresIn": 10**30}, {"expiresIn"}),
        ({"name": "x", "expiresAt": "2100-01-01", "expiresIn": 5}, {"expiresIn"}),
        ({"name": "x", "rateLimit": "often"}, {"rateLimit"}),
        ({"capCredits": -1, "rateLimit": "often", "models": 1, "extra": 1},
         {"name", "capCredits", "rateLimit", "models", "extra"}),
    ],
)  # fmt: skip
def test_bad_keys_are_named(still: Service, body: Any, paths: set[str]) -> None:
    ana = still.person(scopes=["account:write", *DEFAULT_SCOPES])
    assert set(faults(ana.ask("POST", f"{API}/account/keys", json=body))) == paths
    assert len(ana.ask("GET", f"{API}/account/keys").json()["keys"]) == 1


def test_bodies_that_are_no_small_json(still: Service) -> None:
    ana = still.person(scopes=["account:write"])
    fault(ana.ask("POST", f"{API}/account/keys"), 400, "invalid_json")
    fault(ana.ask("POST", f"{API}/account/keys", content=b"{"), 400, "invalid_json")
    html = {"content-type": "text/html"}
    fault(ana.ask("POST", f"{API}/account/keys", content=b"{}", headers=html), 400, "invalid_json")
    faults(ana.ask("POST", f"{API}/account/keys", json={"name": "x" * 70_000}))


def test_rotation_over_http(service: Service, later: Callable[[int], None]) -> None:
    ana = service.person(credits=10, cap_milli=3000, scopes=list(SCOPES[:-1]))
    ana.done()
    whole = {"graceSeconds": 600.0}  # as some languages write whole numbers
    answer = ana.ask("POST", f"{API}/account/keys/{ana.key_id}/rotate", json=whole)
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    made = answer.json()
    old = made["replaces"]
    assert (old["id"], old["replacedBy"], old["status"]) == (ana.key_id, made["id"], "active")
    assert old["budgetId"] == made["budgetId"]
    assert (made["capCredits"], made["spentCredits"], made["expiresAt"]) == (3, 1, None)
    orders = [("POST", RUN, {"json": {"prompt": "x"}, "headers": _bearer(key)}) for key in (ana.key, made["key"]) * 4]
    assert sorted(each.status_code for each in service.ask_at_once(*orders)) == [202] * 2 + [402] * 6
    again = ana.ask("POST", f"{API}/account/keys/{ana.key_id}/rotate")
    assert made["id"] in faults(again)["key"]
    later(600_000)
    fault(ana.ask("GET", f"{API}/jobs"), 401, "unauthorized")
    assert service.ask("GET", f"{API}/jobs", headers=_bearer(made["key"])).status_code == 200
    service.audit()


@pytest.mark.parametrize("grace", [-1, 7 * 24 * 3600 + 1, "5", 1.5, True])
def test_bad_grace(still: Service, grace: Any) -> None:
    ana = still.person(scopes=["account:write"])
    url = f"{API}/account/keys/{ana.key_id}/rotate"
    assert set(faults(ana.ask("POST", url, json={"graceSeconds": grace}))) == {"graceSeconds"}
    for good in ({"json": {"graceSeconds": 7 * 24 * 3600}}, {"content": b" "}):
        key = still.person(scopes=["account:write"])
        assert key.ask("POST", f"{API}/account/keys/{key.key_id}/rotate", **good).status_code == 201


def test_any_key_may_revoke_itself(still: Service) -> None:
    ana = still.person()
    assert ana.ask("DELETE", f"{API}/account/keys/{ana.key_id}").json()["status"] == "revoked"
    fault(ana.ask("GET", f"{API}/account"), 401, "unauthorized")


def test_no_answer_but_the_making_one_shows_a_key(service: Service) -> None:
    ana, root = service.person(scopes=list(SCOPES[:-1])), service.person(scopes=["admin"])
    made = _key(ana, scopes=list(DEFAULT_SCOPES))
    rotated = ana.ask("POST", f"{API}/account/keys/{made['id']}/rotate", json={}).json()
    texts = [ana.key, root.key, made["key"], rotated["key"]]
    job = ana.done()["jobId"]
    urls = [route.partition(" ")[2] for route in GUARDED if route.startswith("GET ") and not route.endswith("/webhook")]
    for url in urls:
        whole = url.format(job_id=job, account_id=ana.account_id)
        answer = root.ask("GET", whole) if "/admin" in url else ana.ask("GET", whole)
        assert answer.status_code == 200, whole
        assert not [text for text in texts if text in answer.text or text[11:] in answer.text], whole
    gone = ana.ask("DELETE", f"{API}/account/keys/{made['id']}")
    assert "hash" not in gone.text
    assert not [text for text in texts if text[11:] in gone.text]


def test_admins_look_after_accounts(service: Service) -> None:
    root = service.person(scopes=["admin"])
    name = f"studio {clock.now_ms()}"
    answer = root.ask("POST", f"{API}/admin/accounts", json={"name": name, "concurrency": 2})
    assert answer.status_code == 201
    made = answer.json()
    assert (made["name"], made["credits"], made["concurrency"]) == (name, 0, 2)
    url = f"{API}/admin/accounts/{made['id']}"
    assert root.ask("GET", url).json() == made
    assert root.ask("GET", f"{API}/admin/accounts?limit=1").json()["accounts"] == [made]
    taken = root.ask("POST", f"{API}/admin/accounts", json={"name": name})
    assert "name" in faults(taken)
    changed = root.ask("PATCH", url, json={"name": f"{name}!", "concurrency": 7}).json()
    assert changed == made | {"name": f"{name}!", "concurrency": 7}
    assert root.ask("PATCH", url, json={}).json() == changed
    assert root.ask("PATCH", url, json={"concurrency": None}).json()["concurrency"] is None
    other = root.ask("POST", f"{API}/admin/accounts", json={"name": name}).json()
    assert "name" in faults(root.ask("PATCH", url, json={"name": name}))
    page = root.ask("GET", f"{API}/admin/accounts?limit=1").json()
    following = root.ask("GET", f"{API}/admin/accounts?limit=1&cursor={page['nextCursor']}").json()
    assert [page["accounts"][0]["id"], following["accounts"][0]["id"]] == [other["id"], made["id"]]
    for body, path in (({"concurrency": 0}, "concurrency"), ({"name": ""}, "name"), ({"credits": 5}, "credits")):
        assert set(faults(root.ask("PATCH", url, json=body))) == {path}
    for missing in ("acct_" + "0" * 32, "acct_x", name, "%00"):
        fault(root.ask("GET", f"{API}/admin/accounts/{missing}"), 404, "not_found")
        fault(root.ask("PATCH", f"{API}/admin/accounts/{missing}", json={}), 404, "not_found")
        fault(root.ask("POST", f"{API}/admin/accounts/{missing}/grants", json={"credits": 1}), 404, "not_found")
        fault(root.ask("POST", f"{API}/admin/accounts/{missing}/keys", json={"name": "x"}), 404, "not_found")


def test_admins_make_keys_and_set_limits_that_hold(service: Service) -> None:
    root, ana = service.person(scopes=["admin"]), service.person()
    url = f"{API}/admin/accounts/{ana.account_id}"
    root.ask("PATCH", url, json={"concurrency": 3})
    assert ana.ask("GET", f"{API}/account").json()["limits"]["concurrency"] == 3
    made = root.ask("POST", f"{url}/keys", json={"name": "theirs", "scopes": ["admin"]}).json()
    assert made["scopes"] == ["admin"]
    account = service.ask("GET", f"{API}/account", headers=_bearer(made["key"])).json()
    assert account["id"] == ana.account_id
    assert root.ask("POST", f"{url}/keys", json={"name": "usual"}).json()["scopes"] == list(DEFAULT_SCOPES)
    assert set(faults(root.ask("POST", f"{url}/keys", json={"scopes": ["x"]}))) == {"name", "scopes.0"}


def test_grants_are_made_once(service: Service) -> None:
    root, ana, bob = service.person(scopes=["admin"]), service.person(credits=0), service.person(credits=0)
    url = f"{API}/admin/accounts/{ana.account_id}/grants"
    order: dict[str, Any] = {
        "json": {"credits": 2.5, "note": "May"},
        "headers": root.headers | {"idempotency-key": "m"},
    }
    answers = service.ask_at_once(*[("POST", url, order)] * 8)
    assert {each.status_code for each in answers} == {201}
    assert len({each.text for each in answers}) == 1
    assert sorted(each.headers.get("idempotent-replayed", "") for each in answers) == [""] + ["true"] * 7
    entry = answers[0].json()
    assert (entry["kind"], entry["amount"], entry["credits"], entry["note"]) == ("grant", 2.5, 2.5, "May")
    assert ana.entries() == [("grant", 2500)]
    other = root.ask("POST", url, json={"credits": 3}, headers={"idempotency-key": "m"})
    assert "Idempotency-Key" in faults(other)
    theirs = f"{API}/admin/accounts/{bob.account_id}/grants"
    assert service.ask("POST", theirs, **order).status_code == 201
    assert bob.balance() == 2500
    for _ in range(2):
        assert root.ask("POST", url, json={"credits": -0.5}).status_code == 201
    assert ana.balance() == 1500
    for body, path in (
        ({}, "credits"), ({"credits": 0}, "credits"), ({"credits": "5"}, "credits"), ({"credits": 0.0001}, "credits"),
        ({"credits": 1e300}, "credits"), ({"credits": -2}, "credits"), ({"credits": 1, "note": "\n"}, "note"),
        ({"credits": 1, "note": "x" * 501}, "note"), ({"credits": 1, "why": ""}, "why"),
    ):  # fmt: skip
        assert set(faults(root.ask("POST", url, json=body))) == {path}
    assert ana.balance() == 1500
    service.audit()


def test_the_answers_are_as_the_document_says(service: Service) -> None:
    document = service.ask("GET", f"{API}/openapi.json").json()
    root = service.person(scopes=["admin"])
    root.done()
    made = _key(root)
    seen = {
        ("get", "/account"): root.ask("GET", f"{API}/account"),
        ("get", "/account/usage"): root.ask("GET", f"{API}/account/usage?groupBy=day,model,key"),
        ("get", "/account/ledger"): root.ask("GET", f"{API}/account/ledger"),
        ("get", "/account/keys"): root.ask("GET", f"{API}/account/keys"),
        ("post", "/account/keys"): root.ask("POST", f"{API}/account/keys", json={"name": "x", "models": ["testcard"]}),
        ("post", "/account/keys/{keyId}/rotate"): root.ask("POST", f"{API}/account/keys/{made['id']}/rotate"),
        ("delete", "/account/keys/{keyId}"): root.ask("DELETE", f"{API}/account/keys/{made['id']}"),
        ("get", "/admin/accounts"): root.ask("GET", f"{API}/admin/accounts"),
        ("get", "/admin/accounts/{accountId}"): root.ask("GET", f"{API}/admin/accounts/{root.account_id}"),
        ("post", "/admin/accounts/{accountId}/grants"): root.ask(
            "POST", f"{API}/admin/accounts/{root.account_id}/grants", json={"credits": 1}
        ),
    }
    for (method, path), answer in seen.items():
        responses = document["paths"][f"{API}{path}"][method]["responses"]
        schema = responses[str(answer.status_code)]["content"]["application/json"]["schema"]
        whole = schema | {"components": document["components"]}
        jsonschema_rs.Draft202012Validator(whole, validate_formats=True).validate(answer.json())
    assert BASE in document["servers"][0]["url"]
