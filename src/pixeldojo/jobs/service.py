"""The rules of jobs: submit, get, list, claim, finish, fail, retry, release, rescue, expire.

Each function is one step inside one transaction. Execution is at least once; effects are exactly once:
a job is charged where its row is made and refunded where it fails, in the same transaction.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from pixeldojo import clock, errors, ids
from pixeldojo.accounts.service import Caller
from pixeldojo.catalogue.service import Order
from pixeldojo.db import Tx
from pixeldojo.jobs import store
from pixeldojo.jobs.store import Job
from pixeldojo.ledger import service as ledger

CHANNEL = "jobs"  # woken when a pending job appears
IDEMPOTENCY_MS = 24 * 3600 * 1000
_RETRY_MS = (
    0,
    1_000,
    5_000,
)  # a crash is usually the job's or a moment's fault: soon again, then a little later


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a submit returns. `replayed` tells that an earlier submit with this idempotency key made the job."""

    job: Job
    balance_milli: int
    replayed: bool


def submit(
    tx: Tx,
    *,
    caller: Caller,
    order: Order,
    retention_s: int,
    inputs: Mapping[str, bytes] | None = None,
    idempotency_key: str | None = None,
) -> Receipt:
    """Charge the caller and queue the job, both or neither.

    `inputs` are pictures that came inside the request, by parameter. The same idempotency key with the same
    request within 24 hours gives the same job and no second charge; with another request, `ValidationError`.
    Raises `InsufficientCredits`, and `ValidationError` for a model outside the key's allow-list.
    """
    card = order.card
    if not caller.may_run(card.api_id):
        allowed = ", ".join(caller.models or ()) or "none"
        raise errors.ValidationError.at("model", f"this API key may not run {card.api_id}; it may run {allowed}")
    now = clock.now_ms()
    job = Job(
        id=ids.new("job"), account_id=caller.account_id, key_id=caller.key_id,
        model=card.api_id, modality=card.modality, status="pending",
        input=msgspec.json.encode(order.params).decode(), webhook_url=order.webhook_url,
        cost_milli=order.cost_milli, refunded_milli=0, progress_ppm=0, attempt=0,
        error_code=None, error_message=None, assets=None, engine_ms=None,
        created_ms=now, started_ms=None, completed_ms=None, expires_ms=now + retention_s * 1000,
    )  # fmt: skip
    if idempotency_key is not None:
        earlier = _earlier(tx, job, key=idempotency_key, request_hash=order.request_hash())
        if earlier is not None:
            return earlier
    store.insert(tx, job)
    for name, data in (inputs or {}).items():
        store.insert_input(tx, job.id, name=name, data=data)
    balance = ledger.charge(tx, account_id=job.account_id, key_id=job.key_id, job_id=job.id, cost_milli=job.cost_milli)
    tx.wake(CHANNEL)
    return Receipt(job, balance, replayed=False)


def _earlier(tx: Tx, job: Job, *, key: str, request_hash: str) -> Receipt | None:
    """The receipt of the job that took the key first; None when `job` has just taken it."""
    oldest = job.created_ms - IDEMPOTENCY_MS
    store.drop_idempotency(tx, before_ms=oldest, account_id=job.account_id, key=key)
    # Taken before the job is made: of two submits at once, PostgreSQL lets the second wait here for the first.
    if store.take_idempotency(
        tx, job.account_id, key=key, request_hash=request_hash, job_id=job.id, now_ms=job.created_ms
    ):
        return None
    first = store.idempotency(tx, job.account_id, key=key)
    earlier = store.get(tx, first[1]) if first else None
    if first is None or earlier is None:
        raise errors.SubmissionFailed()
    if first[0] != request_hash:
        raise errors.ValidationError.at(
            "Idempotency-Key",
            "was used within the last 24 hours for another request; use a new key for a new job",
        )
    return Receipt(earlier, ledger.balance(tx, account_id=job.account_id), replayed=True)


def get(tx: Tx, *, caller: Caller, job_id: str) -> Job:
    """One of the caller's jobs. Raises `NotFound` for anybody else's, `Expired` once its time is over."""
    job = store.get(tx, job_id) if "\0" not in job_id else None  # PostgreSQL refuses such a parameter
    if job is None or job.account_id != caller.account_id:
        raise errors.NotFound(f"There is no job {job_id[:80]!r} in your account.")
    if job.completed_ms is not None and job.expires_ms <= clock.now_ms():
        raise errors.Expired(f"The job expired at {clock.rfc3339(job.expires_ms)} and its files were removed.")
    return job


def list_jobs(
    tx: Tx, *, caller: Caller, limit: int, before: str | None = None, equal: Mapping[str, str] | None = None
) -> tuple[list[Job], str | None]:
    """The caller's jobs, newest first, and the id to pass as `before` for the next page (None at the end)."""
    found = store.page(tx, caller.account_id, before=before, limit=limit + 1, equal=equal or {})
    more = len(found) > limit
    return found[:limit], found[limit - 1].id if more else None


