"""`/api/v1/models/{apiId}/run` and `/api/v1/jobs`: submit, poll, list."""

import re
from typing import Any

from litestar import Response, get, post
from litestar.params import FromPath

from pixeldojo import errors
from pixeldojo.accounts import service as accounts
from pixeldojo.api.respond import JSON, ApiRequest, base_url, header, reply
from pixeldojo.db import DatabaseUnavailable, Tx
from pixeldojo.house import House
from pixeldojo.jobs import intake
from pixeldojo.jobs import service as jobs
from pixeldojo.jobs.service import Receipt
from pixeldojo.jobs.store import Job
from pixeldojo.jobs.view import View

_SMALL_BODY = 64 * 1024  # a larger body is only read from somebody with a key
_CURSOR = re.compile(r"job_[0-9a-f]{32}")
_STATUSES = ("pending", "processing", "completed", "failed")
_MOST, _USUAL = 100, 20


def view(request: ApiRequest) -> View:
    """Renders jobs with URLs under the address this request came to."""
    house: House = request.app.state.house
    return View(signer=house.signer, base_url=base_url(request))


def _submit(tx: Tx, authorization: str | None, /, **order: Any) -> Receipt:
    return jobs.submit(tx, caller=accounts.authenticate(tx, authorization), **order)


def _get(tx: Tx, authorization: str | None, /, *, job_id: str) -> Job:
    return jobs.get(tx, caller=accounts.authenticate(tx, authorization), job_id=job_id)


def _list(tx: Tx, authorization: str | None, /, **page: Any) -> tuple[list[Job], str | None]:
    return jobs.list_jobs(tx, caller=accounts.authenticate(tx, authorization), **page)


async def _json_body(request: ApiRequest, house: House, authorization: str | None) -> Any:
    kind = (header(request, b"content-type") or JSON).partition(";")[0].strip().lower()
    if kind != JSON and not kind.endswith("+json"):
        raise errors.InvalidJSON(f"Send the body as JSON with `Content-Type: application/json`, not {kind[:60]!r}.")
    length = header(request, b"content-length") or ""
    if not length.isdigit() or int(length) > _SMALL_BODY:
        await house.db.read(accounts.authenticate, authorization)
    return intake.parse(await _body(request, house.settings.max_body_bytes))


async def _body(request: ApiRequest, most: int) -> bytes:
    """The whole body. Raises `ValidationError` as soon as it is longer than `most` bytes."""
    parts, size = [], 0
    while True:
        message: Any = await request.receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise errors.ValidationError.at("", f"the request body is larger than {most} bytes")
        if not message.get("more_body"):
            return parts[0] if len(parts) == 1 else b"".join(parts)


@post("/api/v1/models/{api_id:str}/run", status_code=202)
async def run_model(request: ApiRequest, api_id: FromPath[str]) -> Response[bytes]:
    """Submit a job."""
    house: House = request.app.state.house
    authorization = header(request, b"authorization")
    try:
        body = await _json_body(request, house, authorization)
        order, inputs = await intake.prepare(api_id, body, catalogue=house.catalogue, settings=house.settings)
        idempotency_key = intake.idempotency_key(header(request, b"idempotency-key"))
    except errors.PixelDojoError:
        # Whoever has no key learns that first. A valid request is authenticated inside its one transaction.
        await house.db.read(accounts.authenticate, authorization)
        raise
    try:
        receipt = await house.db.write(
            _submit,
            authorization,
            order=order,
            inputs=inputs,
            retention_s=house.settings.retention_s,
            idempotency_key=idempotency_key,
        )
    except DatabaseUnavailable as error:
        raise errors.SubmissionFailed(headers={"Retry-After": "5"}) from error
    headers = {"Idempotent-Replayed": "true"} if receipt.replayed else None
    return reply(view(request).receipt(receipt), status=202, headers=headers)


@get("/api/v1/jobs/{job_id:str}")
async def get_job(request: ApiRequest, job_id: FromPath[str]) -> Response[bytes]:
    """One job."""
    house: House = request.app.state.house
    job = await house.db.read(_get, header(request, b"authorization"), job_id=job_id)
    return reply(view(request).job(job))


@get("/api/v1/jobs")
async def list_jobs(request: ApiRequest) -> Response[bytes]:
    """The caller's jobs, newest first."""
    house: House = request.app.state.house
    authorization = header(request, b"authorization")
    query = request.query_params
    details = []
    limit = query.get("limit", str(_USUAL))
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= _MOST):
        details.append(errors.Detail("limit", f"must be a whole number from 1 to {_MOST}"))
    cursor = query.get("cursor") or None
    if cursor is not None and not _CURSOR.fullmatch(cursor):
        details.append(errors.Detail("cursor", "must be the nextCursor of an earlier page"))
    equal = {name: query[name] for name in ("status", "model") if query.get(name)}
    if equal.get("status", "pending") not in _STATUSES:
        details.append(errors.Detail("status", f"must be one of {', '.join(_STATUSES)}"))
    if "\0" in equal.get("model", ""):
        details.append(errors.Detail("model", "must not contain null characters"))
    if details:
        await house.db.read(accounts.authenticate, authorization)
        raise errors.ValidationError(f"{details[0].path}: {details[0].message}", details=details)
    found, following = await house.db.read(_list, authorization, limit=int(limit), before=cursor, equal=equal)
    shown = view(request)
    return reply({"jobs": [shown.listed(job) for job in found], "nextCursor": following})
