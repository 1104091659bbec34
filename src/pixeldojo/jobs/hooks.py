"""What a job tells its webhook: rendered and frozen in the very transaction that moves the job.

A job comes in as its move has left it; what leaves is a row of `deliveries`. Nothing here moves a job.
"""

from collections.abc import Iterable, Sequence

import msgspec

from pixeldojo import clock, ids
from pixeldojo.assets import store as assets
from pixeldojo.assets.signing import Signer
from pixeldojo.db import Tx
from pixeldojo.jobs import store
from pixeldojo.jobs.store import Job
from pixeldojo.jobs.view import View
from pixeldojo.webhooks import service as webhooks

ENDS = ("completed", "failed")  # what a caller hears of unless asked otherwise
_STARTED, _PROGRESS = "job.started", "job.progress"
_PROGRESS_MS = 500


def wanted(job: Job) -> Sequence[str]:
    """The events the job's webhook hears of, as `webhook_events_filter` names them."""
    if job.webhook_events is None:
        return ENDS
    return msgspec.json.decode(job.webhook_events, type=list[str])


def _payload(job: Job, event: str, *, signer: Signer, at_ms: int) -> bytes:
    data = View(signer=signer, base_url=job.base_url or "").job(job)
    return msgspec.json.encode({"type": event, "timestamp": clock.rfc3339(at_ms), "data": data})


def _add(tx: Tx, job: Job, event: str, *, payload: bytes, terminal: bool, heard: bool = True) -> None:
    assert job.webhook_url is not None
    webhooks.add(
        tx, job_id=job.id, account_id=job.account_id, url=job.webhook_url, event=event, payload=payload,
        expires_ms=job.expires_ms, terminal=terminal, wanted=heard,
    )  # fmt: skip


def ended(tx: Tx, job: Job) -> None:
    """The job is completed or failed: its one terminal event."""
    if job.webhook_url is None:
        return
    # The secret is read here and not handed in, so that whatever ends a job, from whichever loop, can tell of it.
    secret = assets.signing_secret(tx, fresh=ids.new_secret()) if job.status == "completed" else ""
    event = f"job.{job.status}"
    payload = _payload(job, event, signer=Signer(secret), at_ms=job.completed_ms or clock.now_ms())
    if job.webhook_events is not None:
        webhooks.withdraw(tx, job_id=job.id, event=_PROGRESS)
    _add(tx, job, event, payload=payload, terminal=True, heard=job.status in wanted(job))


def started(tx: Tx, jobs: Iterable[Job]) -> None:
    """Work on these jobs begins; told for their first attempt."""
    for job in jobs:
        # A filter without a webhook is no fault of the request, and must not stop the claim of everybody's jobs.
        if job.webhook_url is not None and job.attempt == 1 and "start" in wanted(job):
            payload = _payload(job, _STARTED, signer=Signer(""), at_ms=clock.now_ms())
            _add(tx, job, _STARTED, payload=payload, terminal=False)


def progressed(tx: Tx, job_ids: Sequence[str]) -> None:
    """These jobs have come further: an event each, but never two of a job within 500 ms."""
    now = clock.now_ms()
    for job in store.listening(tx, job_ids):
        if job.webhook_url is None:
            continue
        last_ms = webhooks.last_ms(tx, job_id=job.id, event=_PROGRESS)
        if "progress" not in wanted(job) or (last_ms is not None and 0 <= now - last_ms < _PROGRESS_MS):
            continue
        payload = _payload(job, _PROGRESS, signer=Signer(""), at_ms=now)
        # One that still waits is replaced: a receiver that is behind gets the newest, not all there was.
        if not webhooks.refresh(tx, job_id=job.id, event=_PROGRESS, payload=payload):
            _add(tx, job, _PROGRESS, payload=payload, terminal=False)
