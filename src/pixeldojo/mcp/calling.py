"""What a tool is handed and what it hands back, and what all of them do with models and jobs."""

import difflib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from pixeldojo.mcp.backend import ENDED, Backend, Fault, Object
from pixeldojo.mcp.schemas import MOST_WAIT_S

Progress = Callable[[float, str], Awaitable[None]]

INLINE_BYTES = 2**20  # a picture up to this size is shown in the result; a larger one is a URL alone
INLINE_PICTURES = 4


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool: `arguments` have passed the tool's schema, `progress` takes a fraction and a text."""

    backend: Backend
    arguments: Object
    progress: Progress
    local: bool  # over stdio, the agent's files are this process's files

    @property
    def wait_s(self) -> float:
        """How long to wait for a job's end."""
        return float(self.arguments.get("wait_seconds", MOST_WAIT_S))


@dataclass(frozen=True, slots=True)
class Result:
    """What a tool gives: an object, and pictures (bytes, content type) to be looked at."""

    data: Object
    pictures: list[tuple[bytes, str]] = field(default_factory=list)


def under(folder: str, name: object, rest: str = "") -> str:
    """`/folder/name/rest` with the name escaped."""
    return f"/{folder}/{quote(str(name), safe='')}{rest}"


async def models(backend: Backend) -> list[Object]:
    """Every card that the service lists. Raises `Fault`."""
    found = (await backend.call("GET", "/models")).get("models")
    if not isinstance(found, list) or not all(isinstance(card, dict) and "apiId" in card for card in found):
        raise Fault("bad_answer", "The service's answer lists no models.")
    return found


async def of_model(backend: Backend, method: str, model: str, rest: str = "", body: Object | None = None) -> Object:
    """The service's answer about a model; an id nobody knows gets the ones that are near. Raises `Fault`."""
    try:
        return await backend.call(method, under("models", model, rest), body)
    except Fault as fault:
        raise await explained(backend, fault, model=model, body=body) from None


async def explained(backend: Backend, fault: Fault, *, model: str, body: Object | None) -> Fault:
    """The fault with what an agent needs to mend the call: ids that exist, or price and balance."""
    try:
        if fault.code == "not_found":
            known = [card["apiId"] for card in await models(backend)]
            fault.more["models"] = difflib.get_close_matches(model, known, 5, 0.3) or known[:20]
            fault.remedy = "Use one of the ids in `models`, or find others with search_models."
        elif fault.code == "insufficient_credits" and body is not None:
            told = await backend.call("POST", under("models", model, "/estimate"), body)
            fault.more |= {"price": told.get("creditCost"), "balance": told.get("creditsRemaining")}
    except Fault:  # then without: what went wrong first is what counts
        pass
    return fault


_KEPT = (
    "jobId", "status", "model", "creditCost", "creditsRefunded", "progress", "queuePosition", "etaSeconds", "createdAt",
    "completedAt", "expiresAt", "expired", "error",
)  # fmt: skip


def job_view(job: Object) -> Object:
    """A job as tools show it. Raises `Fault` when it is none."""
    if not isinstance(job.get("jobId"), str) or not isinstance(job.get("status"), str):
        raise Fault("bad_answer", "The service's answer is not a job.")
    shown = {name: job[name] for name in _KEPT if name in job}
    given = job.get("input")
    if isinstance(given, dict) and isinstance(given.get("prompt"), str):
        shown["prompt"] = given["prompt"]
    assets = job.get("assets")
    if isinstance(assets, list):
        shown["outputs"] = [dict(asset) for asset in assets if isinstance(asset, dict) and "url" in asset]
    return shown


async def with_pictures(backend: Backend, job: Object) -> Result:
    """The job's view, with those of its pictures that are small enough to be looked at."""
    shown = job_view(job)
    pictures: list[tuple[bytes, str]] = []
    for output in shown.get("outputs", []):
        fits = output.get("type") == "image" and output.get("bytes", 0) <= INLINE_BYTES
        data = None
        if fits and len(pictures) < INLINE_PICTURES:
            data = await _picture(backend, output["url"])
        output["inline"] = data is not None
        if data is not None:
            pictures.append((data, str(output.get("contentType", "image/png"))))
    if shown["status"] not in ENDED:
        shown["next"] = (
            f"Not done yet. Call job_status with job_id {shown['jobId']} and wait_seconds {MOST_WAIT_S} until its "
            "status is completed or failed; do not call generate again."
        )
    return Result(shown, pictures)


async def _picture(backend: Backend, url: Any) -> bytes | None:
    try:
        return await backend.picture(str(url), most=INLINE_BYTES)
    except Fault:  # the URL is in the result all the same
        return None


async def ended(call: Call, job_id: str, *, wait_s: float, told: float = -1.0) -> Object:
    """The job when it has ended, or as it is when the time is over. Raises `Fault`.

    Its progress is passed on where it is more than what was `told` last.
    """

    async def watch(job: Object) -> None:
        nonlocal told
        fraction = job.get("progress")
        now = float(fraction) if isinstance(fraction, int | float) else 0.0
        if now > told:  # the protocol wants it to grow with every notification
            told = now
            await call.progress(now, f"{job_id} is {job.get('status')}")

    try:
        return await call.backend.ends(quote(job_id, safe=""), within_s=wait_s, watch=watch)
    except Fault as fault:
        fault.more["jobId"] = job_id
        raise
