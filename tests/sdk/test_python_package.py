"""The Python SDK as its users get it: built, installed into an empty environment, and run against a real service.

Building and installing need `hatchling` and `httpx2` from an index or its cache; where they can't be had the tests
are skipped, but in CI they fail.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from served import Running, serving

import live

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
SOURCES = ROOT / "sdks/python"
SAMPLES = re.findall(r"```python\n(.*?)```", (SOURCES / "README.md").read_text(encoding="utf-8"), re.S)
UV = shutil.which("uv") or shutil.which("uv", path=Path(sys.executable).parent)

USER = """
from pixeldojo_sdk import AsyncPixelDojoClient, ConnectionError, Job, PixelDojoClient, WebhookEvent, verify_webhook

def one(pd: PixelDojoClient) -> Job:
    jobs = [job for job in pd.iter_jobs(status="completed")]
    cost: float = pd.estimate("x", {"prompt": "p", "num_outputs": 2}).credit_cost
    event: WebhookEvent = pd.verify_webhook(b"", {}, ["whsec_"])
    return pd.generate("x", {"prompt": "p"}, on_progress=lambda seen: print(seen.progress, cost, event, jobs))

async def two(pd: AsyncPixelDojoClient) -> int:
    async for event in pd.events("job_1"):
        print(event.type)
    job = await pd.wait_for_job("job_1", timeout=None, follow="events")
    return await pd.save_asset(job.assets[0], "x.png")
"""
WRONG = """
from pixeldojo_sdk import AsyncPixelDojoClient, PixelDojoClient

def one(pd: PixelDojoClient) -> int:
    pd.run("x", {"prompt": "p"}, idempotency="k")
    pd.generate("x", {"prompt": "p"}, follow="sockets")
    return pd.get_job("job_1")

async def two(pd: AsyncPixelDojoClient) -> None:
    pd.get_job("job_1").status
"""


def clean_environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIXELDOJO_", "PYTHON"))}
    return kept | {"PYTHONWARNINGS": "error"}


def command(*arguments: str | Path, at: Path, env: dict[str, str] | None = None, timeout_s: float = 60) -> str:
    return live.command(*arguments, at=at, env=clean_environment() | (env or {}), timeout_s=timeout_s)


def install(folder: Path) -> tuple[Path, Path]:
    """The built wheel, and the Python of a new environment into which it was installed."""
    quiet = {"PYTHONWARNINGS": ""}  # theirs are not ours
    sources, dist = folder / "sources", folder / "dist"
    shutil.copytree(SOURCES, sources, ignore=shutil.ignore_patterns("__pycache__", "dist", ".*"))
    python = folder / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
    if UV:
        command(UV, "build", "--quiet", "--out-dir", dist, sources, at=folder, env=quiet, timeout_s=120)
        command(UV, "venv", "--quiet", "--python", sys.executable, folder / "env", at=folder, env=quiet)
        [wheel] = dist.glob("*.whl")
        command(UV, "pip", "install", "--quiet", "--python", python, wheel, at=folder, env=quiet, timeout_s=120)
    else:
        venv.create(folder / "env", with_pip=True)
        pip: list[str | Path] = [python, "-m", "pip", "--disable-pip-version-check", "--quiet"]
        command(*pip, "wheel", "--no-deps", "--wheel-dir", dist, sources, at=folder, env=quiet, timeout_s=120)
        [wheel] = dist.glob("*.whl")
        command(*pip, "install", wheel, at=folder, env=quiet, timeout_s=120)
    return wheel, python


@dataclass(frozen=True, slots=True)
class Installed:
    """The package as a user has it; `folder` is empty."""

    wheel: Path
    python: Path
    folder: Path


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("package")
    try:
        wheel, python = install(folder)
    except (AssertionError, subprocess.TimeoutExpired) as fault:
        reason = f"the package can't be built or installed here: {str(fault)[-800:]}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    project = folder / "project"
    project.mkdir()
    return Installed(wheel, python, project)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(tmp_path_factory.mktemp("service")) as service:
        yield service


def test_what_is_packed(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        [metadata] = [wheel.read(name).decode() for name in wheel.namelist() if name.endswith("/METADATA")]
    sources = (SOURCES / "src/pixeldojo_sdk").iterdir()
    assert names == {f"pixeldojo_sdk/{path.name}" for path in sources if path.name != "__pycache__"}
    assert "pixeldojo_sdk/py.typed" in names
    assert re.findall(r"^Requires-Dist: (.*)$", metadata, re.M) == ["httpx2<3,>=2.16"]
    assert re.search(r"^Name: pixeldojo-sdk$", metadata, re.M) and "License-File: LICENSE" in metadata
    for archive in installed.wheel.parent.glob("*.tar.gz"):
        with tarfile.open(archive) as packed:
            assert any(name.endswith("/README.md") for name in packed.getnames())


def test_it_imports_nothing_of_the_service(installed: Installed) -> None:
    code = "import sys, pixeldojo_sdk; print(pixeldojo_sdk.__version__, 'pixeldojo' in sys.modules)"
    out = command(installed.python, "-c", code, at=installed.folder)
    assert out.split()[1] == "False" and out.split()[0] in installed.wheel.name


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_live(installed: Installed, running: Running, kind: str) -> None:
    script = HERE / "python_live.py"
    command(installed.python, script, kind, installed.folder / kind, at=installed.folder, env=running.env)


@pytest.mark.parametrize("number", range(len(SAMPLES)))
def test_sample(installed: Installed, running: Running, number: int) -> None:
    out = command(installed.python, "-c", SAMPLES[number], at=installed.folder, env=running.env)
    assert out
    if number == 0:
        assert (installed.folder / "apple.png").read_bytes().startswith(b"\x89PNG")


GUIDE = {  # what each sample of a service's own documentation prints
    "generate": r"http://\S+/api/v1/assets/",
    "account": r"[\d.]+",
    "models": r"(?m)^dojo-mini 0\.1 ",
    "schema": r"aspect_ratio",
    "estimate": r"0\.1 True",
    "submit": r"job_\w+ http://\S+/job_\w+ 0\.1 [\d.]+",
    "poll": r"(?s)(pending|processing|completed).*image/png",
    "events": r"(?m)^completed$",
    "cancel": r"cancelled|cancelling|too_late",
    "jobs": r"job_\w+ dojo-mini completed",
    "hook": r"job\.completed",
    "fault": r"max_credit_cost",
    "verify": r"401",
    "picture": r"http://\S+/api/v1/assets/",
}


TOGETHER = """
import concurrent.futures, json, sys

