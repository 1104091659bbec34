"""Every sample that a service shows works when it is pasted: here those for a shell. Those in TypeScript and Python
run in `tests/sdk`, where the packages are built and installed."""

import re
import subprocess
from pathlib import Path

import pytest

import live as service
from live import Live

# What must be seen of each sample on /docs.
SEEN = {
    "key": "",
    "generate": "",
    "account": r'"credits": \d',
    "models": r'"apiId": "dojo-mini"',
    "schema": r'"aspect_ratio"',
    "estimate": r'"creditCost": 0.1',
    "submit": r'"statusUrl": "http',
    "picture": r'"jobId": "job_',
    "poll": r'"status": "(pending|processing|completed)"',
    "events": r"event: completed",
    "cancel": r'"result": "too_late"',
    "jobs": r'"status": "completed"',
    "hook": r'"webhookId": "msg_',
    "verify": r"whsec_",
    "fault": r'"code": "validation_error"',
}


def run(script: str, live: Live, folder: Path) -> str:
    """What a strict shell prints; every part of every pipe must succeed."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], env=live.env, cwd=folder, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_curl_on_the_page_for_people(live: Live, tmp_path: Path) -> None:
    samples = {name: each["curl"] for name, each in service.docs(live.address).items() if "curl" in each}
    assert set(samples) == set(SEEN)
    script = "".join(f"echo '=== {name}'\n{text}\n" for name, text in samples.items())
    script = script.replace("pd_your_api_key", live.key)
    with service.receiver() as (hook, arrived):
        said = run(script.replace(service.HOOK, hook), live, tmp_path)
    parts = dict(re.findall(r"^=== (\w+)\n(.*?)(?==== |\Z)", said, re.M | re.S))
    for name, pattern in SEEN.items():
        assert re.search(pattern, parts[name]), (name, parts[name])
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert b'"job.completed"' in arrived[0]


def test_an_agent_that_reads_llm_txt_alone(live: Live, tmp_path: Path) -> None:
    """Discover, price, run, collect."""
    text = live.text("/llm.txt")
    samples = service.blocks(text)
    assert len(samples) == 5
    said = run("\n".join(samples), live, tmp_path)
    assert '"apiId": "testcard"' in said and '"creditCost": 0.1' in said and '"jobId": "job_' in said
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("path", ["/skill/SKILL.md", "/skill/api.md", "/skill/models.md", "/models/dojo-mini.md"])
def test_the_other_documents(live: Live, tmp_path: Path, path: str) -> None:
    samples = service.blocks(live.text(path))
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/pixeldojo.sh").write_text(live.text("/skill/pixeldojo.sh"))
    run("\n".join(samples), live, tmp_path)
    made = list(tmp_path.glob("*.png"))
    assert bool(made) == bool(samples), "every document with samples makes a picture"
    assert all(each.read_bytes().startswith(b"\x89PNG") for each in made)


def test_every_sample_is_on_the_page_in_every_language(live: Live) -> None:
    found = service.docs(live.address)
    only = {"key": {"curl"}, "install": {"ts", "py"}}
    assert {name: set(each) for name, each in found.items()} == {
        name: only.get(name, {"curl", "ts", "py"}) for name in [*SEEN, "install"]
    }
