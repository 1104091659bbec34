"""`/api/v1/jobs/{jobId}/webhook` and `/api/v1/account/webhook-secret`: what was sent, once more please, signed how."""

from typing import Any

from litestar import Response, get, post
from litestar.params import FromPath

from pixeldojo.accounts import service as accounts
from pixeldojo.accounts.service import Caller
from pixeldojo.api.respond import ApiRequest, header, reply
from pixeldojo.db import Tx
from pixeldojo.house import House
from pixeldojo.jobs import hooks
from pixeldojo.jobs import service as jobs
from pixeldojo.webhooks import service as webhooks
from pixeldojo.webhooks import view

_NOT_KEPT = {"Cache-Control": "no-store"}  # a secret is nobody's to cache


@get("/api/v1/jobs/{job_id:str}/webhook")
async def get_webhook(request: ApiRequest, job_id: FromPath[str]) -> Response[bytes]:
    """A job's webhook with every attempt to deliver it."""
    house: House = request.app.state.house
    job, found = await house.db.read(accounts.as_caller, header(request, b"authorization"), jobs.webhook, job_id=job_id)
    return reply(view.inspection(job.webhook_url or "", events=hooks.wanted(job), found=found))


@post("/api/v1/jobs/{job_id:str}/webhook", status_code=202)
async def replay_webhook(request: ApiRequest, job_id: FromPath[str]) -> Response[bytes]:
    """Deliver the end of a job once more."""
    house: House = request.app.state.house
    job, delivery = await house.db.write(
        accounts.as_caller, header(request, b"authorization"), jobs.replay, needs="jobs:write", job_id=job_id
    )
    webhook = view.state(job.webhook_url or "", delivery)
    return reply({"jobId": job.id, "webhookId": delivery.id, "webhook": webhook}, status=202)


def _secrets(tx: Tx, *, caller: Caller) -> dict[str, Any]:
    return view.secrets(webhooks.valid_secrets(tx, account_id=caller.account_id))


def _rotate(tx: Tx, *, caller: Caller) -> dict[str, Any]:
    return view.secrets(webhooks.rotate_secret(tx, account_id=caller.account_id))


@get("/api/v1/account/webhook-secret")
async def get_secret(request: ApiRequest) -> Response[bytes]:
    """The secret that signs the account's webhooks, made when it is first asked for."""
    house: House = request.app.state.house
    found: dict[str, Any] = await house.db.write(
        accounts.as_caller, header(request, b"authorization"), _secrets, needs="account:write"
    )
    return reply(found, headers=_NOT_KEPT)


@post("/api/v1/account/webhook-secret/rotate", status_code=200)
async def rotate_secret(request: ApiRequest) -> Response[bytes]:
    """A new secret; the one before it stays valid for 24 hours."""
    house: House = request.app.state.house
    found: dict[str, Any] = await house.db.write(
        accounts.as_caller, header(request, b"authorization"), _rotate, needs="account:write"
    )
    return reply(found, headers=_NOT_KEPT)
