"""`/api/v1/jobs`: poll, list, cancel, remove."""

import re
from datetime import datetime
from typing import Any

from litestar import Response, delete, get, post
from litestar.params import FromPath

from pixeldojo import errors
from pixeldojo.accounts import service as accounts
from pixeldojo.api.respond import ApiRequest, header, reply, view
from pixeldojo.house import House
from pixeldojo.jobs import service as jobs
from pixeldojo.jobs.view import Seen

_CURSOR = re.compile(r"job_[0-9a-f]{32}")
_STATUSES = ("pending", "processing", "completed", "failed")
_MOST, _USUAL = 100, 20
_MOST_FILTERS = 16  # as many names as a job's metadata may have; each is a part of the query


@get("/api/v1/jobs/{job_id:str}")
async def get_job(request: ApiRequest, job_id: FromPath[str]) -> Response[bytes]:
    """One job."""
    house: House = request.app.state.house
    authorization = header(request, b"authorization")
    job, seen = await house.db.read(
        accounts.as_caller, authorization, jobs.get_seen, job_id=job_id, outlook=house.outlook
    )
    return reply(view(request).job(job, seen))


@post("/api/v1/jobs/{job_id:str}/cancel", status_code=200)
async def cancel_job(request: ApiRequest, job_id: FromPath[str]) -> Response[bytes]:
    """Cancel a job: at once while it is pending, within about a second while it is being worked on."""
    house: House = request.app.state.house
    result, job = await house.db.write(
        accounts.as_caller,
        header(request, b"authorization"),
        jobs.cancel,
        needs="jobs:write",
        job_id=job_id,
        retention_s=house.settings.retention_s,
    )
    return reply({"jobId": job.id, "result": result, "status": job.status})


@delete("/api/v1/jobs/{job_id:str}", status_code=200)
async def delete_job(request: ApiRequest, job_id: FromPath[str]) -> Response[bytes]:
    """Remove an ended job's files now, instead of when it expires."""
    house: House = request.app.state.house
    job = await house.db.write(
        accounts.as_caller, header(request, b"authorization"), jobs.discard, needs="jobs:write", job_id=job_id
    )
    # From here on the job answers 410; the janitor would do the rest too.
    await house.files.remove_job(job.id)
    await house.db.write(jobs.mark_swept, job_id=job.id, keep_input=house.settings.keep_inputs)
    return reply({"jobId": job.id, "deleted": True})


@get("/api/v1/jobs")
async def list_jobs(request: ApiRequest) -> Response[bytes]:
    """The caller's jobs, newest first."""
    house: House = request.app.state.house
    authorization = header(request, b"authorization")
    try:
        wanted = _page(request)
    except errors.ValidationError:
        await house.db.read(accounts.authenticate, authorization)
        raise
    # A filter that no index serves may have to look at many rows: not on the event loop.
    read = house.db.scan if wanted["metadata"] or "key_id" in wanted["equal"] else house.db.read
    found, following = await read(accounts.as_caller, authorization, jobs.list_jobs, **wanted)
    hooked = [job for job in found if job.webhook_url is not None]
    states = await house.db.read(jobs.webhook_states, found=hooked) if hooked else {}
    shown = view(request)
    listed = [shown.listed(job, Seen(delivery=states.get(job.id))) for job in found]
    return reply({"jobs": listed, "nextCursor": following})


def _page(request: ApiRequest) -> dict[str, Any]:
    """What the query asks for, as arguments of `jobs.list_jobs`. Raises `ValidationError` naming every fault."""
    query: dict[str, str] = dict(request.query_params)
    details: list[errors.Detail] = []
    limit = query.get("limit", str(_USUAL))
    if not (limit.isascii() and limit.isdigit() and len(limit) < 10 and 1 <= int(limit) <= _MOST):
        details.append(errors.Detail("limit", f"must be a whole number from 1 to {_MOST}"))
    cursor = query.get("cursor") or None
    if cursor is not None and not _CURSOR.fullmatch(cursor):
        details.append(errors.Detail("cursor", "must be the nextCursor of an earlier page"))
    equal = {name: query[name] for name in ("status", "model") if query.get(name)}
    if query.get("key"):
        equal["key_id"] = query["key"]
    if equal.get("status", "pending") not in _STATUSES:
        details.append(errors.Detail("status", f"must be one of {', '.join(_STATUSES)}"))
    metadata = {name.removeprefix("metadata."): query[name] for name in query if name.startswith("metadata.")}
    if len(metadata) > _MOST_FILTERS:
        details.append(errors.Detail("metadata", f"at most {_MOST_FILTERS} names can be asked for"))
    for name in (*equal, *(f"metadata.{each}" for each in metadata)):
        asked = "key" if name == "key_id" else name
        if "\0" in asked or "\0" in query[asked]:
            details.append(errors.Detail(asked.replace("\0", "?"), "must not contain null characters"))
    bounds = {name: _time_bound(query.get(name), name, details) for name in ("createdAfter", "createdBefore")}
    if details:
        raise errors.ValidationError(f"{details[0].path}: {details[0].message}", details=details)
    before = min((each for each in (cursor, bounds["createdBefore"]) if each), default=None)
    return {
        "limit": int(limit),
        "before": before,
        "since": bounds["createdAfter"],
        "equal": equal,
        "metadata": metadata,
    }


def _time_bound(text: str | None, name: str, details: list[errors.Detail]) -> str | None:
    """The smallest id that a job made at this RFC 3339 time may have: ids begin with their time."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text.replace(" ", "+"))  # a plus sign in a query arrives as a space
        if moment.tzinfo is None:
            raise ValueError
        time_ms = max(0, int(moment.timestamp() * 1000))  # nothing is older than 1970
    except (ValueError, OverflowError):
        details.append(errors.Detail(name, "must be a time with its zone, such as 2025-01-23T12:00:00Z"))
        return None
    return f"job_{time_ms:012x}"
