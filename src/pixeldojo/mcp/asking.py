"""The tools that look: models, prices, jobs, balance; and `cancel_job`."""

import re
from urllib.parse import urlencode

from pixeldojo.mcp.backend import Fault, Object
from pixeldojo.mcp.calling import Call, Result, ended, job_view, models, of_model, under, with_pictures

_CARD = ("apiId", "name", "description", "modality", "capabilities", "creditCost")


def _card(card: Object) -> Object:
    return {name: card[name] for name in _CARD if name in card}


async def list_models(call: Call) -> Result:
    """Every model, or those of one modality."""
    wanted = call.arguments.get("modality")
    found = [_card(card) for card in await models(call.backend) if wanted in (None, card.get("modality"))]
    return Result({"models": found, "total": len(found)})


async def search_models(call: Call) -> Result:
    """Models by words, capability, modality and price, the best match first."""
    asked = call.arguments
    words = re.findall(r"[\w.]+", asked.get("query", "").lower())
    found = []
    for card in await models(call.backend):
        if asked.get("modality") not in (None, card.get("modality")):
            continue
        if asked.get("capability") is not None and asked["capability"] not in card.get("capabilities", []):
            continue
        price = card.get("creditCost", {}).get("default", 0)
        if price > asked.get("max_credits", float("inf")):
            continue
        points = sum(_points(card, word) for word in words)
        if points or not words:
            found.append((-points, price, card["apiId"], _card(card)))
    listed = [card for *_, card in sorted(found, key=lambda each: each[:3])]
    told: Object = {"models": listed, "total": len(listed)}
    if not listed:
        told["hint"] = "Nothing matches: use fewer or other words, or call list_models to see all there is."
    return Result(told)


def _points(card: Object, word: str) -> int:
    names = f"{card['apiId']} {card.get('name', '')}".lower()
    rest = f"{' '.join(card.get('capabilities', []))} {card.get('modality', '')} {card.get('description', '')}".lower()
    return 3 * (word in names) + (word in rest)


async def model_schema(call: Call) -> Result:
    """One model's parameters, examples, limits and price."""
    return Result(await of_model(call.backend, "GET", call.arguments["model"]))


async def estimate(call: Call) -> Result:
    """What a job would cost and how long it would take."""
    body = merged(call.arguments, apart=("model",))
    return Result(await of_model(call.backend, "POST", call.arguments["model"], "/estimate", body))


def merged(arguments: Object, *, apart: tuple[str, ...]) -> Object:
    """The body of a run: `input`, and whatever else is no argument of the tool's own. Raises `Fault`."""
    body: Object = dict(arguments.get("input") or {})
    for name, value in arguments.items():
        if name == "input" or name in apart:
            continue
        if name in body and body[name] != value:
            text = f"{name} is given twice, in `input` and beside it, with different values."
            raise Fault("validation_error", text, details=[{"path": f"input.{name}", "message": "given twice"}])
        body[name] = value
    return body


async def job_status(call: Call) -> Result:
    """A job, waited for if that is wished, with its pictures."""
    job_id, wait_s = call.arguments["job_id"], float(call.arguments.get("wait_seconds", 0))
    job = await call.backend.call("GET", under("jobs", job_id))
    if wait_s and job.get("completedAt") is None:
        job = await ended(call, job_id, wait_s=wait_s)
    return await with_pictures(call.backend, job)


async def list_jobs(call: Call) -> Result:
    """The account's jobs, newest first."""
    page = await call.backend.call("GET", f"/jobs?{urlencode(call.arguments)}")
    found = page.get("jobs")
    if not isinstance(found, list) or not all(isinstance(job, dict) for job in found):
        raise Fault("bad_answer", "The service's answer lists no jobs.")
    return Result({"jobs": [job_view(job) for job in found], "nextCursor": page.get("nextCursor")})


_AFTER = {
    "cancelled": "The job has ended and its credits are refunded.",
    "cancelling": "It is being worked on and ends within about a second; job_status shows the refund.",
    "too_late": "It had ended before; job_status shows its result.",
}


async def cancel_job(call: Call) -> Result:
    """Cancel a job."""
    told = await call.backend.call("POST", under("jobs", call.arguments["job_id"], "/cancel"))
    return Result(told | {"next": _AFTER.get(str(told.get("result")), "job_status shows the job.")})


async def balance(call: Call) -> Result:
    """What the account has, and what limits this key."""
    told = await call.backend.call("GET", "/account")
    return Result({name: told[name] for name in ("credits", "key", "limits") if name in told})
