"""Who may do what: every route against every kind of caller, the limits of keys, and what anybody may read."""

from collections.abc import Callable

import pytest

from doors.conftest import API, DAY_MS, RUN, Person, Service, fault
from pixeldojo import __version__, clock
from pixeldojo.accounts import service as accounts

ROUTES = (
    ("POST", RUN),
    ("GET", f"{API}/jobs"),
    ("GET", f"{API}/jobs/{{job}}"),
)
OPEN = (
    "/healthz", "/readyz", f"{API}/models", f"{API}/models/testcard", f"{API}/models/testcard/schema",
    f"{API}/openapi.json",
)  # fmt: skip


def _bad_headers(person: Person) -> dict[str, str]:
    key = person.key
    return {
        "no scheme": key,
        "another scheme": f"Basic {key}",
        "no key": "Bearer",
        "a blank key": "Bearer   ",
        "empty": "",
        "no space": f"Bearer{key}",
        "a colon": f"Bearer: {key}",
        "quoted": f'Bearer "{key}"',
        "two keys": f"Bearer {key} {key}",
        "cut": f"Bearer {key[:-1]}",
        "longer": f"Bearer {key}x",
        "another case": f"Bearer {key.swapcase()}",
        "invented": "Bearer pd_" + "A" * 32,
        "the prefix": f"Bearer {key[:11]}",
        "not ASCII": f"Bearer {key[:-1]}\xe9",
        "huge": "Bearer " + "x" * 30_000,
        "SQL": "Bearer ' OR '1'='1",
    }


def _closed(service: Service, *, job: str) -> list[tuple[str, str]]:
    """(method, path) of every route that is not for everybody, about this job where it is about one."""
    found = []
    for route in vars(service.app)["_app"].routes:
        path = route.path.replace("{job_id:str}", job).replace("{api_id:str}", "testcard")
        if path.startswith(API) and path not in (*OPEN, f"{API}/skill") and "/assets/" not in path:
            found += [(method, path) for method in sorted(route.methods - {"OPTIONS", "HEAD"})]
    return found


def test_every_other_route_is_closed_too(service: Service) -> None:
    ana, ben = service.person(), service.person()
    job = ana.done()["jobId"]
    routes = _closed(service, job=job)
    assert {(method, url.format(job=job)) for method, url in ROUTES} <= set(routes)
    for method, path in routes:
        body = {"json": {"prompt": "x"}} if method == "POST" else {}
        fault(service.ask(method, path, **body), 401, "unauthorized")
        fault(service.ask(method, path, headers={"authorization": "Bearer pd_bad"}, **body), 401, "unauthorized")
        if job in path:
            error = fault(ben.ask(method, path, **body), 404, "not_found")
            unknown = f"job_{'0' * 32}"
            nowhere = fault(ben.ask(method, path.replace(job, unknown), **body), 404, "not_found")
            assert error["message"].replace(job, unknown) == nowhere["message"], (method, path)
            fault(ben.ask(method, path.replace(job, "job_%00"), **body), 404, "not_found")
    assert ana.job(job)["status"] == "completed"


@pytest.mark.parametrize(("method", "url"), ROUTES)
def test_nobody_gets_in_without_a_valid_key(service: Service, method: str, url: str) -> None:
    ana = service.person(credits=10)
    url = url.format(job=ana.submit()["jobId"])
    body = {"json": {"prompt": "x"}} if method == "POST" else {}
    missing = service.ask(method, url, **body)
    assert "Authorization: Bearer" in fault(missing, 401, "unauthorized")["message"]
    assert missing.headers["www-authenticate"].startswith("Bearer ")
    for kind, value in _bad_headers(ana).items():
        refused = service.ask(method, url, headers={b"authorization": value.encode("latin-1")}, **body)
        error = fault(refused, 401, "unauthorized")
        assert ana.key[12:] not in refused.text, kind
        assert len(error["message"]) < 200, kind
    assert service.ask(method, f"{url}?api_key={ana.key}", **body).status_code == 401
    assert [kind for kind, _ in ana.entries()] == ["grant", "charge"]


