"""What a caller can do about a job besides polling: cancel, wait, listen, estimate, label, remove; and fair turns."""

import asyncio
import base64
import io
import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from PIL import Image

from doors.conftest import API, BASE, RUN, Person, Service, fault, faults
from pixeldojo.janitor import Janitor
from pixeldojo.jobs import queue


def _cancel(person: Person, job_id: str) -> Any:
    response = person.ask("POST", f"{API}/jobs/{job_id}/cancel")
    assert response.status_code == 200, response.text
    return response.json()


def test_a_pending_job_is_cancelled_at_once(still: Service) -> None:
    ana = still.person(credits=1)
    job_id = ana.submit()["jobId"]
    assert _cancel(ana, job_id) == {"jobId": job_id, "result": "cancelled", "status": "failed"}
    job = ana.job(job_id)
    assert job["error"]["code"] == "cancelled"
    assert job["creditsRefunded"] == 1
    assert ana.entries() == [("grant", 1000), ("charge", -1000), ("refund", 1000)]
    assert _cancel(ana, job_id)["result"] == "too_late"
    assert len(ana.entries()) == 3


@pytest.mark.parametrize("prompt", ["!slow", "!hang"])
def test_a_running_job_is_cancelled_within_a_second_or_so(service: Service, prompt: str) -> None:
    ana = service.person(credits=1)
    job_id = ana.submit(prompt)["jobId"]
    service.until(lambda: ana.job(job_id), lambda job: job["status"] == "processing")
    assert _cancel(ana, job_id)["result"] == "cancelling"
    job = service.until(lambda: ana.job(job_id), lambda job: job["status"] == "failed", within_s=4)
    assert job["error"]["code"] == "cancelled"
    assert ana.balance() == 1000
    assert service.files(job_id) == []
    ana.done()  # the seat serves the next job


def test_cancelling_what_has_ended_or_is_not_yours(service: Service) -> None:
    ana, bo = service.person(), service.person()
    job_id = ana.done()["jobId"]
    assert _cancel(ana, job_id) == {"jobId": job_id, "result": "too_late", "status": "completed"}
    fault(bo.ask("POST", f"{API}/jobs/{job_id}/cancel"), 404, "not_found")
    fault(service.ask("POST", f"{API}/jobs/{job_id}/cancel"), 401, "unauthorized")
    reader = ana.another_key(scopes=["jobs:read"])
    fault(reader.ask("POST", f"{API}/jobs/{job_id}/cancel"), 401, "unauthorized")
    assert reader.job(job_id)["status"] == "completed"
    fault(reader.run(), 401, "unauthorized")


def test_limits_set_by_the_caller(still: Service, later: Callable[[int], None]) -> None:
    ana = still.person()
    headers = {"cancel-after": "90s"}
    first = ana.ask("POST", RUN, json={"prompt": "x"}, headers=headers).json()["jobId"]
    second = ana.ask("POST", RUN, json={"prompt": "x"}, headers={"start-within": "5m"}).json()["jobId"]
    third = ana.submit()["jobId"]
    janitor = Janitor(still.house)
    later(89_000)
    still.do(janitor.rescue())
    assert ana.job(first)["status"] == "pending"
    later(2_000)
    still.do(janitor.rescue())
    assert ana.job(first)["error"]["code"] == "cancelled"
    assert ana.job(second)["status"] == "pending"
    later(240_000)
    still.do(janitor.rescue())
    assert ana.job(second)["error"]["code"] == "not_started"
    assert ana.job(third)["status"] == "pending"
    assert ana.balance() == 99_000


def test_a_deadline_stops_work(service: Service) -> None:
    ana = service.person()
    job_id = ana.ask("POST", RUN, json={"prompt": "!slow"}, headers={"cancel-after": "300ms"}).json()["jobId"]
    assert ana.wait(job_id)["error"]["code"] == "cancelled"


