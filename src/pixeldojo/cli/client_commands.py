"""`generate`, `models`, `jobs`: what a client of the API does, from the command line."""

import asyncio
import base64
import mimetypes
import re
import secrets
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any
from urllib.parse import quote, urlencode, urlsplit

import msgspec
from cyclopts import Parameter

from pixeldojo.cli import show
from pixeldojo.cli.connect import Remote, as_text, connect, shaped
from pixeldojo.cli.outcome import CommandFailed, Exit, exit_of, usage

Key = Annotated[str | None, Parameter("--key", help="API key [PIXELDOJO_API_KEY]; else the command line's own.")]
BaseUrl = Annotated[
    str | None, Parameter("--base-url", help="Address of a service [PIXELDOJO_BASE_URL]; else the local one.")
]

_FIRST_POLL_S, _POLL_S, _LATE_POLL_S = 0.1, 1.0, 2.0
_LATE_S = 20.0  # a job that takes this long is polled less often: a key may ask 60 times a minute
_SUFFIX = re.compile(r"\.[a-z0-9]{2,4}")
_SAFE_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
_STATUSES = ("pending", "processing", "completed", "failed")


class _Receipt(msgspec.Struct, rename="camel"):
    job_id: str
    credit_cost: float = 0
    credits_remaining: float | None = None


class _Asset(msgspec.Struct, rename="camel"):
    url: str
    content_type: str = ""
    seed: int | None = None


class _Output(msgspec.Struct):
    images: list[str] = []
    videos: list[str] = []
    image: str | None = None
    video: str | None = None


class _Error(msgspec.Struct):
    code: str = "failed"
    message: str = "the job failed"


class _Job(msgspec.Struct, rename="camel"):
    job_id: str
    status: str
    progress: float | None = None
    output: _Output | None = None
    assets: list[_Asset] = []
    error: _Error | None = None
    credits_refunded: float = 0

    def files(self) -> list[_Asset]:
        """What was made; a service that tells no assets tells at least their addresses."""
        if self.assets or self.output is None:
            return self.assets
        urls = self.output.images or self.output.videos
        urls = urls or [url for url in (self.output.image, self.output.video) if url]
        return [_Asset(url) for url in urls]


@dataclass
class _Run:
    """What is known of the job when the command is interrupted."""

    job_id: str | None = None
    running: bool = True


