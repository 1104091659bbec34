"""Jobs as clients see them: the four states, lists, expiry."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from doors.conftest import API, DAY_MS, Person, Service, fault, faults
from pixeldojo import clock
from pixeldojo.janitor import Janitor
from pixeldojo.jobs import service as jobs

ALWAYS = {
    "jobId", "status", "model", "modality", "input", "creditCost", "createdAt", "startedAt", "completedAt",
    "expiresAt",
}  # fmt: skip
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def _ids(page: dict[str, Any]) -> list[str]:
    return [job["jobId"] for job in page["jobs"]]


def _submitted(person: Person, count: int) -> list[str]:
    """That many new jobs, newest first."""
    return [person.submit(str(number))["jobId"] for number in range(count)][::-1]


def _all(person: Person, query: str, *, limit: int) -> list[str]:
    """Every job's id, page by page."""
    found: list[str] = []
    page = person.jobs(f"?limit={limit}{query}")
    while True:
        assert len(page["jobs"]) <= limit
        found += _ids(page)
        if page["nextCursor"] is None:
            return found
        assert len(page["jobs"]) == limit
        page = person.jobs(f"?limit={limit}{query}&cursor={page['nextCursor']}")


def test_pending(still: Service) -> None:
    ana = still.person()
    job = ana.job(ana.submit("x", seed=7)["jobId"])
    assert ALWAYS <= set(job) <= ALWAYS | {"queuePosition", "etaSeconds"}
    assert job["status"] == "pending"
    assert (job["model"], job["modality"]) == ("testcard", "image")
    assert job["input"] == {"prompt": "x", "seed": 7, "aspect_ratio": "1:1", "num_outputs": 1}
    assert job["startedAt"] is job["completedAt"] is None
    assert TIME.fullmatch(job["createdAt"])


def test_processing_shows_progress(service: Service) -> None:
    ana = service.person()
    job_id = ana.submit("!slow")["jobId"]
    seen: list[dict[str, Any]] = []

    def look() -> dict[str, Any]:
        seen.append(ana.job(job_id))
        return seen[-1]

    job = service.until(look, lambda job: job["completedAt"] is not None)
    working = [each for each in seen if each["status"] == "processing"]
    assert [each["status"] for each in seen] == sorted(
        (each["status"] for each in seen), key=["pending", "processing", "completed"].index
    )
    assert all(set(each) == ALWAYS | {"progress"} for each in working)
    steps = [each["progress"] for each in working]
    assert steps == sorted(steps)
    assert all(0 <= step <= 1 for step in steps)
    assert len(set(steps)) > 3
    assert "progress" not in job


def test_completed(service: Service) -> None:
    ana = service.person()
    submitted = ana.submit("x", num_outputs=2)
    job = ana.wait(submitted["jobId"])
    assert set(job) == ALWAYS | {"output", "assets", "metrics"}
    assert set(job["output"]) == {"images", "image"}
    assert job["output"]["image"] == job["output"]["images"][0]
    assert [asset["url"] for asset in job["assets"]] == job["output"]["images"]
    for asset in job["assets"]:
        assert set(asset) == {"url", "type", "contentType", "width", "height", "bytes", "seed"}
        assert (asset["type"], asset["contentType"]) == ("image", "image/png")
        assert service.ask("GET", asset["url"]).headers["content-type"] == "image/png"
    times = [job[name] for name in ("createdAt", "startedAt", "completedAt", "expiresAt")]
    assert all(TIME.fullmatch(time) for time in times)
    assert times == sorted(times)
    assert job["expiresAt"] > submitted["expiresAt"]  # a day from the end, not from the start


def test_failed(service: Service) -> None:
    ana = service.person()
    job = ana.done("!refuse")
    assert set(job) == ALWAYS | {"error", "creditsRefunded"}
    assert job["error"] == {"code": "validation_error", "message": "The prompt asks to be refused."}
    assert ana.jobs()["jobs"] == [job]


