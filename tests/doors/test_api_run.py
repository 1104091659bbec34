"""Submitting: what it answers, what it costs and gives back, and that asking twice is not paying twice."""

import io
import re
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from doors.conftest import API, BASE, DAY_MS, RUN, Person, Service, fault, faults
from pixeldojo import clock
from pixeldojo.db import Tx
from pixeldojo.ledger import service as ledger


def _job_rows(tx: Tx) -> int:
    row = tx.one("SELECT COUNT(*) FROM jobs")
    assert row is not None
    return int(row[0])


def _pictures(person: Person, job: dict[str, Any]) -> list[bytes]:
    return [person.service.ask("GET", url).content for url in job["output"]["images"]]


def _at_once(people: list[Person], body: dict[str, Any], **headers: str) -> list[Any]:
    return people[0].service.ask_at_once(
        *(("POST", RUN, {"json": body, "headers": person.headers | headers}) for person in people)
    )


def test_the_receipt(service: Service) -> None:
    ana = service.person(credits=10)
    before = clock.now_ms()
    response = ana.run(num_outputs=2)
    assert response.status_code == 202
    receipt = response.json()
    assert list(receipt) == ["jobId", "status", "statusUrl", "creditCost", "creditsRemaining", "expiresAt"]
    assert re.fullmatch(r"job_[0-9a-f]{32}", receipt["jobId"])
    assert receipt["status"] == "pending"
    assert receipt["statusUrl"] == f"{BASE}{API}/jobs/{receipt['jobId']}"
    assert (receipt["creditCost"], receipt["creditsRemaining"]) == (2, 8)
    assert clock.rfc3339(before + DAY_MS) <= receipt["expiresAt"] <= clock.rfc3339(clock.now_ms() + DAY_MS)
    assert ana.ask("GET", receipt["statusUrl"]).json()["jobId"] == receipt["jobId"]
    assert "idempotent-replayed" not in response.headers


def test_addresses_follow_the_request_or_the_public_url(serve: Callable[..., Service]) -> None:
    ana = serve(works=False).person()
    response = ana.ask("POST", RUN, json={"prompt": "x"}, headers={"host": "pictures.test:99"})
    assert response.json()["statusUrl"].startswith(f"http://pictures.test:99{API}/jobs/job_")
    ben = serve(works=False, public_url="https://pictures.test/").person()
    assert ben.submit()["statusUrl"].startswith(f"https://pictures.test{API}/jobs/job_")


def test_parts_of_credits(service: Service) -> None:
    ana = service.person(credits=1.5)
    receipt = ana.submit(model="testcard-hasty", num_outputs=3)
    assert (receipt["creditCost"], receipt["creditsRemaining"]) == (1.125, 0.375)
    receipt = ana.submit(model="testcard-hasty")
    assert (receipt["creditCost"], receipt["creditsRemaining"]) == (0.375, 0)
    fault(ana.run(model="testcard-hasty"), 402, "insufficient_credits")
    service.audit()


def test_too_few_credits_charge_nothing_and_leave_no_job(service: Service) -> None:
    ana = service.person(credits=1.999)
    before = service.read(_job_rows)
    error = fault(ana.run(num_outputs=2), 402, "insufficient_credits")
    assert "2" in error["message"]
    assert "1.999" in error["message"]
    fault(ana.run(num_outputs=2, key="k"), 402, "insufficient_credits")
    assert ana.balance() == 1999
    assert ana.jobs()["jobs"] == []
    assert service.read(_job_rows) == before
    assert ana.submit(key="k")["creditsRemaining"] == 0.999  # nor did the refusal take the idempotency key


@pytest.mark.parametrize(
    ("prompt", "code", "message"),
    [
        ("!refuse", "validation_error", "refused"),
        ("!raise", "engine_failed", "2 attempts"),
        ("!crash", "engine_failed", "2 attempts"),
        ("!hang", "timeout", "time limit"),
    ],
)
def test_a_failed_job_is_refunded_whole(service: Service, prompt: str, code: str, message: str) -> None:
    ana = service.person(credits=2)
    job = ana.done(prompt, model="testcard-hasty", num_outputs=2)
    assert job["status"] == "failed"
    assert (job["creditCost"], job["creditsRefunded"]) == (0.75, 0.75)
    assert set(job["error"]) == {"code", "message"}
    assert job["error"]["code"] == code
    assert message in job["error"]["message"]
    assert not {"output", "assets", "progress", "metrics"} & set(job)
    assert ana.entries() == [("grant", 2000), ("charge", -750), ("refund", 750)]
    assert ana.balance() == 2000
    assert service.files(job["jobId"]) == []
    service.audit()
    assert ana.done()["status"] == "completed"  # the next one finds a healthy engine