@pytest.mark.parametrize(("method", "url"), ROUTES)
def test_a_key_stops_at_once_when_revoked_and_when_it_expires(
    service: Service, method: str, url: str, later: Callable[[int], None]
) -> None:
    ana = service.person()
    url = url.format(job=ana.submit()["jobId"])
    body = {"json": {"prompt": "x"}} if method == "POST" else {}
    revoked, expiring = ana.another_key(), ana.another_key(expires_ms=clock.now_ms() + DAY_MS)
    assert revoked.ask(method, url, **body).status_code in (200, 202)
    service.write(accounts.revoke_key, account_id=ana.account_id, key=revoked.key_id)
    error = fault(revoked.ask(method, url, **body), 401, "unauthorized")
    assert "revoked" in error["message"]
    assert revoked.key not in error["message"]
    assert expiring.ask(method, url, **body).status_code in (200, 202)
    later(DAY_MS - 60_000)
    assert expiring.ask(method, url, **body).status_code in (200, 202)
    later(60_000)
    assert "expired" in fault(expiring.ask(method, url, **body), 401, "unauthorized")["message"]
    assert ana.ask("GET", f"{API}/jobs").status_code == 200  # the account's other key goes on


def test_header_forms_that_are_valid(service: Service) -> None:
    ana = service.person()
    for value in (f"Bearer {ana.key}", f"bearer {ana.key}", f"BEARER {ana.key}", f"Bearer   {ana.key}  "):
        assert service.ask("GET", f"{API}/jobs", headers={"authorization": value}).status_code == 200, value


def test_who_has_no_key_learns_that_before_anything_else(service: Service) -> None:
    ana = service.person()
    bad = {"authorization": "Bearer pd_bad"}
    for more in (
        {"content": b"{"},
        {"json": {"nonsense": 1}},
        {"json": {"prompt": "x", "image_url": "http://10.0.0.1"}},
    ):
        fault(service.ask("POST", RUN, **more), 401, "unauthorized")
        fault(service.ask("POST", RUN, headers=bad, **more), 401, "unauthorized")
    fault(service.ask("POST", f"{API}/models/none/run", json={"prompt": "x"}), 401, "unauthorized")
    fault(service.ask("POST", RUN, content=b"x" * 70_000), 401, "unauthorized")
    fault(service.ask("POST", RUN, content=b"{}", headers={"content-type": "text/plain"}), 401, "unauthorized")
    fault(service.ask("GET", f"{API}/jobs?limit=0"), 401, "unauthorized")
    fault(service.ask("GET", f"{API}/jobs/job_none"), 401, "unauthorized")
    assert ana.entries() == [("grant", 100_000)]


def test_another_accounts_job_is_as_an_unknown_one(service: Service) -> None:
    ana, ben = service.person(), service.person()
    job = ana.done()
    unknown = f"job_{'0' * 32}"
    foreign = fault(ben.ask("GET", f"{API}/jobs/{job['jobId']}"), 404, "not_found")
    nowhere = fault(ben.ask("GET", f"{API}/jobs/{unknown}"), 404, "not_found")
    assert foreign["message"].replace(job["jobId"], unknown) == nowhere["message"]
    assert ben.jobs() == {"jobs": [], "nextCursor": None}
    assert ben.jobs(f"?cursor=job_{'f' * 32}")["jobs"] == []
    assert [each["jobId"] for each in ana.another_key().jobs()["jobs"]] == [job["jobId"]]  # keys share the account
    ben.submit()
    assert ben.jobs(f"?cursor={job['jobId']}")["jobs"] == []  # somebody else's cursor shows nothing of theirs
    assert (ana.balance(), ben.balance()) == (99_000, 99_000)


def test_another_account_still_gets_404_after_expiry(service: Service, later: Callable[[int], None]) -> None:
    ana, ben = service.person(), service.person()
    url = f"{API}/jobs/{ana.done()['jobId']}"
    later(DAY_MS + 60_000)
    fault(ana.ask("GET", url), 410, "expired")
    fault(ben.ask("GET", url), 404, "not_found")


@pytest.mark.parametrize("job_id", ["job_none", "x", "job_%00", "%ff%fe", "job_" + "0" * 3000, "'--", "%F0%9F%8D%8E"])
def test_odd_job_ids_are_unknown_ones(service: Service, job_id: str) -> None:
    fault(service.person().ask("GET", f"{API}/jobs/{job_id}"), 404, "not_found")


def test_everybody_may_read_the_catalogue(service: Service) -> None:
    for url in OPEN:
        response = service.ask("GET", url)
        assert response.status_code == 200, url
        assert response.headers["x-request-id"].startswith("req_")
        assert service.ask("GET", url, headers={"authorization": "Bearer pd_wrong"}).status_code == 200