@pytest.mark.parametrize("header", ["cancel-after", "start-within"])
@pytest.mark.parametrize("text", ["", "soon", "-3s", "0", "8d", "1e9s", "99999999h", "5 m 3 s"])
def test_bad_durations(still: Service, header: str, text: str) -> None:
    ana = still.person()
    answer = ana.ask("POST", RUN, json={"prompt": "x"}, headers={header: text})
    assert list(faults(answer)) == [header.title()]
    assert ana.balance() == 100_000


def test_waiting_for_the_result(service: Service) -> None:
    ana = service.person()
    answer = ana.ask("POST", RUN, json={"prompt": "x"}, headers={"prefer": "wait=20"})
    assert (answer.status_code, answer.headers["preference-applied"]) == (200, "wait=20")
    job = answer.json()
    assert job["status"] == "completed"
    assert job["assets"][0]["url"].startswith(BASE)
    assert job["creditsRemaining"] == 99
    assert {"statusUrl", "creditCost"} <= set(job)
    failed = ana.ask("POST", RUN, json={"prompt": "!refuse"}, headers={"prefer": "respond-async, wait=20"}).json()
    assert failed["status"] == "failed"
    assert failed["creditsRemaining"] == 99
    late = ana.ask("POST", RUN, json={"prompt": "!slow"}, headers={"prefer": "wait=1"})
    assert late.status_code == 202
    assert late.json()["status"] == "pending"
    ana.wait(late.json()["jobId"])
    assert list(faults(ana.ask("POST", RUN, json={"prompt": "x"}, headers={"prefer": "wait=long"}))) == ["Prefer"]
    plain = ana.ask("POST", RUN, json={"prompt": "x"}, headers={"prefer": "handling=lenient"})
    assert plain.status_code == 202


def _events(text: str) -> list[tuple[str, str, Any]]:
    """(id, event, data) of a stream."""
    found = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
        if "data" in fields:
            found.append((fields.get("id", ""), fields["event"], json.loads(fields["data"])))
    return found