def claim(tx: Tx, *, free: Mapping[str, int], lease_s: float) -> tuple[str, list[Job]]:
    """Take up to `free[model]` pending jobs of each model: the lease, and the jobs it holds."""
    now = clock.now_ms()
    lease = ids.new("lease")
    until = now + int(lease_s * 1000)
    jobs: list[Job] = []
    for model, limit in free.items():
        jobs += store.claim(tx, model, limit=limit, lease=lease, until_ms=until, now_ms=now)
    return lease, sorted(jobs)


def inputs(tx: Tx, *, job_id: str) -> dict[str, bytes]:
    """The input pictures that came inside the request, by parameter."""
    return store.inputs(tx, job_id)


def heartbeat(tx: Tx, *, held: Mapping[str, tuple[str, float]], lease_s: float) -> set[str]:
    """Keep `held` (job id → lease and progress 0 … 1) for another `lease_s`; the ids whose lease is lost."""
    until = clock.now_ms() + int(lease_s * 1000)
    return {
        job_id
        for job_id, (lease, progress) in held.items()
        if not store.keep(tx, job_id, lease=lease, until_ms=until, progress_ppm=int(progress * 1_000_000))
    }


def finish(tx: Tx, *, job_id: str, lease: str, assets: str, engine_s: float, retention_s: int) -> Job | None:
    """The job is done: `assets` is the JSON list of its files. None when the lease is lost: drop the result."""
    now = clock.now_ms()
    job = store.complete(
        tx,
        job_id,
        lease=lease,
        assets=assets,
        engine_ms=round(engine_s * 1000),
        now_ms=now,
        expires_ms=now + retention_s * 1000,
    )
    if job is not None:
        store.drop_inputs(tx, job_id)
    return job


def fail(tx: Tx, *, job_id: str, lease: str | None, code: str, message: str, retention_s: int) -> Job | None:
    """The job can't be done: fail it and refund it whole. None when somebody else moved it first.

    With a lease it must be processing under that lease; without one it must still be pending.
    """
    now = clock.now_ms()
    job = store.fail(
        tx, job_id, lease=lease, code=code, message=message, now_ms=now, expires_ms=now + retention_s * 1000
    )
    if job is not None:
        store.drop_inputs(tx, job_id)
        ledger.refund(tx, account_id=job.account_id, key_id=job.key_id, job_id=job.id, cost_milli=job.cost_milli)
    return job


def retry(
    tx: Tx,
    *,
    job_id: str,
    lease: str,
    attempt: int,
    code: str,
    message: str,
    max_attempts: int,
    retention_s: int,
) -> bool:
    """This attempt came to nothing: another one soon, or fail and refund when it was the last. False if lost."""
    if attempt >= max_attempts:
        tries = f"{attempt} attempts" if attempt > 1 else "1 attempt"
        text = f"{message} (after {tries})"
        return fail(tx, job_id=job_id, lease=lease, code=code, message=text, retention_s=retention_s) is not None
    wait_ms = _RETRY_MS[min(attempt, len(_RETRY_MS)) - 1]
    # A wait of zero is written as zero: such a job is ready whatever the clock does next.
    ready_ms = clock.now_ms() + wait_ms if wait_ms else 0
    moved = store.release(tx, job_id, lease=lease, ready_ms=ready_ms, attempt_change=0)
    tx.wake(CHANNEL)
    return moved


def release(tx: Tx, *, job_id: str, lease: str) -> bool:
    """Hand a job back unworked, without counting the attempt: the worker is stopping."""
    moved = store.release(tx, job_id, lease=lease, ready_ms=0, attempt_change=-1)
    tx.wake(CHANNEL)
    return moved


def rescue_stale(tx: Tx, *, max_attempts: int, retention_s: int, limit: int = 100) -> int:
    """Take jobs away from workers that have gone silent and let others try; how many there were."""
    found = store.stale(tx, now_ms=clock.now_ms(), limit=limit)
    for job_id, lease, attempt in found:
        retry(
            tx,
            job_id=job_id,
            lease=lease,
            attempt=attempt,
            code="worker_lost",
            message="The worker that ran the job stopped answering",
            max_attempts=max_attempts,
            retention_s=retention_s,
        )
    return len(found)


def overdue(tx: Tx, *, limit: int = 100) -> list[Job]:
    """Finished jobs whose time is over and whose files are still to be removed."""
    return store.overdue(tx, now_ms=clock.now_ms(), limit=limit)


def mark_swept(tx: Tx, *, job_id: str) -> None:
    """The files of this finished job are gone."""
    store.mark_swept(tx, job_id, now_ms=clock.now_ms())


def expire_pending(tx: Tx, *, retention_s: int, limit: int = 100) -> int:
    """Fail and refund jobs that waited until they expired; how many there were."""
    found = store.never_begun(tx, now_ms=clock.now_ms(), limit=limit)
    text = "The job waited until it expired and was not begun"
    for job_id in found:
        fail(tx, job_id=job_id, lease=None, code="expired", message=text, retention_s=retention_s)
    return len(found)


def forget_idempotency(tx: Tx) -> int:
    """Drop idempotency keys older than 24 hours."""
    return store.drop_idempotency(tx, before_ms=clock.now_ms() - IDEMPOTENCY_MS)
