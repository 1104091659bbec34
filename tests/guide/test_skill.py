"""The agent skill: the folder, its shell client against a live service and against sick ones, and who writes it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import pixeldojo
from live import Live, clean_environment, serving

ROOT = Path(__file__).parents[2]
SCRIPT = "skills/pixeldojo/scripts/pixeldojo.sh"
PNG = b"\x89PNG"
SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]


class Client:
    """The shell client in a folder of its own. `said` is what it wrote to standard error last."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder, self.env, self.said = folder, env, ""
        self.shell = ["sh"]

    def __call__(self, *arguments: str, ends: int = 0, **env: str) -> str:
        done = subprocess.run(
            [*self.shell, str(ROOT / SCRIPT), *arguments], cwd=self.folder, env=self.env | env, capture_output=True,
            text=True, timeout=60, check=False,
        )  # fmt: skip
        self.said = done.stderr
        assert done.returncode == ends, (arguments, done.returncode, done.stdout[-2000:], done.stderr[-2000:])
        if ends:
            assert done.stdout == "" and "error: " in done.stderr
        assert not re.search(r"parse error|jq: |syntax error|not found$|unbound|curl: ", done.stderr), done.stderr
        return done.stdout

    def json(self, *arguments: str, **more: Any) -> Any:
        return json.loads(self(*arguments, **more))


@pytest.fixture
def sh(live: Live, tmp_path: Path) -> Client:
    return Client(tmp_path, live.env)


@pytest.mark.parametrize("shell", SHELLS)
def test_generate_in_every_shell(sh: Client, shell: str) -> None:
    sh.shell = ["busybox", "sh"] if shell == "busybox" else [shell]
    made = sh("generate", "testcard", 'it\'s a "test" $(id) `id` \\ = 1', "num_outputs=2", "seed=7", "-o", "a.png")
    assert made == "a-1.png\na-2.png\n"
    assert all((sh.folder / name).read_bytes().startswith(PNG) for name in made.split())
    assert re.search(r"job_\w+: 2 credits, [\d.]+ are left", sh.said)
    job = sh.json("list", "--limit", "1", "--model", "testcard", "--status", "completed")["jobs"][0]
    assert job["input"]["prompt"] == 'it\'s a "test" $(id) `id` \\ = 1' and job["input"]["seed"] == 7
    assert sorted(path.name for path in sh.folder.iterdir()) == ["a-1.png", "a-2.png"], "nothing else is left"


def test_what_there_is_and_what_it_costs(sh: Client) -> None:
    rows = [line.split("\t") for line in sh("models").splitlines()]
    assert ["dojo-mini", "image", "0.1 credits (per_image)"] in [row[:3] for row in rows]
    assert sh.json("models", "testcard")["requestSchema"]["required"] == ["prompt"]
    assert "prompt" in sh.json("schema", "testcard")["properties"]
    assert sh.json("estimate", "testcard", "bars", "num_outputs=3")["creditCost"] == 3
    assert sh.json("balance")["credits"] > 0
    assert "generate MODEL" in sh("help") == sh("generate", "--help") == sh()


def test_step_by_step(sh: Client) -> None:
    job = sh.json("run", "testcard", "prompt=bars x=1", 'metadata={"order": 66}')["jobId"]
    assert sh("wait", job) == f"{job}.png\n"
    (sh.folder / "out").mkdir()
    assert sh("wait", job, "-o", "out") == f"out/{job}.png\n"
    shown = sh.json("status", job)
    assert shown["status"] == "completed" and shown["metadata"] == {"order": 66}
    assert shown["input"]["prompt"] == "bars x=1"
    assert sh.json("cancel", job)["result"] == "too_late"
    again = [sh.json("run", "testcard", "bars", "--idempotency-key", "once-1")["jobId"] for _ in range(2)]
    assert again[0] == again[1]