def test_pages(service: Service) -> None:
    ana = service.person()
    made = _submitted(ana, 7)
    assert _ids(ana.jobs()) == made
    for limit in (1, 2, 3, 6, 7, 8, 100):
        assert _all(ana, "", limit=limit) == made
    assert ana.jobs("?limit=7")["nextCursor"] is None
    assert _ids(ana.jobs("?cursor=")) == made


def test_twenty_jobs_a_page_unless_told_otherwise(still: Service) -> None:
    ana = still.person()
    for number in range(21):
        ana.submit(str(number))
    page = ana.jobs()
    assert len(page["jobs"]) == 20
    assert len(ana.jobs("?limit=100")["jobs"]) == 21
    assert len(ana.jobs(f"?cursor={page['nextCursor']}")["jobs"]) == 1


def test_a_cursor_holds_its_place_while_new_jobs_come(service: Service) -> None:
    ana = service.person()
    made = _submitted(ana, 4)
    page = ana.jobs("?limit=2")
    new = _submitted(ana, 3)
    following = ana.jobs(f"?limit=2&cursor={page['nextCursor']}")
    assert _ids(page) + _ids(following) == made
    assert following["nextCursor"] is None
    assert _ids(ana.jobs()) == new + made


def test_filters(service: Service) -> None:
    ana = service.person()
    good = [ana.done()["jobId"] for _ in range(3)][::-1]
    bad = [ana.done("!refuse")["jobId"] for _ in range(2)][::-1]
    hasty = ana.done(model="testcard-hasty")["jobId"]
    assert _all(ana, "&status=completed", limit=2) == [hasty, *good]
    assert _all(ana, "&status=failed", limit=1) == bad
    assert ana.jobs("?status=pending") == ana.jobs("?status=processing") == {"jobs": [], "nextCursor": None}
    assert _all(ana, "&model=testcard", limit=2) == bad + good
    assert _all(ana, "&model=testcard-hasty&status=completed", limit=1) == [hasty]
    assert ana.jobs("?model=none")["jobs"] == ana.jobs("?model=%27--")["jobs"] == []
    assert ana.jobs("?status=&model=")["jobs"] == ana.jobs()["jobs"]
    assert ana.jobs("?createdAfter=1066-10-14T09:00:00Z") == ana.jobs()
    assert ana.jobs("?createdBefore=1066-10-14T09:00:00Z")["jobs"] == []


@pytest.mark.parametrize(
    ("query", "named"),
    [
        *((f"limit={value}", {"limit"}) for value in (
            "0", "101", "-1", "1.5", "x", "", "%20", "1e1", "0x5", "%D9%A3", "+5", "99999999999999999999",
            "00000000199", "000000001" + "9" * 30, "000000001" + "9" * 5000, "5%00", "1,2",
        )),
        *((f"cursor={value}", {"cursor"}) for value in (
            "x", "job_", "job_" + "g" * 32, "job_" + "0" * 33, "%00", "JOB_" + "0" * 32, "job_" + "0" * 32 + "%0A",
        )),
        *((f"status={value}", {"status"}) for value in ("lost", "PENDING", "pending,failed", "%00", "expired")),
        *((f"{name}=%00", {name}) for name in ("model", "key", "metadata.a")),
        ("limit=0&cursor=x&status=lost&model=a%00", {"limit", "cursor", "status", "model"}),
    ],
)  # fmt: skip
def test_bad_questions(service: Service, query: str, named: set[str]) -> None:
    ana = service.person()
    assert set(faults(ana.ask("GET", f"{API}/jobs?{query}"))) == named


@pytest.mark.parametrize("query", ["limit=1", "limit=100", "limit=007", "model=" + "x" * 3000, "model=%ff", "extra=1"])
def test_odd_questions_that_have_an_answer(service: Service, query: str) -> None:
    ana = service.person()
    assert ana.jobs(f"?{query}") == {"jobs": [], "nextCursor": None}


