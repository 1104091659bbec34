"""The documents say what is there, and what they say works: every sample in them is run."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pixeldojo import app, errors, settings
from pixeldojo.api import app as api
from pixeldojo.catalogue import card as cards

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.M | re.S)
# Run by the suite's own caller, or a service that the test starts in its own way.
ELSEWHERE = ("make demo", "make serve", "make test", "pixeldojo serve", "pip install", "docker ", "make bench")


def _page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def test_every_setting_is_documented() -> None:
    page = _page("settings.md")
    for variable, _, text in settings.describe(settings.Settings()):
        assert f"`{variable}`" in page, variable
        assert text in page, f"{variable}: the page explains it in other words than the program: {text}"


def test_no_setting_is_documented_that_is_not_there() -> None:
    known = {variable for variable, _, _ in settings.describe(settings.Settings())}
    known |= {"PIXELDOJO_API_KEY", "PIXELDOJO_BASE_URL", "PIXELDOJO_TEST_POSTGRES_URL", "PIXELDOJO_TEST_REDIS_URL"}
    for page in PAGES:
        found = set(re.findall(r"PIXELDOJO_[A-Z_]+[A-Z]", page.read_text(encoding="utf-8")))
        found = {name.removesuffix("_FILE") for name in found}
        assert found <= known, (page.name, found - known)


def test_every_error_code_is_documented() -> None:
    page = _page("api.md")
    for error in errors.TABLE:
        assert re.search(rf"\| `{error.code}` \| {error.status} \|", page), error.code


async def _routes(folder: Path) -> list[str]:
    async with app.open_house(settings.Settings(data_dir=folder)) as house:
        whole: Any = api.build(house)
        inner = getattr(whole, "_app", whole)
        while not hasattr(inner, "routes"):
            inner = inner._app
        return sorted(route.path for route in inner.routes)


def test_every_route_is_documented(tmp_path: Path) -> None:
    import asyncio

    pages = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    for path in asyncio.run(_routes(tmp_path)):
        spoken = re.sub(r"\{(\w+?)(_id)?:\w+\}", lambda m: "{" + m.group(1) + ("Id" if m.group(2) else "") + "}", path)
        assert spoken in pages, spoken


def test_every_command_is_documented() -> None:
    page = _page("cli.md")
    done = subprocess.run([sys.executable, "-m", "pixeldojo", "--help"], capture_output=True, text=True, check=True)
    words = set(re.findall(r"^│? ?([a-z]+) {2,}", done.stdout, re.M)) - {"Commands", "Parameters"}
    assert {"serve", "generate", "keys", "credits"} <= words, done.stdout
    for word in words:
        assert f"pixeldojo {word}" in page, word


def test_every_card_field_is_documented() -> None:
    page = _page("models.md")
    for struct in (cards.Card, cards.Price, cards.EngineSpec):
        for name in struct.__struct_encode_fields__:
            assert f"`{name}`" in page, name


def test_links_lead_somewhere() -> None:
    for page in [*PAGES, ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment a reader has after `make serve`: a service, a key with credits, the command on the path."""
    folder = tmp_path_factory.mktemp("docs")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIXELDOJO_")}
    environment |= {
        "PIXELDOJO_DATA_DIR": str(folder / "data"),
        "PIXELDOJO_PORT": "0",
        "PIXELDOJO_RATE_LIMIT": "off",
        "PIXELDOJO_ALLOW_NETWORKS": "127.0.0.0/8",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(folder),
    }
    service = subprocess.Popen([sys.executable, "-m", "pixeldojo", "serve"], env=environment, cwd=folder)
    try:
        notice = folder / "data" / "service.json"
        limit = time.monotonic() + 20
        while not notice.exists():
            assert time.monotonic() < limit
            assert service.poll() is None
            time.sleep(0.05)
        address = json.loads(notice.read_text())["address"]
        environment["API"] = f"{address}/api/v1"
        environment["ADDRESS"] = address
        tool = [sys.executable, "-m", "pixeldojo"]
        made = subprocess.run([*tool, "keys", "create", "--json"], env=environment, capture_output=True, check=True)
        environment["PIXELDOJO_API_KEY"] = json.loads(made.stdout)["key"]
        subprocess.run([*tool, "credits", "grant", "1000"], env=environment, capture_output=True, check=True)
        yield environment
    finally:
        service.terminate()
        service.wait(20)


def _script(page: Path, address: str) -> str:
    """Every sample of the page as one shell script, with this service's address in place of the usual one."""
    parts = []
    for kind, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if kind == "python":
            parts.append(f"python3 - <<'SAMPLE'\n{text}SAMPLE\n")
        elif not any(line.startswith(ELSEWHERE) for line in text.splitlines()):
            parts.append(text)
    return "\n".join(parts).replace("http://127.0.0.1:8787", address)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_sample_runs(page: Path, shell: dict[str, str], tmp_path: Path) -> None:
    script = _script(page, shell["ADDRESS"])
    if not script.strip():
        return
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], env=shell, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert '"error"' not in done.stdout, done.stdout[-3000:]
    if page.name == "README.md":
        for name in ("penguin.png", "burger-1.png", "burger-2.png"):
            assert (tmp_path / name).read_bytes().startswith(b"\x89PNG"), name


def test_the_demo_makes_a_picture(tmp_path: Path) -> None:
    picture = tmp_path / 'it\'s a "picture".png'
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIXELDOJO_")}
    environment |= {"PROMPT": 'a "red" apple, it\'s', "OUT": str(picture)}
    done = subprocess.run(
        [sys.executable, "scripts/demo.py"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
    said = done.stdout + done.stderr
    assert str(picture) in said.replace("\n", "")
    assert "credits" in said