def test_events_tell_a_job_to_its_end(service: Service) -> None:
    ana = service.person()
    job_id = ana.submit("!slow")["jobId"]
    answer = ana.ask("GET", f"{API}/jobs/{job_id}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    told = _events(answer.text)
    names = [name for _, name, _ in told]
    assert names[-1] == "completed"
    assert names.count("progress") >= 2
    assert told[-1][2]["assets"]
    previews = [data for _, name, data in told if name == "preview"]
    assert len(previews) >= 2
    shown = [base64.b64decode(each["picture"].removeprefix("data:image/png;base64,")) for each in previews]
    assert len(set(shown)) == len(shown)
    assert Image.open(io.BytesIO(shown[0])).size == (32, 32)
    assert set(previews[0]) == {"jobId", "progress", "picture"}
    fractions = [data["progress"] for _, name, data in told if name == "progress"]
    assert fractions == sorted(fractions)
    again = _events(ana.ask("GET", f"{API}/jobs/{job_id}/events").text)
    assert [name for _, name, _ in again] == ["completed"]
    known = ana.ask("GET", f"{API}/jobs/{job_id}/events", headers={"last-event-id": told[-1][0]})
    assert _events(known.text) == []
    fault(service.person().ask("GET", f"{API}/jobs/{job_id}/events"), 404, "not_found")


def test_a_listener_hears_a_cancel(still: Service) -> None:
    ana = still.person()
    job_id = ana.submit()["jobId"]

    async def listen_and_cancel() -> list[tuple[str, str, Any]]:
        listening = asyncio.create_task(still.asking("GET", f"{API}/jobs/{job_id}/events", headers=ana.headers))
        await asyncio.sleep(0.1)
        await still.asking("POST", f"{API}/jobs/{job_id}/cancel", headers=ana.headers)
        async with asyncio.timeout(5):
            return _events((await listening).text)

    assert [name for _, name, _ in still.do(listen_and_cancel())] == ["status", "failed"]


def test_a_listener_hears_of_a_job_that_ends_as_it_arrives(still: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    ana = still.person()
    job_id = ana.submit()["jobId"]
    read = still.house.db.read

    async def read_and_then_cancel(fn: Any, *arguments: Any, **more: Any) -> Any:
        found = await read(fn, *arguments, **more)
        monkeypatch.undo()
        await still.asking("POST", f"{API}/jobs/{job_id}/cancel", headers=ana.headers)
        return found

    async def listen() -> list[tuple[str, str, Any]]:
        monkeypatch.setattr(still.house.db, "read", read_and_then_cancel)
        async with asyncio.timeout(5):
            return _events((await still.asking("GET", f"{API}/jobs/{job_id}/events", headers=ana.headers)).text)

    assert [name for _, name, _ in still.do(listen())] == ["status", "failed"]


def test_estimate(service: Service) -> None:
    ana = service.person(credits=3)
    ana.done()
    path = f"{API}/models/testcard/estimate"
    told = ana.ask("POST", path, json={"prompt": "x", "num_outputs": 3}).json()
    assert told["creditCost"] == 3
    assert told["creditsRemaining"] == 2
    assert told["affordable"] is False
    assert told["queuePosition"] >= 1
    assert told["etaSeconds"] >= 0
    assert ana.jobs()["jobs"][0]["status"] == "completed"
    assert len(ana.jobs()["jobs"]) == 1
    assert set(faults(ana.ask("POST", path, json={"num_outputs": 9}))) == {"prompt", "num_outputs"}
    fault(service.ask("POST", path, json={"prompt": "x"}), 401, "unauthorized")
    fault(ana.ask("POST", f"{API}/models/none/estimate", json={"prompt": "x"}), 404, "not_found")


def test_the_most_to_pay(still: Service) -> None:
    ana = still.person()
    assert ana.submit(max_credit_cost=1)["creditCost"] == 1
    answer = ana.run(num_outputs=2, max_credit_cost=1.5)
    assert list(faults(answer)) == ["max_credit_cost"]
    assert ana.balance() == 99_000


def test_the_place_in_the_queue(serve: Callable[..., Service]) -> None:
    quiet = serve(works=False)
    ana, bo = quiet.person(), quiet.person()
    mine = [ana.submit()["jobId"] for _ in range(3)]

    def place(person: Person, job_id: str) -> int:
        return int(person.job(job_id)["queuePosition"])

    assert [place(ana, job_id) for job_id in mine] == [1, 2, 3]
    urgent = ana.submit(priority=5)["jobId"]
    assert [place(ana, job_id) for job_id in (urgent, *mine)] == [1, 2, 3, 4]
    other = bo.submit()["jobId"]
    # Accounts take turns. What others have waiting may be a moment old.
    quiet.until(lambda: place(bo, other), lambda found: found == 2)
    quiet.until(lambda: place(ana, mine[2]), lambda found: found == 5)

    def next_place() -> int:
        return int(bo.ask("POST", f"{API}/models/testcard/estimate", json={"prompt": "x"}).json()["queuePosition"])

    quiet.until(next_place, lambda found: found == 4)


def test_metadata_is_echoed_and_filters_lists(service: Service) -> None:
    ana = service.person()
    tags = {"order": "A-17", "page": 3, "draft": True}
    first = ana.done(metadata=tags)
    ana.done(metadata={"order": "A-18"})
    ana.done()
    assert first["metadata"] == tags
    assert "metadata" not in ana.jobs()["jobs"][0]
    for query in (
        "metadata.order=A-17",
        "metadata.page=3",
        "metadata.draft=true",
        "metadata.order=A-17&metadata.page=3",
    ):
        assert [job["jobId"] for job in ana.jobs(f"?{query}")["jobs"]] == [first["jobId"]], query
    assert ana.jobs("?metadata.order=A-99")["jobs"] == []
    assert service.person().jobs("?metadata.order=A-17")["jobs"] == []
    for bad in ({"a": None}, {"a": [1]}, {"a": {"b": 1}}, {"": "x"}, {"a b": "x"}, {"a": "x" * 501}, "text",
                {str(n): n for n in range(17)}):  # fmt: skip
        assert any(path.startswith("metadata") for path in faults(ana.run(metadata=bad))), bad


def test_lists_by_key_and_time(service: Service) -> None:
    ana = service.person()
    first = ana.done()
    other = ana.another_key()
    second = other.done()
    assert [job["jobId"] for job in ana.jobs(f"?key={other.key_id}")["jobs"]] == [second["jobId"]]
    times = f"?createdAfter={second['createdAt']}"
    assert [job["jobId"] for job in ana.jobs(times)["jobs"]] == [second["jobId"]]
    times = f"?createdBefore={second['createdAt'].replace('Z', '%2B00:00')}"
    assert [job["jobId"] for job in ana.jobs(times)["jobs"]] == [first["jobId"]]
    answer = ana.ask("GET", f"{API}/jobs?createdAfter=yesterday&createdBefore=2025-01-01")
    assert set(faults(answer)) == {"createdAfter", "createdBefore"}


def test_removing_a_job_early(service: Service) -> None:
    ana, bo = service.person(), service.person()
    job = ana.done()
    path = f"{API}/jobs/{job['jobId']}"
    fault(bo.ask("DELETE", path), 404, "not_found")
    assert ana.ask("DELETE", path).json() == {"jobId": job["jobId"], "deleted": True}
    assert service.files(job["jobId"]) == []
    fault(ana.ask("GET", path), 410, "expired")
    fault(service.ask("GET", job["assets"][0]["url"]), 410, "expired")
    listed = ana.jobs()["jobs"][0]
    assert listed["expired"] is True
    assert listed["input"] == {}
    slow = ana.submit("!slow")["jobId"]
    assert list(faults(ana.ask("DELETE", f"{API}/jobs/{slow}"))) == ["jobId"]
    ana.wait(slow)


def test_one_account_does_not_starve_another(serve: Callable[..., Service]) -> None:
    quiet = serve(works=False)
    many, one = quiet.person(credits=1000), quiet.person()
    for _ in range(50):
        many.submit()
    lonely = one.submit()["jobId"]
    _, claimed = quiet.write(queue.claim, free={"testcard": 4}, lease_s=60)
    assert lonely in [job.id for job in claimed]
    assert len(claimed) == 4


def test_an_account_has_only_so_many_jobs_at_work(serve: Callable[..., Service]) -> None:
    quiet = serve(works=False)
    ana, bo = quiet.person(), quiet.person()
    mine = {ana.submit()["jobId"] for _ in range(5)}
    other = bo.submit()["jobId"]

    def at_work(limit: int) -> set[str]:
        _, claimed = quiet.write(queue.claim, free={"testcard": 10}, lease_s=60, account_concurrency=limit)
        return {job.id for job in claimed}

    first = at_work(2)
    assert other in first
    assert len(first & mine) == 2
    assert at_work(2) == set()
    assert len(at_work(3)) == 1


def test_priority_orders_ones_own_jobs(serve: Callable[..., Service]) -> None:
    quiet = serve(works=False)
    ana = quiet.person()
    jobs = {priority: ana.submit(priority=priority)["jobId"] for priority in (0, -3, 7)}
    order = []
    for _ in range(3):
        _, (job,) = quiet.write(queue.claim, free={"testcard": 1}, lease_s=60)
        order.append(job.id)
    assert order == [jobs[7], jobs[0], jobs[-3]]
    assert list(faults(ana.run(priority=11))) == ["priority"]


def test_many_listeners_hear_of_the_end(still: Service) -> None:
    """Each asks the database once, and again when the job changed."""
    ana = still.person()
    job_id = ana.submit()["jobId"]

    async def crowd() -> int:
        async with asyncio.timeout(30):
            answers = [
                asyncio.create_task(still.asking("GET", f"{API}/jobs/{job_id}/events", headers=ana.headers))
                for _ in range(200)
            ]
            await asyncio.sleep(0.5)
            await still.asking("POST", f"{API}/jobs/{job_id}/cancel", headers=ana.headers)
            heard: list[httpx2.Response] = await asyncio.gather(*answers)
        return sum("event: failed" in answer.text for answer in heard)

    assert still.do(crowd()) == 200
