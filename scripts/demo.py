"""One picture through the HTTP API, from nothing: start the service, make a key, submit, wait, download, stop.

`make demo PROMPT="a blue whale" OUT=whale.png` runs it. The service is a real process with a data directory that
is thrown away afterwards; nothing is read from or left in the user's own.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

MODEL = "dojo-mini"
START_S, JOB_S, STOP_S = 60.0, 300.0, 15.0

console = Console(stderr=True, highlight=False)


class DemoFailed(Exception):
    """The demo can't go on; the message says why."""


def command(*arguments: str) -> list[str]:
    """The `pixeldojo` command line of this very Python."""
    return [sys.executable, "-m", "pixeldojo", *arguments, "--json"]


def environment(folder: Path) -> dict[str, str]:
    """Ours without PixelDojo's settings: the demo must not touch a service that is set up here."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PIXELDOJO_")}
    return clean | {"PIXELDOJO_DATA_DIR": str(folder), "PIXELDOJO_LOG_LEVEL": "warning"}


def pixeldojo(folder: Path, *arguments: str) -> dict[str, Any]:
    """What a `pixeldojo` command answers."""
    done = subprocess.run(  # noqa: S603 - our own program
        command(*arguments), env=environment(folder), capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode:
        raise DemoFailed(f"`pixeldojo {' '.join(arguments)}` failed: {(done.stdout + done.stderr).strip()}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@contextlib.contextmanager
def service(folder: Path) -> Iterator[str]:
    """The address of a running service, which is stopped when the block ends, however it ends."""
    log = folder / "service.log"
    with log.open("w") as errors:
        process = subprocess.Popen(  # noqa: S603 - our own program
            command("serve", "--host", "127.0.0.1", "--port", "0"),
            env=environment(folder), stdout=subprocess.PIPE, stderr=errors, text=True,
            start_new_session=True,  # Ctrl-C is for the demo, which then stops the service itself
        )  # fmt: skip
    try:
        yield _address(process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()


def _address(process: "subprocess.Popen[str]", log: Path) -> str:
    """What the service prints once it answers."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    output = process.stdout
    assert output is not None
    threading.Thread(target=lambda: lines.put(output.readline()), daemon=True).start()
    try:
        line = lines.get(timeout=START_S)
    except queue.Empty:
        raise DemoFailed(f"the service did not start within {START_S:.0f} s") from None
    try:
        return str(json.loads(line)["address"])
    except (ValueError, KeyError, TypeError):
        raise DemoFailed(f"the service did not start: {(line + log.read_text()).strip()[-2000:]}") from None


def ask(api: httpx2.Client, method: str, path: str, **request: Any) -> dict[str, Any]:
    """The JSON of a good answer."""
    response = api.request(method, path, **request)
    answer: dict[str, Any] = response.json()
    if response.is_error:
        raise DemoFailed(f"{method} {path}: {answer['error']['message']}")
    return answer


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str, float | None], None]]:
    """A bar on a terminal; elsewhere a line when something new begins."""
    if not console.is_terminal:
        said: set[str] = set()

        def say(what: str, fraction: float | None) -> None:
            if what not in said:
                said.add(what)
                console.print(f"{what} ...", markup=False)

        yield say
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)

        def step(what: str, fraction: float | None) -> None:
            bar.update(task, description=what, total=None if fraction is None else 1.0, completed=fraction or 0.0)

        yield step


def draw(api: httpx2.Client, prompt: str, step: Callable[[str, float | None], None]) -> tuple[dict[str, Any], Any]:
    """The completed job, and the credits that are left."""
    receipt = ask(api, "POST", f"models/{MODEL}/run", json={"prompt": prompt})
    deadline = time.monotonic() + JOB_S
    wait_s = 0.1
    while time.monotonic() < deadline:
        job = ask(api, "GET", f"jobs/{receipt['jobId']}")
        if job["status"] == "completed":
            return job, receipt["creditsRemaining"]
        if job["status"] == "failed":
            raise DemoFailed(f"the job failed and was refunded: {job['error']['message']}")
        step("Drawing", job.get("progress"))
        time.sleep(wait_s)
        wait_s = min(wait_s * 1.3, 1.0)
    raise DemoFailed(f"the job was not done within {JOB_S:.0f} s")


def run(prompt: str, out: Path) -> None:
    """The whole demo."""
    if not out.parent.is_dir():
        raise DemoFailed(f"there is no folder {out.parent} to save {out.name} in")
    with tempfile.TemporaryDirectory(prefix="pixeldojo-demo-") as name, progress() as step:
        folder = Path(name)
        step("Starting the service", None)
        with service(folder) as address:
            step("Making a key and granting credits", None)
            key = pixeldojo(folder, "keys", "create", "--name", "demo")["key"]
            pixeldojo(folder, "credits", "grant", "10")
            with httpx2.Client(
                base_url=f"{address}/api/v1/", headers={"Authorization": f"Bearer {key}"}, timeout=30, trust_env=False
            ) as api:
                started = time.monotonic()
                step("Drawing", None)
                job, left = draw(api, prompt, step)
                with httpx2.Client(timeout=30, trust_env=False) as web:  # the address is signed: no key is sent
                    picture = web.get(job["output"]["image"]).raise_for_status().content
                seconds = time.monotonic() - started
            out.write_bytes(picture)
            step("Stopping the service", 1.0)
    size = f"{job['assets'][0]['width']} × {job['assets'][0]['height']}"
    console.print(f"{MODEL} drew {prompt!r} ({size}) in {seconds:.1f} s.", markup=False, soft_wrap=True)
    console.print(f"It cost {job['creditCost']} credits; {left} are left.", markup=False)
    sys.stdout.write(f"{out}\n")


def main() -> int:
    """The exit code."""
    prompt, out = os.environ.get("PROMPT") or "a red apple", Path(os.environ.get("OUT") or "demo.png")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # stops the service on the way out
    try:
        run(prompt, out)
    except KeyboardInterrupt:
        console.print("Interrupted; the service was stopped.")
        return 130
    except DemoFailed as error:
        console.print(f"error: {error}", markup=False, soft_wrap=True)
        return 1
    except (httpx2.HTTPError, OSError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
        console.print(f"error: {type(error).__name__}: {error}", markup=False, soft_wrap=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