def test_a_job_expires_a_day_after_its_end(service: Service, later: Callable[[int], None]) -> None:
    ana = service.person()
    done, failed = ana.done(), ana.done("!refuse")
    url, asset = f"{API}/jobs/{done['jobId']}", done["output"]["image"]
    later(DAY_MS - 30_000)
    assert ana.ask("GET", url).status_code == 200
    assert service.ask("GET", asset).status_code == 200
    service.do(Janitor(service.house).step())
    assert service.files(done["jobId"]) == ["0.png"]
    later(30_000)
    assert done["expiresAt"] in fault(ana.ask("GET", url), 410, "expired")["message"]
    fault(ana.ask("GET", f"{API}/jobs/{failed['jobId']}"), 410, "expired")
    fault(service.ask("GET", asset), 410, "expired")
    while service.do(Janitor(service.house).step()):
        pass
    assert service.files(done["jobId"]) == []
    assert not (service.house.settings.data_dir / "assets" / done["jobId"]).exists()
    fault(ana.ask("GET", url), 410, "expired")
    fault(service.ask("GET", asset), 410, "expired")
    listed = ana.jobs()["jobs"]
    assert [each["jobId"] for each in listed] == [failed["jobId"], done["jobId"]]
    assert set(listed[1]) == ALWAYS | {"expired"}
    assert listed[1]["expired"] is True
    assert service.do(Janitor(service.house).step()) is False
    assert ana.balance() == 99_000  # a result that was there to fetch is not refunded
    service.audit()


def test_a_job_that_was_never_begun_is_refunded_when_it_expires(
    serve: Callable[..., Service], later: Callable[[int], None]
) -> None:
    service = serve(works=False)
    ana = service.person()
    job_id = ana.submit(key="k")["jobId"]
    later(DAY_MS + 1000)
    assert ana.job(job_id)["status"] == "pending"  # nobody has swept yet, and there is nothing to lose
    service.do(Janitor(service.house).step())
    job = ana.job(job_id)
    assert (job["status"], job["error"]["code"], job["creditsRefunded"]) == ("failed", "expired", 1)
    assert ana.balance() == 100_000
    service.do(Janitor(service.house).step())
    assert ana.entries() == [("grant", 100_000), ("charge", -1000), ("refund", 1000)]
    later(DAY_MS)
    fault(ana.ask("GET", f"{API}/jobs/{job_id}"), 410, "expired")
    service.audit()


def test_jobs_of_a_worker_gone_silent_are_rescued_then_refunded(
    serve: Callable[..., Service], later: Callable[[int], None]
) -> None:
    service = serve(works=False)
    ana = service.person()
    job_id = ana.submit()["jobId"]
    janitor = Janitor(service.house)
    for attempt in (1, 2):
        service.write(jobs.claim, free={"testcard": 1}, lease_s=15)
        assert ana.job(job_id)["status"] == "processing"
        assert service.do(janitor.rescue()) == 0
        later(16_000)
        assert service.do(janitor.rescue()) == 1
        assert ana.job(job_id)["status"] == ("pending" if attempt == 1 else "failed")
    assert ana.job(job_id)["error"]["code"] == "worker_lost"
    assert ana.balance() == 100_000
    assert clock.rfc3339(clock.now_ms())[:16] <= ana.job(job_id)["expiresAt"]
    service.audit()


def test_many_jobs_finish_each_once(service: Service) -> None:
    people = [service.person() for _ in range(3)]
    made = {person: [person.submit(str(number))["jobId"] for number in range(8)] for person in people}
    for person, job_ids in made.items():
        done = [person.wait(job_id) for job_id in job_ids]
        assert {job["status"] for job in done} == {"completed"}
        assert [job["input"]["prompt"] for job in done] == [str(number) for number in range(8)]
        assert person.balance() == 92_000
    service.audit()
