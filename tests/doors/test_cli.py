"""The command line as its users meet it: real commands, beside a real running service.

Each command is started at least once as a process of its own; the rest call `run` here, to spare Python's starts.
"""

import contextlib
import io
import json
import os
import queue
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import pixeldojo
from pixeldojo.cli import main
from pixeldojo.cli.outcome import Exit

PNG = b"\x89PNG\r\n\x1a\n"


def environment(folder: Path, **more: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PIXELDOJO_")}
    clean["PYTHONPATH"] = str(Path(pixeldojo.__file__).parents[1])  # the one under test, from any folder
    return clean | {"PIXELDOJO_DATA_DIR": str(folder), "PIXELDOJO_TESTCARD": "1"} | more


class Cli:
    """Runs `pixeldojo` on one data directory, with files going to another folder."""

    def __init__(self, data: Path, work: Path) -> None:
        self.data, self.work, self.stderr = data, work, ""
        work.mkdir(exist_ok=True)

    def __call__(self, *arguments: str, ends: int = 0, **env: str) -> str:
        """In a process of its own."""
        done = subprocess.run(
            [sys.executable, "-m", "pixeldojo", *arguments], env=environment(self.data, **env), cwd=self.work,
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        self.stderr = done.stderr
        assert done.returncode == ends, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout

    def here(self, *arguments: str, ends: int = 0, **env: str) -> str:
        """In this process, which is quicker. Not for what runs a service inside itself: that sets up logs."""
        out, err = io.StringIO(), io.StringIO()
        surroundings = mock.patch.dict(os.environ, environment(self.data, **env), clear=True)
        with (
            contextlib.chdir(self.work),
            surroundings,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = main.run(arguments)
        self.stderr = err.getvalue()
        assert code == ends, f"{arguments}: {code}\n{out.getvalue()}\n{self.stderr}"
        return out.getvalue()

    def json(self, *arguments: str, ends: int = 0, **env: str) -> Any:
        return self._one_document(self(*arguments, "--json", ends=ends, **env))

    def json_here(self, *arguments: str, ends: int = 0, **env: str) -> Any:
        return self._one_document(self.here(*arguments, "--json", ends=ends, **env))

    def _one_document(self, text: str) -> Any:
        assert text.count("\n") == 1, "one document, on one line for programs"
        return json.loads(text)


@contextlib.contextmanager
def serving(data: Path, **env: str) -> Iterator[tuple[dict[str, Any], "subprocess.Popen[str]"]]:
    """What `serve --json` says once it is up, and its process; ended by SIGTERM, which must be exit 0."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pixeldojo", "serve", "--port", "0", "--json"],
        env=environment(data, **env), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    reader = threading.Thread(target=lambda: lines.put(process.stdout.readline()))  # type: ignore[union-attr]
    reader.start()
    try:
        said = lines.get(timeout=30)
        if not said:
            raise AssertionError(process.communicate()[1])
        yield json.loads(said), process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
        reader.join()
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert not (data / "service.json").exists()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cli, dict[str, Any]]]:
    data = tmp_path_factory.mktemp("running") / "data"
    with serving(data) as (said, _):
        yield Cli(data, data.parent / "work"), said


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """A data directory that nothing has used yet."""
    return Cli(tmp_path / "data", tmp_path / "work")


def test_keys_credits_and_accounts_beside_a_running_service(running: tuple[Cli, dict[str, Any]]) -> None:
    cli, _ = running
    made = cli.json("keys", "create", "--name", "two", "--models", "testcard", "--cap", "1.5", "--expires", "30d")
    assert made["key"].startswith(made["prefix"]) and made["key"].startswith("pd_") and len(made["key"]) > 30
    assert (made["name"], made["account"], made["status"]) == ("two", "default", "active")
    assert (made["models"], made["capCredits"], made["spentCredits"]) == (["testcard"], 1.5, 0)
    before = cli.json("credits", "balance")
    assert before["account"] == "default"
    granted = cli.json("credits", "grant", "12.345", "--note", "for tests")
    assert granted["credits"] == pytest.approx(before["credits"] + 12.345)
    # the service sees the key, its cap and the credits at once
    cli.here("generate", "bars", "-m", "testcard", "-o", "key.png", "--key", made["key"])
    refused = cli.json_here("generate", "bars", "-m", "testcard", "--key", made["key"], ends=Exit.CREDITS)
    assert refused["error"]["code"] == "insufficient_credits" and refused["error"]["status"] == 402
    refused = cli.json_here("generate", "cat", "--key", made["key"], ends=Exit.USAGE)
    assert "may not run dojo-mini" in refused["error"]["message"]
    listed = {key["id"]: key for key in cli.json("keys", "list")["keys"]}
    assert listed[made["id"]]["spentCredits"] == 1 and "key" not in listed[made["id"]]
    assert cli.json("keys", "revoke", made["key"])["status"] == "revoked"
    assert cli.json_here("keys", "revoke", made["prefix"])["revokedAt"]
    cli.here("jobs", "--key", made["key"], ends=Exit.REFUSED)
    assert "was revoked" in cli.stderr
    entries = cli.json("credits", "ledger", "--limit", "2")["entries"]
    assert [entry["kind"] for entry in entries] == ["charge", "grant"] and entries[1]["note"] == "for tests"


def test_accounts_are_apart(running: tuple[Cli, dict[str, Any]]) -> None:
    cli, _ = running
    assert cli.json("accounts", "create", "bob")["credits"] == 0
    cli.here("accounts", "create", "bob", ends=Exit.USAGE)
    assert "already an account" in cli.stderr
    bob = cli.json_here("keys", "create", "--account", "bob")
    default = cli.json_here("credits", "balance")["credits"]
    assert cli.json_here("generate", "x", "-m", "testcard", "--key", bob["key"], ends=4)["error"]["exitCode"] == 4
    cli.here("credits", "grant", "3", "--account", "bob")
    job = cli.json_here("generate", "x", "-m", "testcard", "--key", bob["key"], "-o", "bob.png")
    assert job["creditsRemaining"] == 2
    assert cli.json_here("credits", "balance")["credits"] == default
    assert cli.json_here("jobs", job["jobId"], "--key", bob["key"])["status"] == "completed"
    assert cli.json_here("jobs", job["jobId"], ends=Exit.REFUSED)["error"]["code"] == "not_found"
    assert job["jobId"] not in cli.here("jobs", "--limit", "100")
    assert [account["name"] for account in cli.json("accounts", "list")["accounts"]] == ["default", "bob"]
    assert cli.json_here("keys", "revoke", bob["id"])["account"] == "bob"
    cli.here("keys", "list", "--account", "nobody", ends=Exit.REFUSED)


def test_generate_with_the_running_service(running: tuple[Cli, dict[str, Any]]) -> None:
    cli, said = running
    cli.here("credits", "grant", "100")
    done = cli.json("generate", "bars", "-m", "testcard", "--num-outputs", "2", "--seed", "7", "-o", "two.png",
                    "--param", "aspect_ratio=16:9")  # fmt: skip
    assert done["files"] == ["two-1.png", "two-2.png"] and done["creditCost"] == 2
    assert done["input"]["aspect_ratio"] == "16:9" and [asset["seed"] for asset in done["assets"]] == [7, 8]
    assert all((cli.work / name).read_bytes().startswith(PNG) for name in done["files"])
    assert done["output"]["image"].startswith(said["address"])
    # a local picture as input, a default name, and what a person reads
    path = cli("generate", "bars", "-m", "testcard", "--image-url", "two-1.png").strip()
    assert re.fullmatch(r"job_\w+\.png", path) and (cli.work / path).read_bytes().startswith(PNG)
    assert re.search(r"\d\.\d s · 1 credit, [\d.]+ left · seed \d+", cli.stderr)
    assert cli.json_here("jobs", path.removesuffix(".png"))["status"] == "completed"
    # the same service by its address; -o overwrites
    cli.here("generate", "other", "-m", "testcard", "-o", "two-1.png", PIXELDOJO_BASE_URL=said["address"] + "/")
    page = cli.json("jobs", "--limit", "1", "--status", "completed", "--model", "testcard")
    assert page["jobs"][0]["input"]["prompt"] == "other" and page["nextCursor"]
    assert cli.here("jobs").splitlines()[0].split("\t")[0] == "ID"
    assert not list(cli.work.glob(".*"))


def test_the_own_key_is_made_again_when_it_stops_working(running: tuple[Cli, dict[str, Any]]) -> None:
    cli, said = running
    cli.here("jobs")
    kept = cli.data / "cli-key"
    first = kept.read_text()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    cli.here("jobs")
    assert kept.read_text() == first
    cli.here("keys", "revoke", first.strip())
    cli.here("jobs")
    second = kept.read_text()
    assert second != first
    kept.write_bytes(b"\xff\xfe not a key")
    cli.here("jobs")
    assert kept.read_text() not in (first, second)
    assert said["key"].startswith("pd_"), "the first start of a data directory makes a key"


def test_models_and_doctor(running: tuple[Cli, dict[str, Any]]) -> None:
    cli, said = running
    assert {"dojo-mini", "testcard"} <= {model["apiId"] for model in cli.json("models")["models"]}
    assert cli.json_here("models", "testcard")["requestSchema"]["required"] == ["prompt"]
    assert "aspect_ratio\tstring\t1:1" in cli.here("models", "testcard")
    assert cli.json_here("models", "../jobs", ends=Exit.REFUSED)["error"]["code"] == "not_found"
    report = cli.json("doctor", PIXELDOJO_API_KEY="pd_secret")
    assert report["ok"] and "pd_secret" not in str(report)
    checks = {check["name"]: check["detail"] for check in report["checks"]}
    assert said["address"] in checks["service"] and "sum of its entries" in checks["ledger"]
    assert cli.json("db", "migrate") == {"applied": []}
    text = cli("doctor", ends=Exit.FAILED, PIXELDOJO_MODELS_DIR="/nosuch", PIXELDOJO_STORAGE_URL="no://where")
    assert "WRONG: PIXELDOJO_MODELS_DIR" in text and "WRONG: PIXELDOJO_STORAGE_URL" in text


def test_a_second_start_has_no_key_to_tell_and_a_busy_port_is_named(cli: Cli) -> None:
    cli("keys", "create")
    with serving(cli.data, PIXELDOJO_ROLES="api") as (said, process):
        assert said["key"] is None
        port = said["address"].rpartition(":")[2]
        cli("serve", "--port", port, ends=Exit.FAILED)
        assert f"port {port} at 127.0.0.1 is in use" in cli.stderr
        assert (cli.data / "service.json").exists()
        # nobody works here: jobs wait
        cli.here("credits", "grant", "5")
        late = cli.json("generate", "x", "-m", "testcard", "--timeout", "0.3", ends=Exit.TIMEOUT)["error"]
        assert late["code"] == "timeout" and late["jobId"] in late["message"]
        waiting = subprocess.Popen(
            [sys.executable, "-m", "pixeldojo", "generate", "mine", "-m", "testcard"],
            env=environment(cli.data), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        while "mine" not in cli.here("jobs"):
            assert waiting.poll() is None
        waiting.send_signal(signal.SIGINT)
        _, text = waiting.communicate(timeout=20)
        assert waiting.returncode == Exit.INTERRUPTED and "the job goes on: `pixeldojo jobs job_" in text
        process.send_signal(signal.SIGINT)  # Ctrl-C ends it as cleanly as SIGTERM


def test_generate_without_a_service(cli: Cli) -> None:
    poor = cli.json("generate", "x", "-m", "testcard", ends=Exit.CREDITS)["error"]
    assert poor["message"].endswith("`pixeldojo credits grant 100` adds some.")
    cli("credits", "grant", "10")
    done = cli.json("generate", "x", "-m", "testcard", "-o", "x.png")
    assert (cli.work / "x.png").read_bytes().startswith(PNG) and done["creditsRemaining"] == 9
    assert done["files"] == ["x.png"] and 0 < done["seconds"] < 30
    unknown = cli.json("generate", "x", "-m", "nosuch", ends=Exit.REFUSED)["error"]
    assert unknown["code"] == "not_found" and unknown["status"] == 404
    (cli.data / "service.json").write_text('{"address": "http://127.0.0.1:9"}')  # left by one that was killed
    assert [job["status"] for job in cli.json("jobs")["jobs"]] == ["completed"]


class _Fake(BaseHTTPRequestHandler):
    """A service that is not well: it answers what the test says, then has nothing more to say."""

    answers: list[tuple[int, dict[str, str], bytes]]
    asked: list[dict[str, str]]

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.asked.append({"path": self.path, **{name.lower(): value for name, value in self.headers.items()}})
        status, headers, body = self.answers.pop(0) if self.answers else (404, {}, b"")
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Says nothing."""


@pytest.fixture
def fake() -> Iterator[tuple[str, type[_Fake]]]:
    handler = type("Fake", (_Fake,), {"answers": [], "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This process set up for `run`: a fresh data directory and no other setting."""
    for name in os.environ:
        if name.startswith("PIXELDOJO_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIXELDOJO_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PIXELDOJO_TESTCARD", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_submitting_again_after_trouble_is_one_job(bare: Path, fake: tuple[str, type[_Fake]]) -> None:
    url, service = fake
    limited = json.dumps({"error": {"code": "rate_limit_exceeded", "message": "Wait.", "status": 429}}).encode()
    job = {"jobId": "job_1", "status": "completed", "output": {"image": f"{url}/moved"}, "creditCost": 1}
    service.answers += [
        (503, {}, b"busy"),
        (429, {"Retry-After": "1"}, limited),
        (202, {}, b'{"jobId": "job_1", "status": "pending", "creditsRemaining": 4}'),
        (200, {}, json.dumps(job).encode()),
        (302, {"Location": f"{url}/file.webp"}, b""),
        (200, {}, b"RIFF"),
    ]
    started = time.monotonic()
    assert main.run(["generate", "x", "--base-url", url + "/api/v1", "--key", "pd_mine"]) is Exit.OK
    assert time.monotonic() - started > 1.25
    assert [asked["path"] for asked in service.asked] == [
        *["/api/v1/models/dojo-mini/run"] * 3, "/api/v1/jobs/job_1", "/moved", "/file.webp"
    ]  # fmt: skip
    assert len({asked["idempotency-key"] for asked in service.asked[:3]}) == 1
    assert all(asked["authorization"] == "Bearer pd_mine" for asked in service.asked[:4])
    assert not any("authorization" in asked for asked in service.asked[4:])
    assert (bare / "job_1.bin").read_bytes() == b"RIFF"


@pytest.mark.parametrize(
    "answer", [b"<html>", b"[1]", b'{"jobs": 3}', b"\xff", b'{"jobs": [{"status": 1}]}', b"", b"[" * 100_000]
)
def test_garbage_is_told_as_such(
    bare: Path, fake: tuple[str, type[_Fake]], answer: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    url, service = fake
    service.answers.append((200, {}, answer))
    assert main.run(["jobs", "--base-url", url, "--key", "pd_x"]) is Exit.UNREACHABLE
    assert capsys.readouterr().err.startswith("error: the answer is not one that PixelDojo gives")


def test_the_own_key_is_for_the_own_service_alone(
    bare: Path, fake: tuple[str, type[_Fake]], capsys: pytest.CaptureFixture[str]
) -> None:
    url, service = fake
    assert main.run(["jobs", "--base-url", url, "--json"]) is Exit.REFUSED
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "unauthorized"
    assert service.asked == [] and not (bare / "data").exists()


@pytest.mark.parametrize(
    ("line", "ends", "says"),
    [
        ("bogus", 2, 'Unknown command "bogus"'),
        ("keys bogus", 2, 'Unknown command "bogus"'),
        ("generate a b", 2, "Unused Tokens"),
        ("generate x --seed one", 2, "--seed"),
        ("generate x --timeout 0", 2, "--timeout"),
        ("generate x --timeout nan", 2, "--timeout"),
        ("generate x -o /nosuch/x.png", 2, "no folder '/nosuch'"),
        ("generate x --param seed", 2, "name=value"),
        ("generate x --param seed=1 --seed 2", 2, "given twice"),
        ("generate x --image-url /nosuch.png", 2, "--image-url: can't read '/nosuch.png'"),
        ("generate x --mask-url /nosuch.png", 2, "--mask-url: can't read '/nosuch.png'"),
        ("generate x --base-url ftp://x --key k", 2, "is no address"),
        ("generate x --base-url http:// --key k", 2, "is no address"),
        ("generate x --base-url http://h:99999 --key k", 2, "is no address"),
        ("generate x --key a\u00e9", 2, "API key contains"),
        ("models --base-url http://127.0.0.1:9", 5, "no answer from http://127.0.0.1:9"),
        ("jobs --limit 0", 2, "1 to 100"),
        ("jobs --status done", 2, "use one of pending"),
        ("keys create --cap much", 2, "--cap: 'much' is not a number of credits"),
        ("keys create --cap -1", 2, "must be zero or more"),
        ("keys create --expires soon", 2, "--expires: 'soon' can't be read"),
        ("keys create --expires 999999999w", 2, "too far away"),
        ("keys create --expires 2001-01-01", 2, "must lie in the future"),
        ("keys create --models ,", 2, "at least one model"),
        ("keys create --account nobody", 3, "There is no account 'nobody'"),
        ("keys create --name \t", 2, "printable"),
        ("keys revoke pd_nothing", 3, "There is no key"),
        ("credits grant", 2, "requires an argument"),
        ("credits grant lots", 2, "not a number of credits"),
        ("credits grant 0.0001", 2, "three decimals"),
        ("credits grant 0", 2, "other than zero"),
        ("credits grant -5", 2, "holds only 0 credits"),
        ("credits grant 1e400", 2, "not an amount"),
        ("credits ledger --limit 0", 2, "--limit"),
        ("accounts create", 2, "requires an argument"),
        ("serve --port 70000", 2, "70000 is no port"),
        ("serve --host 203.0.113.7 --port 0", 1, "no address of this machine"),
        ("db", 0, ""),
    ],
)
def test_bad_arguments(bare: Path, line: str, ends: int, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(line.split(" ")) == ends
    told = capsys.readouterr().err
    assert says in told and (not says or told.startswith("error: "))


@pytest.mark.parametrize(
    ("variables", "ends", "says"),
    [
        ({"PIXELDOJO_PRT": "1"}, 2, "did you mean PIXELDOJO_PORT?"),
        ({"PIXELDOJO_DATABASE_URL": "mysql://x"}, 5, "no database URL"),
        ({"PIXELDOJO_DATABASE_URL": "sqlite:////proc/nosuch/x.db"}, 5, "can't open"),
        ({"PIXELDOJO_DATA_DIR": "/dev/null/x"}, 2, "PIXELDOJO_DATA_DIR: can't make"),
    ],
)
def test_bad_settings(
    bare: Path, variables: dict[str, str], ends: int, says: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main.run(["credits", "balance", "--json"]) == ends
    error = json.loads(capsys.readouterr().out)["error"]
    assert says in error["message"] and error["exitCode"] == ends


def test_help_names_every_command_and_exit_code(cli: Cli) -> None:
    text = cli("--help")
    for word in ("serve", "generate", "models", "jobs", "keys", "credits", "accounts", "db", "doctor"):
        assert f"│ {word} " in text
    for ends in Exit:
        assert f"{int(ends):>3}  {ends.text}" in text
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", cli("--version"))
    reader = subprocess.run(
        f"{sys.executable} -m pixeldojo models | head -c 1", shell=True, env=environment(cli.data),
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert reader.stdout == "I" and reader.stderr == ""