def test_models(service: Service) -> None:
    listed = service.ask("GET", f"{API}/models").json()
    assert {name: value for name, value in listed.items() if name != "models"} == {
        "total": 2, "imageCount": 2, "videoCount": 0,
    }  # fmt: skip
    card = listed["models"][0]
    assert set(card) == {"apiId", "name", "description", "modality", "capabilities", "creditCost"}
    assert (card["apiId"], card["creditCost"]) == ("testcard", {"type": "per_image", "amount": 1, "default": 1})
    assert listed["models"][1]["creditCost"] == {"type": "per_image", "amount": 0.375, "default": 0.375}
    assert service.ask("GET", f"{API}/models?modality=image").json() == listed
    empty = {"models": [], "total": 0, "imageCount": 0, "videoCount": 0}
    assert service.ask("GET", f"{API}/models?modality=video").json() == empty

    whole = service.ask("GET", f"{API}/models/testcard").json()
    schema = whole["requestSchema"]
    assert card.items() <= whole.items()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["prompt"]
    assert {"prompt", "seed", "webhook_url"} <= set(schema["properties"])
    shown = service.ask("GET", f"{API}/models/testcard/schema").json()
    assert shown == {"apiId": "testcard", "schema": schema}
    detailed = service.ask("GET", f"{API}/models?detailed=true").json()["models"]
    assert detailed[0] == card | {"requestSchema": schema}
    assert service.ask("GET", f"{API}/models?detailed=0").json() == listed


def test_wrong_questions_to_the_catalogue(service: Service) -> None:
    for query in ("modality=sound", "modality=", "modality=Image", "detailed=maybe", "detailed=2"):
        error = fault(service.ask("GET", f"{API}/models?{query}"), 400, "validation_error")
        assert [each["path"] for each in error["details"]] == [query.partition("=")[0]]
    for name in ("none", "TESTCARD", "dojo-mini", "%00", "testcard%2frun", "x" * 3000):
        for tail in ("", "/schema"):
            fault(service.ask("GET", f"{API}/models/{name}{tail}"), 404, "not_found")


def test_health(service: Service) -> None:
    assert service.ask("GET", "/healthz").json() == {"status": "ok", "version": __version__}
    assert service.ask("GET", "/readyz").json() == {"status": "ready", "models": 2}


def test_a_keys_allow_list(service: Service) -> None:
    ana = service.person(models=["testcard-hasty"])
    error = fault(ana.run(), 400, "validation_error")
    assert [each["path"] for each in error["details"]] == ["model"]
    assert "testcard-hasty" in error["message"]
    assert ana.done(model="testcard-hasty")["status"] == "completed"
    assert ana.entries() == [("grant", 100_000), ("charge", -375)]
    assert ana.ask("GET", f"{API}/models/testcard").status_code == 200  # reading is free
    assert ana.another_key().submit()["status"] == "pending"


def test_an_empty_allow_list_allows_nothing(service: Service) -> None:
    ana = service.person(models=[])
    assert [each["path"] for each in fault(ana.run(), 400, "validation_error")["details"]] == ["model"]
    assert ana.entries() == [("grant", 100_000)]


def test_a_spending_cap_holds_to_the_milli_credit(service: Service) -> None:
    exact = service.person(cap_milli=750)
    for _ in range(2):
        exact.submit(model="testcard-hasty")
    error = fault(exact.run(model="testcard-hasty"), 402, "insufficient_credits")
    assert "0.75" in error["message"]
    short = exact.another_key(cap_milli=749)
    short.submit(model="testcard-hasty")
    fault(short.run(model="testcard-hasty"), 402, "insufficient_credits")
    fault(exact.another_key(cap_milli=0).run(model="testcard-hasty"), 402, "insufficient_credits")
    assert exact.entries() == [("grant", 100_000), *[("charge", -375)] * 3]
    assert len(exact.jobs()["jobs"]) == 3
    service.audit()


def test_a_refund_gives_the_budget_back(service: Service) -> None:
    ana = service.person(cap_milli=1000)
    assert ana.done("!refuse")["creditsRefunded"] == 1
    assert ana.done()["status"] == "completed"
    fault(ana.run("!refuse"), 402, "insufficient_credits")
    assert ana.balance() == 99_000
    service.audit()


def test_a_cap_holds_when_many_submit_at_once(service: Service) -> None:
    ana = service.person(cap_milli=3000)
    answers = service.ask_at_once(*[("POST", RUN, {"json": {"prompt": "x"}, "headers": ana.headers})] * 12)
    assert sorted(answer.status_code for answer in answers) == [202] * 3 + [402] * 9
    assert ana.balance() == 97_000
    service.audit()
