"""Logs: one line an event whatever is in it, ids on every line, and no secret on any."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

import pixeldojo
from pixeldojo import ids, logs

KEY = ids.new_key()
NASTY = 'a\n{"event": "forged"}\r\n2026-01-01 forged\x1b[31m\x00\x85\u2028\u202e'


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before, handlers, level = structlog.get_config(), logging.root.handlers[:], logging.root.level
    yield
    structlog.configure(**before)
    structlog.contextvars.clear_contextvars()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def set_up(form: str) -> Any:
    logs.set_up(level="info", form=form)
    return structlog.get_logger()


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    log = set_up("json")
    logs.begin(request="req_1")
    logs.bind(job="job_1")
    log.info("submitted", path=NASTY)
    log.debug("not shown")
    logs.begin(request="req_2")
    log.warning("other")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    first, second = map(json.loads, lines)
    assert (first["event"], first["request"], first["job"], first["level"]) == ("submitted", "req_1", "job_1", "info")
    assert first["path"] == NASTY
    assert lines[0].isascii(), "no control character and no mark of writing direction reaches a terminal"
    assert second["request"] == "req_2"
    assert "job" not in second, "one piece of work, one set of ids"


@pytest.mark.parametrize("form", ["json", "text"])
def test_nothing_forges_a_line(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    log = set_up(form)
    log.info("asked", path=NASTY, method=NASTY)
    log.info(NASTY)
    try:
        raise ValueError(NASTY)
    except ValueError:
        log.exception("broke")
    logging.getLogger("some.library").warning("said %s", NASTY)
    text = capsys.readouterr().err
    begun = [line for line in text.split("\n") if line and not line.startswith("    ")]
    assert len(begun) == 4, text
    assert all(c == "\n" or c.isprintable() for c in text)
    if form == "json":
        assert [json.loads(line)["level"] for line in begun] == ["info", "info", "error", "warning"]


SECRET = "s3cr3tvalue0123456789abcdefABCDEF"


@pytest.mark.parametrize("form", ["json", "text"])
def test_secrets_are_blotted_out(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    log = set_up(form)
    said = [
        f"/api/v1/jobs/{KEY}",
        f"Authorization: Bearer {SECRET}",
        f"authorization: basic {SECRET}",
        f"http://host/api/v1/assets/x?expires=1&signature={SECRET}&more=1",
        f"postgresql://user:{SECRET}@host/db",
        f"host=x password={SECRET}",
        f"whsec_{SECRET}",
        f"https://bucket/x?X-Amz-Signature={SECRET}",
    ]
    for text in said:
        log.info("said", text=text)
        log.info(text)
        try:
            raise RuntimeError(text)
        except RuntimeError:
            log.exception("broke", more=[text])
        logging.getLogger("library").error(text)
    text = capsys.readouterr().err
    assert text.count("broke") == len(said)
    assert SECRET not in text
    assert KEY not in text
    assert "more=1" in text
    assert "pd_…" in text or "pd_\\u2026" in text
    if form == "json":
        assert all(json.loads(line) for line in text.splitlines())


def test_a_visible_prefix_stays() -> None:
    prefix = KEY[: ids.KEY_PREFIX_CHARS]
    assert logs.blot(f"key {prefix} of {ids.new('acct')}").startswith(f"key {prefix} of acct_")
    job = ids.new("job")
    assert logs.blot(f"/api/v1/jobs/{job}") == f"/api/v1/jobs/{job}"


def test_tracebacks_have_no_variables(capsys: pytest.CaptureFixture[str]) -> None:
    for form in ("json", "text"):
        log = set_up(form)
        prompt = "a prompt in a variable"
        try:
            raise ValueError(len(prompt))
        except ValueError:
            log.exception("broke")
        text = capsys.readouterr().err
        assert "Traceback" in text
        assert text.count(prompt) == 0 or 'prompt = "a prompt' not in text


_SERVED = """
import asyncio, sys
from pathlib import Path
import httpx2
from pixeldojo import app, logs
from pixeldojo.accounts import service as accounts
from pixeldojo.api import app as api
from pixeldojo.settings import Settings

def key(tx):
    return accounts.create_key(tx, account_id=accounts.get_account(tx, name="default").id, name="x")[1]

async def main():
    logs.set_up(level=sys.argv[2], form=sys.argv[3])
    settings = Settings(data_dir=Path(sys.argv[1]), testcard=True, log_level=sys.argv[2], access_log=sys.argv[4] == "1")
    async with app.open_house(settings) as house:
        at = api.build(house)
        headers = {"authorization": "Bearer " + await house.db.write(key)}
        print(headers["authorization"].split()[1])
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(at), base_url="http://x") as client:
            await client.get("/a%0Ab%1B%5B31m%0D%0A2026-01-01T00:00:00Z%20[info]?signature=SIGNATURE", headers=headers)
            await client.post("/api/v1/models/testcard/run", json={"prompt": "THE PROMPT"}, headers=headers)
            await client.get("/api/v1/jobs/" + headers["authorization"].split()[1], headers=headers)
            house = await house.db.close()
            await client.get("/api/v1/jobs", headers=headers)

asyncio.run(main())
"""


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize(("level", "access_log", "lines"), [("info", "1", 4), ("debug", "0", 4), ("info", "0", 0)])
def test_a_service(tmp_path: Path, form: str, level: str, access_log: str, lines: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SERVED, str(tmp_path), level, form, access_log],
        env={"PYTHONPATH": str(Path(pixeldojo.__file__).parents[1])},
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    key, text = done.stdout.strip(), done.stderr
    assert text.count("request_answered") == lines
    assert text.count("request_failed") == 1, "the database is away, whatever is logged"
    for private in (key, "THE PROMPT", "SIGNATURE", "\x1b", "Bearer pd_"):
        assert private not in text
    begun = [line for line in text.splitlines() if not line.startswith("    ")]
    assert len(begun) == lines + 1, text
    if form == "json":
        events = [json.loads(line) for line in begun]
        assert all(event["request"].startswith("req_") for event in events)
        answered = [event for event in events if event["event"] == "request_answered"]
        assert [event["status"] for event in answered] == [404, 402, 404, 500][:lines]
        assert {event["caller"] for event in answered} <= {"127.0.0.1"}