def test_racing_for_the_last_credits(service: Service) -> None:
    ana = service.person(credits=7.9)
    answers = _at_once([ana] * 20, {"prompt": "x"})
    assert sorted(answer.status_code for answer in answers) == [202] * 7 + [402] * 13
    left = sorted(answer.json()["creditsRemaining"] for answer in answers if answer.status_code == 202)
    assert left == [0.9, 1.9, 2.9, 3.9, 4.9, 5.9, 6.9]
    for answer in answers:
        if answer.status_code == 402:
            fault(answer, 402, "insufficient_credits")
    assert ana.balance() == 900
    assert len(ana.jobs()["jobs"]) == 7
    service.audit()


def test_racing_through_two_keys_of_one_account(service: Service) -> None:
    ana = service.person(credits=5)
    answers = _at_once([ana, ana.another_key()] * 6, {"prompt": "x"})
    assert sorted(answer.status_code for answer in answers) == [202] * 5 + [402] * 7
    assert ana.balance() == 0


def test_refunds_and_charges_at_once_keep_the_books(service: Service) -> None:
    people = [service.person(credits=4) for _ in range(2)]
    answers = _at_once(people * 6, {"prompt": "!refuse"})
    for person in people:
        for job in person.jobs("?limit=100")["jobs"]:
            person.wait(job["jobId"])
        assert person.balance() == 4000
    assert {answer.status_code for answer in answers} <= {202, 402}
    assert sum(answer.status_code == 202 for answer in answers) >= 8
    service.audit()


def test_the_seed_is_reported_and_makes_the_same_bytes(service: Service) -> None:
    ana = service.person()
    first, second = ana.done("a house"), ana.done("a house")
    seed = first["input"]["seed"]
    assert 0 <= seed < 2**32
    assert seed == first["assets"][0]["seed"]
    assert seed != second["input"]["seed"]
    again = ana.done("a house", seed=seed)
    assert _pictures(ana, again) == _pictures(ana, first)
    assert _pictures(ana, ana.done("a mouse", seed=seed)) != _pictures(ana, first)


def test_each_output_is_the_picture_of_its_own_seed(service: Service) -> None:
    ana = service.person()
    job = ana.done("bars", num_outputs=4, seed=2**32 - 2)
    assert [asset["seed"] for asset in job["assets"]] == [2**32 - 2, 2**32 - 1, 0, 1]
    pictures = _pictures(ana, job)
    assert len(set(pictures)) == 4
    for asset, picture in zip(job["assets"], pictures, strict=True):
        assert _pictures(ana, ana.done("bars", seed=asset["seed"])) == [picture]


@pytest.mark.parametrize("ratio", ["1:1", "4:3", "3:4", "16:9", "9:16"])
def test_aspect_ratios(service: Service, ratio: str) -> None:
    ana = service.person()
    job = ana.done(aspect_ratio=ratio)
    asset = job["assets"][0]
    picture = _pictures(ana, job)[0]
    with Image.open(io.BytesIO(picture)) as image:
        assert image.format == "PNG"
        assert image.size == (asset["width"], asset["height"])
    width, height = map(int, ratio.split(":"))
    assert asset["width"] * height == asset["height"] * width
    assert asset["bytes"] == len(picture)


@pytest.mark.parametrize(
    "prompt",
    ["ünïcödé 🍎 \u202e", "<script>alert(1)</script>", "'; DROP TABLE jobs; --", "%s {0} \\n", "\ufeffx", "a\n\tb\x7f",
     "𝕏" * 1000],
)  # fmt: skip
def test_prompts_come_back_as_they_went(service: Service, prompt: str) -> None:
    ana = service.person()
    job = ana.done(prompt)
    assert (job["status"], job["input"]["prompt"]) == ("completed", prompt)