def run(code):
    said = []
    exec(code, {"print": lambda *words: said.append(" ".join(map(str, words)))})
    return "\\n".join(said)

samples = json.loads(sys.argv[1])
outs = {"generate": run(samples.pop("generate"))}  # `picture` starts from what it saves
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    outs |= dict(zip(samples, pool.map(run, samples.values()), strict=True))
json.dump(outs, sys.stdout)
"""


def test_samples_of_the_guide(installed: Installed, running: Running) -> None:
    """What `/docs` shows in Python runs."""
    found = {name: each["py"] for name, each in live.docs(running.env["PIXELDOJO_BASE_URL"]).items() if "py" in each}
    name = tomllib.loads((SOURCES / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"]
    assert found.pop("install") == f"pip install {name}\n"  # as `installed` was, from what was built here
    assert set(found) == set(GUIDE)
    found["verify"] += '\nprint(receive(b"{}", {}))\n'
    folder = installed.folder / "guide"
    folder.mkdir()
    with live.receiver() as (hook, _):
        given = json.dumps({each: sample.replace(live.HOOK, hook) for each, sample in found.items()})
        outs = json.loads(command(installed.python, "-c", TOGETHER, given, at=folder, env=running.env))
    for each, pattern in GUIDE.items():
        assert re.search(pattern, outs[each]), (each, outs[each])
    assert (folder / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_the_readme_names_every_method_and_error() -> None:
    text = (SOURCES / "README.md").read_text(encoding="utf-8")
    client = (SOURCES / "src/pixeldojo_sdk/client.py").read_text(encoding="utf-8")
    methods = set(re.findall(r"^    (\w+) = _\w+\(Operations", client, re.M))
    assert len(methods) == 26 and [name for name in methods if f"`{name}(" not in text] == []
    errors = re.findall(r"^class (\w+)\(", (SOURCES / "src/pixeldojo_sdk/errors.py").read_text(), re.M)
    assert [name for name in errors if f"`{name}`" not in text] == []


def test_types_as_a_user_sees_them(installed: Installed) -> None:
    pytest.importorskip("mypy")
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", installed.python]
    quiet = {"PYTHONWARNINGS": ""}
    (installed.folder / "user.py").write_text(USER)
    (installed.folder / "wrong.py").write_text(WRONG)
    done = subprocess.run(
        [str(each) for each in [*mypy, "user.py", "wrong.py"]], cwd=installed.folder,
        env=clean_environment() | quiet, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    found = re.findall(r"^(\w+)\.py:(\d+): error", done.stdout, re.M)
    assert found == [("wrong", "5"), ("wrong", "6"), ("wrong", "7"), ("wrong", "10")], done.stdout + done.stderr


def test_types_of_the_sources() -> None:
    pytest.importorskip("mypy")
    cache = ["--cache-dir", os.devnull]
    command(sys.executable, "-m", "mypy", *cache, at=SOURCES, env={"PYTHONWARNINGS": ""})


def test_sources_are_small() -> None:
    for path in (SOURCES / "src").rglob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 500, path.name


def test_the_service_is_gone_in_the_middle(installed: Installed, running: Running) -> None:
    """The last one here: it kills the service."""
    began = time.monotonic()
    script = HERE / "python_live.py"
    command(installed.python, script, "gone", str(running.process.pid), at=installed.folder, env=running.env)
    assert time.monotonic() - began < 15
    assert running.process.wait(5) != 0
