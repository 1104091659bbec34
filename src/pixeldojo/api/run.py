"""`/api/v1/models/{apiId}/run` and `/estimate`: submit a job, or ask what it would cost and how long it would wait."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from litestar import Response, post
from litestar.params import FromPath

from pixeldojo import errors, traces
from pixeldojo.accounts import service as accounts
from pixeldojo.api import body, waiting
from pixeldojo.api.respond import ApiRequest, base_url, header, reply, view
from pixeldojo.assets.signing import PREFIX
from pixeldojo.catalogue.service import Order
from pixeldojo.house import House
from pixeldojo.jobs import intake
from pixeldojo.jobs import service as jobs

_SMALL_BODY = 64 * 1024  # a larger body is only read from somebody with a key


async def _json_body(request: ApiRequest, house: House, authorization: str | None) -> Any:
    body.require_json(request)
    length = header(request, b"content-length") or ""
    if not length.isdigit() or int(length) > _SMALL_BODY:
        await house.db.read(accounts.authenticate, authorization)
    return intake.parse(await body.read(request, most=house.settings.max_body_bytes))


def _carries_picture(asked: Any) -> bool:
    """Whether any parameter is a data URI or a result of this service."""
    values = asked.values() if isinstance(asked, dict) else ()
    return any(isinstance(v, str) and (v[:5].lower() == "data:" or PREFIX in v) for v in values)


async def _order(request: ApiRequest, api_id: str, authorization: str | None) -> tuple[Order, dict[str, bytes]]:
    house: House = request.app.state.house
    asked = await _json_body(request, house, authorization)
    if _carries_picture(asked):  # decoding one may take a second: not for somebody without a key
        await house.db.read(accounts.authenticate, authorization)
    return await intake.prepare(
        api_id, asked, catalogue=house.catalogue, settings=house.settings, files=house.files, signer=house.signer
    )


def _limits(given: Mapping[bytes, bytes]) -> jobs.Limits:
    start, cancel = (given.get(name) for name in (b"start-within", b"cancel-after"))
    if start is cancel is None:
        return jobs.NO_LIMITS
    return jobs.Limits(
        start_within_s=intake.duration(None if start is None else start.decode("latin-1"), path="Start-Within"),
        cancel_after_s=intake.duration(None if cancel is None else cancel.decode("latin-1"), path="Cancel-After"),
    )


@post("/api/v1/models/{api_id:str}/run", status_code=202)
async def run_model(request: ApiRequest, api_id: FromPath[str]) -> Response[bytes]:
    """Submit a job; with `Prefer: wait=N`, answer when it has ended or N seconds have passed."""
    house: House = request.app.state.house
    authorization = header(request, b"authorization")
    try:
        order, inputs = await _order(request, api_id, authorization)
        given = dict(request.scope["headers"])
        key = given.get(b"idempotency-key")
        idempotency_key = None if key is None else intake.idempotency_key(key.decode("latin-1"))
        limits = _limits(given)
        wait_s = intake.wait_s(given[b"prefer"].decode("latin-1")) if b"prefer" in given else 0.0
    except errors.PixelDojoError:
        # Whoever has no key learns that first. A valid request is authenticated inside its one transaction.
        await house.db.read(accounts.authenticate, authorization)
        raise
    try:
        with traces.span("submit", model=order.card.api_id):
            receipt = await house.db.write(
                accounts.as_caller,
                authorization,
                jobs.submit,
                needs="jobs:write",
                order=order,
                inputs=inputs,
                retention_s=house.settings.retention_s,
                idempotency_key=idempotency_key,
                limits=limits,
                base_url=base_url(request) if order.webhook_url else None,
            )
    except errors.CommitUnknown as error:
        text = "It is not known whether the job was stored: list your jobs, or repeat it with the same Idempotency-Key."
        raise errors.SubmissionFailed(text, headers={"Retry-After": "5"}) from error
    except errors.DatabaseUnavailable as error:
        raise errors.SubmissionFailed(headers={"Retry-After": "5"}) from error
    headers = {"Idempotent-Replayed": "true"} if receipt.replayed else {}
    shown = view(request)
    if wait_s:
        headers["Preference-Applied"] = f"wait={wait_s:g}"
        job = await waiting.until_ended(house, receipt.job.id, wait_s=wait_s)
        if job is not None:
            left = dataclasses.replace(receipt, balance_milli=receipt.balance_milli + job.refunded_milli)
            return reply(shown.receipt(left) | shown.job(job), status=200, headers=headers)
    return reply(shown.receipt(receipt), status=202, headers=headers)


@post("/api/v1/models/{api_id:str}/estimate", status_code=200)
async def estimate(request: ApiRequest, api_id: FromPath[str]) -> Response[bytes]:
    """Check and price a run without running it, and say how long it would probably wait."""
    house: House = request.app.state.house
    authorization = header(request, b"authorization")
    try:
        order, _ = await _order(request, api_id, authorization)
    except errors.PixelDojoError:
        await house.db.read(accounts.authenticate, authorization)
        raise
    told: dict[str, Any] = await house.db.read(
        accounts.as_caller, authorization, jobs.estimate, order=order, outlook=house.outlook
    )
    return reply(told)