def _value(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return text


def _picture(text: str, option: str) -> str:
    """An address as it is, a local file as a data URI."""
    if re.match(r"(https?|data):", text, re.IGNORECASE):
        return text
    path = Path(text).expanduser()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise usage(f"{option}: can't read {text!r}: {error.strerror}") from None
    kind = mimetypes.guess_type(path.name)[0] or "image/png"
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _body(named: dict[str, Any], params: list[str]) -> dict[str, Any]:
    body = {name: value for name, value in named.items() if value is not None}
    for param in params:
        name, equals, text = param.partition("=")
        if not equals or not name:
            raise usage(f"--param: {param!r} must read name=value")
        if name in body:
            raise usage(f"--param: {name} is given twice")
        body[name] = _value(text)
    return body


def _check_target(out: Path | None) -> None:
    """Better to learn now than after the credits are spent that nothing can be saved."""
    folder = Path.cwd() if out is None else out if out.is_dir() else out.parent
    if not folder.is_dir():
        raise usage(f"--out: there is no folder {str(folder)!r}")


def _targets(out: Path | None, job: _Job, files: list[_Asset]) -> list[Path]:
    """Where each file goes. A name that the user gave is overwritten; the others carry the job's id."""
    stem = job.job_id if _SAFE_ID.fullmatch(job.job_id) else "job"
    paths = []
    for index, asset in enumerate(files, 1):
        number = f"-{index}" if len(files) > 1 else ""
        if out is not None and not out.is_dir():
            paths.append(out.with_name(f"{out.stem}{number}{out.suffix}"))
            continue
        suffix = PurePosixPath(urlsplit(asset.url).path).suffix
        if not _SUFFIX.fullmatch(suffix):
            suffix = mimetypes.guess_extension(asset.content_type) or ".bin"
        paths.append((out or Path()) / f"{stem}{number}{suffix}")
    return paths


async def _wait(remote: Remote, job_id: str, *, deadline: float, step: show.Step) -> tuple[dict[str, Any], _Job]:
    """The job when it has ended."""
    pause, started = _FIRST_POLL_S, time.monotonic()
    while True:
        # a service that is being restarted must not end the wait for a job that is paid for
        raw = await remote.call("GET", f"/jobs/{quote(job_id, safe='')}", deadline=deadline, patience_s=30)
        job = shaped(raw, _Job)
        if job.status in ("completed", "failed"):
            return raw, job
        step("drawing" if job.status == "processing" else "waiting", job.progress)
        now = time.monotonic()
        if now + pause > deadline:
            goes_on = f"the job goes on: `pixeldojo jobs {job_id}` shows it"
            if not remote.running:
                goes_on = f"{job_id} waits for a worker: `pixeldojo serve` takes it up"
            raise CommandFailed(
                f"not done within the time given by --timeout; {goes_on}",
                code="timeout", ends=Exit.TIMEOUT, job_id=job_id,
            )  # fmt: skip
        await asyncio.sleep(pause)
        pause = min(pause * 1.3, _POLL_S if now - started < _LATE_S else _LATE_POLL_S)


async def _generate(
    body: dict[str, Any], *, model: str, out: Path | None, key: str | None, base_url: str | None, timeout: float,
    run: _Run, step: show.Step,
) -> dict[str, Any]:  # fmt: skip
    started = time.monotonic()
    deadline = started + timeout
    async with connect(base_url=base_url, key=key, model=model) as remote:
        run.running = remote.running
        step("submitting", None)
        headers = {"Idempotency-Key": f"cli-{secrets.token_hex(16)}"}
        path = f"/models/{quote(model, safe='')}/run"
        raw_receipt = await remote.call("POST", path, deadline=deadline, patience_s=5, json=body, headers=headers)
        receipt = shaped(raw_receipt, _Receipt)
        run.job_id = receipt.job_id
        raw, job = await _wait(remote, receipt.job_id, deadline=deadline, step=step)
        if job.status == "failed":
            told = job.error or _Error()
            text = f"{told.message} ({told.code}); {job.credits_refunded:g} credits were refunded"
            ends = exit_of(told.code) if told.code == "validation_error" else Exit.FAILED
            raise CommandFailed(text, code=told.code, ends=ends, job_id=job.job_id)
        files = job.files()
        paths = _targets(out, job, files)
        for number, (asset, target) in enumerate(zip(files, paths, strict=True), 1):
            step("saving", number / len(files))
            await remote.save(str(asset.url), target)
    return raw | {
        "files": [str(path) for path in paths],
        "seconds": round(time.monotonic() - started, 3),
        "creditsRemaining": raw_receipt.get("creditsRemaining"),
    }


def _interrupted(run: _Run) -> CommandFailed:
    if run.job_id is None:
        text = "interrupted; `pixeldojo jobs` shows whether a job was submitted"
    elif run.running:
        text = f"interrupted; the job goes on: `pixeldojo jobs {run.job_id}` shows it"
    else:
        text = f"interrupted; the job {run.job_id} is kept: `pixeldojo serve` takes it up"
    return CommandFailed(text, code="interrupted", ends=Exit.INTERRUPTED, job_id=run.job_id)


def generate(
    prompt: str | None = None,
    *,
    model: Annotated[str, Parameter(("--model", "-m"))] = "dojo-mini",
    out: Annotated[Path | None, Parameter(("--out", "-o"))] = None,
    seed: int | None = None,
    aspect_ratio: str | None = None,
    num_outputs: int | None = None,
    image_url: str | None = None,
    mask_url: str | None = None,
    param: Annotated[list[str] | None, Parameter(negative=())] = None,
    timeout: float = 600,
    key: Key = None,
    base_url: BaseUrl = None,
    json: show.Json = False,
) -> None:
    """Make a picture or a video and save it.

    Parameters
    ----------
    prompt
        What to show.
    model
        Which model; `pixeldojo models` lists them.
    out
        Where to save; several outputs get -1, -2, … Without it: <job id>.<ext>.
    seed
        The same seed makes the same picture.
    aspect_ratio
        Such as 16:9.
    num_outputs
        How many.
    image_url
        An input picture: a file or an address.
    mask_url
        Which part of it to paint anew, in white: a file or an address.
    param
        Any other parameter as name=value, value being JSON or text; repeatable.
    timeout
        Seconds to wait at most; the job goes on after that.
    """
    named = {"prompt": prompt, "seed": seed, "aspect_ratio": aspect_ratio, "num_outputs": num_outputs}
    named["image_url"] = None if image_url is None else _picture(image_url, "--image-url")
    named["mask_url"] = None if mask_url is None else _picture(mask_url, "--mask-url")
    body = _body(named, param or [])
    if not 0 < timeout < 1e9:
        raise usage("--timeout: use a number of seconds above zero")
    _check_target(out)
    run = _Run()
    with show.progress(wanted=not json) as step:
        wanted = _generate(body, model=model, out=out, key=key, base_url=base_url, timeout=timeout, run=run, step=step)
        done = asyncio.run(_to_its_end(wanted, run))
    if json:
        show.document(done)
    else:
        _show_done(done)


async def _to_its_end(work: Coroutine[Any, Any, dict[str, Any]], run: _Run) -> dict[str, Any]:
    """What `work` gives; its faults name the job, for what was paid for can be fetched later."""
    try:
        return await work
    except asyncio.CancelledError:
        raise _interrupted(run) from None
    except CommandFailed as fault:
        fault.job_id = fault.job_id or run.job_id
        raise


def _show_done(done: dict[str, Any]) -> None:
    for path in done["files"]:
        show.line(path)
    seeds = [f" · seed {asset['seed']}" for asset in done.get("assets", [])[:1] if "seed" in asset]
    left = "" if done["creditsRemaining"] is None else f", {done['creditsRemaining']} left"
    cost = done.get("creditCost", "?")
    show.note(f"{done['seconds']:.1f} s · {cost} credit{'' if cost == 1 else 's'}{left}{''.join(seeds)}")


def _ask(path: str, *, key: str | None, base_url: str | None, needs_key: bool) -> dict[str, Any]:
    async def work() -> dict[str, Any]:
        async with connect(base_url=base_url, key=key, needs_key=needs_key) as remote:
            return await remote.call("GET", path)

    return asyncio.run(work())


class _Cost(msgspec.Struct):
    default: float | None = None


class _Model(msgspec.Struct, rename="camel"):
    api_id: str
    name: str = ""
    description: str = ""
    modality: str = ""
    capabilities: list[str] = []
    credit_cost: _Cost = msgspec.field(default_factory=_Cost)
    pricing: str = ""
    limits: list[str] = []
    request_schema: dict[str, Any] = {}


class _Models(msgspec.Struct):
    models: list[_Model]


def models(
    id: str | None = None,  # noqa: A002 - the name in the help
    /,
    *,
    key: Key = None,
    base_url: BaseUrl = None,
    json: show.Json = False,
) -> None:
    """Show the models, or one of them with its parameters.

    Parameters
    ----------
    id
        A model's id.
    """
    path = "/models" if id is None else f"/models/{quote(id, safe='')}"
    raw = _ask(path, key=key, base_url=base_url, needs_key=False)
    if json:
        show.document(raw)
    elif id is None:
        rows = [
            (m.api_id, m.name, m.modality, "?" if m.credit_cost.default is None else f"{m.credit_cost.default:g}",
             ", ".join(m.capabilities))
            for m in shaped(raw, _Models).models
        ]  # fmt: skip
        show.table(("ID", "NAME", "KIND", "CREDITS", "CAPABILITIES"), rows, empty="No model can run here.")
    else:
        _show_model(shaped(raw, _Model))


def _show_model(model: _Model) -> None:
    show.pairs(
        [
            ("id", model.api_id),
            ("name", model.name),
            ("description", model.description),
            ("modality", model.modality),
            ("capabilities", ", ".join(model.capabilities)),
            ("price", model.pricing),
            *(("limit", limit) for limit in model.limits),
        ]
    )
    properties = model.request_schema.get("properties")
    if not isinstance(properties, dict):
        return
    required = model.request_schema.get("required", [])
    rows = []
    for name, spec in properties.items():
        about = spec if isinstance(spec, dict) else {}
        default = "required" if name in required else about.get("default", "")
        choices = ", ".join(str(choice) for choice in about.get("enum", []))
        rows.append((name, about.get("type", ""), default, choices or about.get("description", "")))
    show.table(("PARAMETER", "TYPE", "DEFAULT", "MEANING"), rows, empty="")


class _Listed(msgspec.Struct, rename="camel"):
    job_id: str
    status: str
    model: str = ""
    input: dict[str, Any] = {}
    credit_cost: float = 0
    created_at: str = ""


class _Page(msgspec.Struct, rename="camel"):
    jobs: list[_Listed]
    next_cursor: str | None = None


def jobs(
    id: str | None = None,  # noqa: A002 - the name in the help
    /,
    *,
    limit: int = 20,
    status: str | None = None,
    model: str | None = None,
    cursor: str | None = None,
    key: Key = None,
    base_url: BaseUrl = None,
    json: show.Json = False,
) -> None:
    """Show your jobs, the newest first, or one of them.

    Parameters
    ----------
    id
        A job's id.
    limit
        How many, 1 to 100.
    status
        Only pending, processing, completed or failed ones.
    model
        Only this model's.
    cursor
        The nextCursor of the page before.
    """
    if id is not None:
        raw = _ask(f"/jobs/{quote(id, safe='')}", key=key, base_url=base_url, needs_key=True)
        _show_job(raw, as_json=json)
        return
    if not 1 <= limit <= 100:
        raise usage("--limit: use 1 to 100")
    if status is not None and status not in _STATUSES:
        raise usage(f"--status: use one of {', '.join(_STATUSES)}")
    wanted = {"limit": limit, "status": status, "model": model, "cursor": cursor}
    query = urlencode({name: value for name, value in wanted.items() if value is not None})
    raw = _ask(f"/jobs?{query}", key=key, base_url=base_url, needs_key=True)
    if json:
        show.document(raw)
        return
    page = shaped(raw, _Page)
    rows = [
        (j.job_id, j.status, j.model, f"{j.credit_cost:g}", j.created_at, as_text(j.input, "prompt")) for j in page.jobs
    ]
    show.table(("ID", "STATUS", "MODEL", "CREDITS", "CREATED", "PROMPT"), rows, empty="There are no jobs.")
    if page.next_cursor:
        show.note(f"There are more: --cursor {show.printable(page.next_cursor)}")


def _show_job(raw: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show.document(raw)
        return
    job, listed = shaped(raw, _Job), shaped(raw, _Listed)
    rows: list[tuple[str, object]] = [("id", job.job_id), ("status", job.status), ("model", listed.model)]
    rows += [(name, value if isinstance(value, str) else msgspec.json.encode(value).decode())
             for name, value in listed.input.items()]  # fmt: skip
    rows += [("credits", f"{listed.credit_cost:g}")]
    rows += [(name, raw[name]) for name in ("createdAt", "startedAt", "completedAt", "expiresAt") if raw.get(name)]
    if job.progress is not None:
        rows.append(("progress", f"{job.progress:.0%}"))
    if job.error is not None:
        rows.append(("error", f"{job.error.message} ({job.error.code})"))
    rows += [("url", asset.url) for asset in job.files()]
    show.pairs(rows)