def test_the_same_key_and_body_is_one_job(service: Service) -> None:
    ana = service.person()
    body = b'{"prompt": "x", "num_outputs": 2}'
    same = b'{"num_outputs":2,\n "prompt":"\\u0078"}'
    first, second = (
        ana.ask("POST", RUN, content=content, headers={"idempotency-key": "order 1"}) for content in (body, same)
    )
    assert first.status_code == second.status_code == 202
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    moves = {"status", "expiresAt"}  # with the job, which may have begun or ended meanwhile
    told = [{name: value for name, value in each.json().items() if name not in moves} for each in (first, second)]
    assert told[0] == told[1]
    done = ana.wait(first.json()["jobId"])
    assert ana.run("x", num_outputs=2, key="order 1").json()["status"] == done["status"] == "completed"
    assert ana.run("x", num_outputs=2, key="order 1").json()["expiresAt"] == done["expiresAt"]
    assert ana.entries() == [("grant", 100_000), ("charge", -2000)]
    assert ana.another_key().submit("x", num_outputs=2, key="order 1")["jobId"] == done["jobId"]


def test_the_same_key_twenty_times_at_once_is_one_job(service: Service) -> None:
    ana = service.person()
    answers = _at_once([ana] * 20, {"prompt": "x"}, **{"idempotency-key": "k"})
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["jobId"] for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    assert {answer.json()["creditsRemaining"] for answer in answers} == {99}
    assert ana.entries() == [("grant", 100_000), ("charge", -1000)]
    assert len(ana.jobs()["jobs"]) == 1


def test_the_same_key_for_another_request_is_refused(service: Service) -> None:
    ana = service.person()
    ana.submit("x", key="k")
    others: list[dict[str, Any]] = [{"num_outputs": 2}, {"seed": 1}, {"model": "testcard-hasty"}, {"num_outputs": 1}]
    for more in others:
        assert list(faults(ana.run("x", key="k", **more))) == ["Idempotency-Key"]
    assert list(faults(ana.run("y", key="k"))) == ["Idempotency-Key"]
    assert ana.balance() == 99_000


def test_keys_of_two_accounts_have_nothing_to_do_with_each_other(service: Service) -> None:
    ana, ben = service.person(), service.person()
    assert ana.submit("x", key="k")["jobId"] != ben.submit("y", key="k")["jobId"]
    assert (ana.balance(), ben.balance()) == (99_000, 99_000)


def test_a_key_is_free_again_after_a_day(service: Service, later: Callable[[int], None]) -> None:
    ana = service.person()
    first = ana.submit("x", key="k")["jobId"]
    ana.wait(first)
    later(DAY_MS - 60_000)
    assert ana.submit("x", key="k")["jobId"] == first
    later(60_001)
    assert ana.submit("y", key="k")["jobId"] != first
    assert ana.balance() == 98_000


def test_a_failed_job_is_replayed_and_not_tried_anew(service: Service) -> None:
    ana = service.person()
    job = ana.done("!refuse", key="k")
    replayed = ana.submit("!refuse", key="k")
    assert (replayed["jobId"], replayed["status"]) == (job["jobId"], "failed")
    assert ana.balance() == 100_000


@pytest.mark.parametrize("key", ["", "   ", "x" * 256, "a\x7fb", "a\xa0b", "\x00"])
def test_bad_idempotency_keys(service: Service, key: str) -> None:
    ana = service.person()
    headers = {b"authorization": f"Bearer {ana.key}".encode(), b"idempotency-key": key.encode("latin-1")}
    response = service.ask("POST", RUN, json={"prompt": "x"}, headers=headers)
    assert list(faults(response)) == ["Idempotency-Key"]
    assert ana.entries() == [("grant", 100_000)]


def test_good_idempotency_keys(service: Service) -> None:
    ana = service.person()
    keys = ["x" * 255, "a b", "'--", "é", "0"]
    for key in [*keys, *keys]:
        headers = {b"authorization": f"Bearer {ana.key}".encode(), b"idempotency-key": key.encode("latin-1")}
        assert service.ask("POST", RUN, json={"prompt": "x"}, headers=headers).status_code == 202
    assert ana.balance() == 95_000


def test_a_grant_beside_the_running_service_counts_at_once(service: Service) -> None:
    ana = service.person(credits=0)
    fault(ana.run(), 402, "insufficient_credits")
    service.write(ledger.grant, account_id=ana.account_id, amount_milli=1000)
    assert ana.submit()["creditsRemaining"] == 0
    service.audit()