def test_a_picture_travels_with_the_job(sh: Client) -> None:
    sh("generate", "testcard", "bars", "-o", "a.png")
    sh("generate", "testcard", "more", "image_url=@a.png", "-o", "b.png")
    assert (sh.folder / "b.png").read_bytes().startswith(PNG)
    uri = sh("upload", "a.png")
    assert uri.startswith("data:image/png;base64,iVBOR") and uri.count("\n") == 1
    (sh.folder / "a.txt").write_text("no picture")
    sh("upload", "a.txt", ends=2)
    assert "PNG, JPEG or WebP" in sh.said
    sh("generate", "testcard", "bars", "image_url=@nowhere.png", ends=2)
    assert "can't read 'nowhere.png'" in sh.said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["frob"], "there is no 'frob'"),
        (["generate"], "say which model"),
        (["status"], "say which job"),
        (["status", "../account"], "can't be right"),
        (["status", "a", "b"], "too many arguments"),
        (["generate", "testcard", "a", "b"], "prompt is given twice"),
        (["generate", "testcard", "a", "--speed", "9"], "there is no option --speed"),
        (["generate", "testcard", "a", "-o"], "-o needs a value"),
        (["generate", "testcard", "a", "-o", "no/where.png"], "there is no folder no"),
        (["generate", "testcard", "a", "--timeout", "soon"], "'soon' is no whole number"),
        (["generate", "testcard"], "prompt: is required"),
        (["generate", "testcard", "a", "num_outputs=9", "sed=1"], "sed: unknown parameter; did you mean 'seed'?"),
        (["generate", "testcard", "a", "max_credit_cost=0.5"], "costs 1 credits"),
        (["generate", "testcard", "!refuse"], "was refunded|were refunded"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_arguments_say_what_to_change(sh: Client, arguments: list[str], said: str) -> None:
    sh(*arguments, ends=2)
    assert re.search(said, sh.said), sh.said
    assert not list(sh.folder.iterdir())


def test_keys_credits_and_things_that_are_not_there(sh: Client, live: Live) -> None:
    sh("balance", ends=3, PIXELDOJO_API_KEY="pd_wrong")
    assert "(unauthorized)" in sh.said and "PIXELDOJO_API_KEY" in sh.said
    sh("balance", ends=3, PIXELDOJO_API_KEY='pd_"\nurl = "file:///etc/passwd')
    assert "characters that no key has" in sh.said
    sh("balance", ends=3, PIXELDOJO_API_KEY="")
    assert "there is no API key" in sh.said
    sh("generate", "testcard", "bars", ends=4, PIXELDOJO_API_KEY=live.poor_key)
    assert "(insufficient_credits)" in sh.said and "estimate" in sh.said
    sh("generate", "dojo-max", "bars", ends=3)
    assert "There is no model 'dojo-max'" in sh.said
    sh("status", "job_1", ends=3)
    assert "There is no job" in sh.said
    sh("models", "--base", ends=2)
    for wrong in ("ftp://x", "http://", "x", 'http://x"y', "http://x y", "http://a\\b"):
        sh("models", ends=2, PIXELDOJO_BASE_URL=wrong)
        assert "is no address" in sh.said
    assert "dojo-mini" in sh("models", PIXELDOJO_BASE_URL=f"{live.address}/api/v1/")


def test_the_key_of_the_command_line_is_for_its_own_service_alone(sh: Client, live: Live, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "cli-key").write_text(live.key + "\n")
    (data / "service.json").write_text(json.dumps({"address": live.address}))
    env = {"PIXELDOJO_API_KEY": "", "PIXELDOJO_DATA_DIR": str(data)}
    assert sh.json("balance", **env)["credits"] > 0
    (data / "service.json").write_text(json.dumps({"address": "http://127.0.0.1:1"}))
    sh("balance", ends=3, **env)
    (data / "key").write_text(f"{live.key}\n")
    assert sh.json("balance", PIXELDOJO_API_KEY="", PIXELDOJO_API_KEY_FILE=str(data / "key"))["credits"] > 0
    sh("balance", ends=2, PIXELDOJO_API_KEY="", PIXELDOJO_API_KEY_FILE=str(data / "none"))


class Sick(BaseHTTPRequestHandler):
    """Answers what the test says, and notes what was asked."""

    answers: list[tuple[int, bytes]]
    asked: list[dict[str, str]]
    seen: Callable[[], None] | None = None

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.asked.append({"path": self.path, **{name.lower(): value for name, value in self.headers.items()}})
        if self.seen is not None:
            type(self).seen()  # type: ignore[misc]
        status, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = _answer  # noqa: N815 - the library's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Says nothing."""


@pytest.fixture
def sick() -> Iterator[tuple[str, type[Sick]]]:
    handler = type("Handler", (Sick,), {"answers": [], "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    thread.join()
    server.server_close()


PENDING = b'{"jobId": "job_1", "status": "pending", "creditCost": 1, "creditsRemaining": 9}'


def _fault(code: str, status: int) -> tuple[int, bytes]:
    return status, json.dumps({"error": {"code": code, "message": "So it is.", "status": status}}).encode()


@pytest.mark.parametrize(
    "answers",
    [
        [(200, b"<html>hello</html>")],
        [(200, b"")],
        [(200, b"[]")],
        [(200, b'{"jobId": "../x"}')],
        [(200, b'{"status": "done", "jobId": "job_1"}')],
        [(404, b"nginx")],
        [(403, b'{"error": "no"}')],
        [(202, PENDING), (200, b'{"status": "completed", "jobId": "job_1"}')],
        [(202, PENDING), (200, b'{"status": "completed", "assets": [{"url": "file:///etc/passwd"}]}')],
        [(202, PENDING), (200, b'{"status": "completed", "assets": [{"url": "http://x\\" \\nurl = \\"file:///e"}]}')],
        [(202, PENDING), (200, b"\xff\xfe garbage")],
    ],
    ids=range(11),
)
def test_garbage_is_no_answer(sh: Client, sick: tuple[str, type[Sick]], answers: list[tuple[int, bytes]]) -> None:
    address, handler = sick
    handler.answers = answers
    sh("generate", "testcard", "bars", "--retries", "0", ends=5, PIXELDOJO_BASE_URL=address)
    assert "PIXELDOJO_BASE_URL" in sh.said or "job_1 has" in sh.said
    assert not list(sh.folder.iterdir())


@pytest.mark.parametrize(
    ("answer", "ends"),
    [
        (_fault("expired", 410), 3),
        (_fault("rate_limit_exceeded", 429), 1),
        (_fault("internal_error", 500), 1),
        (_fault("something_new", 418), 1),
        ((200, b'{"status": "failed", "error": {"code": "timeout", "message": "Slow."}, "creditsRefunded": 1}'), 1),
    ],
    ids=["expired", "rate", "internal", "unknown", "failed"],
)
def test_what_goes_wrong_while_waiting(
    sh: Client, sick: tuple[str, type[Sick]], answer: tuple[int, bytes], ends: int
) -> None:
    address, handler = sick
    handler.answers = [(202, PENDING), answer]
    sh("generate", "testcard", "bars", "--retries", "0", ends=ends, PIXELDOJO_BASE_URL=address)
    assert "So it is." in sh.said or "Slow. (timeout); 1 credits were refunded" in sh.said


def test_one_key_for_all_attempts(sh: Client, sick: tuple[str, type[Sick]]) -> None:
    address, handler = sick
    handler.answers = [_fault("internal_error", 500), (202, PENDING)]
    assert sh.json("run", "testcard", "bars", PIXELDOJO_BASE_URL=address)["jobId"] == "job_1"
    keys = {each["idempotency-key"] for each in handler.asked}
    assert len(handler.asked) == 2 and len(keys) == 1 and re.fullmatch(r"sh-[0-9a-f]{32}", keys.pop())


def test_the_service_is_gone(sh: Client, sick: tuple[str, type[Sick]]) -> None:
    sh("models", "--retries", "0", ends=5, PIXELDOJO_BASE_URL="http://127.0.0.1:9")
    assert "can't reach http://127.0.0.1:9" in sh.said
    sh("run", "testcard", "bars", "--retries", "0", ends=5, PIXELDOJO_BASE_URL="http://127.0.0.1:9")
    assert re.search(r"--idempotency-key sh-[0-9a-f]{32}: it is charged once", sh.said)


def test_the_service_goes_while_a_job_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    with serving(tmp_path, PIXELDOJO_TESTCARD="1", PIXELDOJO_ROLES="api,courier,janitor") as gone:
        command = ["sh", str(ROOT / SCRIPT), "generate", "testcard", "bars", "--retries", "0", "--timeout", "50"]
        held = [*command[:-2], "--timeout", "1"]
        late = subprocess.run(held, env=gone.env, cwd=tmp_path / "work", capture_output=True, text=True, check=False)
        assert late.returncode == 6 and re.search(r"The job goes on: pixeldojo.sh wait job_\w+", late.stderr)
        job = re.search(r"wait (job_\w+)", late.stderr)[1]  # type: ignore[index]
        with subprocess.Popen(
            ["sh", str(ROOT / SCRIPT), "wait", job, "--retries", "0"], env=gone.env, cwd=tmp_path / "work",
            stderr=subprocess.PIPE, text=True,
        ) as client:  # fmt: skip
            gone.process.kill()
            gone.process.wait()
            assert client.stderr is not None
            said = client.stderr.read()
            assert client.wait(60) == 5
        assert "can't reach" in said and f"wait {job}" in said


def test_interrupted(sh: Client, sick: tuple[str, type[Sick]]) -> None:
    address, handler = sick
    handler.answers = [(202, PENDING)]
    asked = threading.Event()
    handler.seen = lambda: asked.set() if len(handler.asked) > 1 else None
    with subprocess.Popen(
        ["sh", str(ROOT / SCRIPT), "generate", "testcard", "bars"], cwd=sh.folder,
        env=sh.env | {"PIXELDOJO_BASE_URL": address, "TMPDIR": str(sh.folder)}, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as client:  # fmt: skip
        assert asked.wait(20)
        os.killpg(client.pid, signal.SIGINT)
        assert client.stderr is not None
        said = client.stderr.read()
        assert client.wait(20) == 130
    assert "interrupted; the job goes on: pixeldojo.sh wait job_1" in said
    assert not list(sh.folder.iterdir()), "its working files are gone"


def test_the_key_is_in_no_argument(sh: Client, sick: tuple[str, type[Sick]]) -> None:
    """While the service holds an answer back, every process of this machine is looked at."""
    address, handler = sick
    handler.answers = [(202, PENDING), (200, b'{"status": "failed", "error": {"code": "x", "message": "y"}}')]
    found: list[str] = []

    def look() -> None:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue

    handler.seen = look
    sh("generate", "testcard", "bars", ends=1, PIXELDOJO_BASE_URL=address)
    assert any("curl --config -" in each for each in found)
    assert not [each for each in found if sh.env["PIXELDOJO_API_KEY"] in each]
    assert handler.asked[0]["authorization"] == f"Bearer {sh.env['PIXELDOJO_API_KEY']}"


def write(folder: Path, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
    clean = clean_environment() | {"PYTHONPATH": str(Path(pixeldojo.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, "-m", "pixeldojo", "skill", *arguments], env=clean | env, cwd=folder, capture_output=True,
        text=True, check=False, timeout=60,
    )  # fmt: skip


def test_the_committed_skill_is_what_the_command_writes(tmp_path: Path) -> None:
    made = write(tmp_path, "skills", "--json", PIXELDOJO_DATA_DIR=str(tmp_path / "data"))
    assert made.returncode == 0, made.stderr
    home = tmp_path / "skills/pixeldojo"
    written = {str(path.relative_to(home)): path for path in home.rglob("*") if path.is_file()}
    assert sorted(json.loads(made.stdout)["files"]) == sorted(f"skills/pixeldojo/{name}" for name in written)
    committed = ROOT / "skills/pixeldojo"
    again = "write it again: PIXELDOJO_DATA_DIR=$(mktemp -d) pixeldojo skill skills"
    assert set(written) == {str(path.relative_to(committed)) for path in committed.rglob("*") if path.is_file()}, again
    for name, path in written.items():
        assert path.read_text() == (committed / name).read_text(), f"{name} is not up to date; {again}"
        assert os.access(path, os.X_OK) == os.access(committed / name, os.X_OK) == name.endswith(".sh")


def test_the_skill_is_a_skill() -> None:
    text = (ROOT / "skills/pixeldojo/SKILL.md").read_text()
    head = re.match(r"---\nname: (\S+)\ndescription: (.+)\n---\n", text)
    assert head and head[1] == "pixeldojo" and len(head[2]) <= 1024 and ": " not in head[2]
    assert len(text.splitlines()) < 200
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        assert (ROOT / "skills/pixeldojo" / target).is_file(), target


def test_the_command_asks_the_service(live: Live, tmp_path: Path) -> None:
    made = write(tmp_path, "mine", "--base-url", live.address, PIXELDOJO_DATA_DIR=str(tmp_path / "data"))
    assert made.returncode == 0, made.stderr
    assert "testcard" in (tmp_path / "mine/pixeldojo/SKILL.md").read_text()
    assert live.address in (tmp_path / "mine/pixeldojo/scripts/pixeldojo.sh").read_text()
    assert made.stdout.splitlines()[0] == "mine/pixeldojo/SKILL.md"
    assert not (tmp_path / "data").exists(), "it needs no database of its own"


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "", "a//b", ".hidden/../x", "a\\..\\x"])
def test_a_service_can_write_nothing_elsewhere(sick: tuple[str, type[Sick]], tmp_path: Path, path: str) -> None:
    address, handler = sick
    handler.answers = [(200, json.dumps({"name": "pixeldojo", "files": [{"path": path, "text": "x"}]}).encode())]
    work = tmp_path / "work"
    work.mkdir()
    made = write(work, "skills", "--base-url", address, PIXELDOJO_DATA_DIR=str(tmp_path / "data"))
    assert made.returncode == 5 and "nothing was written" in made.stderr
    assert not list(work.iterdir())
