"""The rules of jobs: submit, get, list, claim, finish, fail, retry, release, rescue, expire.

Each function is one step inside one transaction. Execution is at least once; effects are exactly once:
a job is charged where its row is made and refunded where it fails, in the same transaction.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from pixeldojo import clock, errors, ids, money
from pixeldojo.accounts.service import Caller
from pixeldojo.catalogue.service import Order
from pixeldojo.db import Tx
from pixeldojo.jobs import hooks, news, queue, store
from pixeldojo.jobs.queue import claim as claim
from pixeldojo.jobs.store import Job as Job
from pixeldojo.jobs.store import Preview as Preview
from pixeldojo.jobs.view import Receipt as Receipt
from pixeldojo.jobs.view import Seen as Seen
from pixeldojo.ledger import service as ledger
from pixeldojo.webhooks import service as webhooks
from pixeldojo.webhooks.service import Attempt, Delivery

IDEMPOTENCY_MS = 24 * 3600 * 1000
_RETRY_MS = (0, 1_000, 5_000)  # a crash is usually the job's or a moment's fault: soon again, then a little later


@dataclass(frozen=True, slots=True)
class Limits:
    """Times a caller may set for a job, in seconds from its submission; None: no limit."""

    start_within_s: float | None = None  # pending for longer: failed and refunded
    cancel_after_s: float | None = None  # not ended by then: cancelled and refunded


NO_LIMITS = Limits()
_CANCELLED = "The job was cancelled"


def submit(
    tx: Tx,
    *,
    caller: Caller,
    order: Order,
    retention_s: int,
    inputs: Mapping[str, bytes] | None = None,
    idempotency_key: str | None = None,
    limits: Limits = NO_LIMITS,
    base_url: str | None = None,
) -> Receipt:
    """Charge the caller and queue the job, both or neither.

    `inputs` are pictures that came inside the request, by parameter. The same idempotency key with the same
    request within 24 hours gives the same job and no second charge; with another request, `ValidationError`.
    `base_url` is the service's address for the URLs that the job's webhook will carry.
    Raises `InsufficientCredits`, and `ValidationError` for a model outside the key's allow-list.
    """
    card = order.card
    _check_allowed(caller, order)
    now = clock.now_ms()
    job = Job(
        id=ids.new("job"), account_id=caller.account_id, key_id=caller.key_id,
        model=card.api_id, modality=card.modality, status="pending",
        input=msgspec.json.encode(order.params).decode(), webhook_url=order.webhook_url,
        cost_milli=order.cost_milli, refunded_milli=0, progress_ppm=0, attempt=0,
        error_code=None, error_message=None, assets=None, engine_ms=None,
        created_ms=now, started_ms=None, completed_ms=None, expires_ms=now + retention_s * 1000,
        metadata=msgspec.json.encode(order.metadata).decode() if order.metadata else None, rank=-order.priority,
        start_by_ms=_after(now, limits.start_within_s), deadline_ms=_after(now, limits.cancel_after_s),
        webhook_events=msgspec.json.encode(order.webhook_events).decode() if order.webhook_events is not None else None,
        base_url=base_url if order.webhook_url else None,
    )  # fmt: skip
    if idempotency_key is not None:
        earlier = _earlier(tx, job, key=idempotency_key, request_hash=order.request_hash())
        if earlier is not None:
            return earlier
    store.insert(tx, job)
    for name, data in (inputs or {}).items():
        store.insert_input(tx, job.id, name=name, data=data)
    for name, value in (order.metadata or {}).items():
        store.insert_metadata(tx, job.account_id, job.id, name=name, value=metadata_text(value))
    balance = ledger.charge(
        tx, account_id=job.account_id, key_id=job.key_id, job_id=job.id, model=job.model, cost_milli=job.cost_milli
    )
    tx.wake(news.PENDING)
    return Receipt(job, balance, replayed=False)


def _check_allowed(caller: Caller, order: Order) -> None:
    if not caller.may_run(order.card.api_id):
        allowed = ", ".join(caller.models or ()) or "none"
        text = f"this API key may not run {order.card.api_id}; it may run {allowed}"
        raise errors.ValidationError.at("model", text)


def _after(now_ms: int, seconds: float | None) -> int | None:
    return None if seconds is None else now_ms + int(seconds * 1000)


def metadata_text(value: object) -> str:
    """A metadata value as filters compare it: text as it is, numbers and booleans as JSON writes them."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


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
    if job.expired(now_ms=clock.now_ms()):
        raise errors.Expired(f"The job expired at {clock.rfc3339(job.expires_ms)} and its files were removed.")
    return job


def webhook(tx: Tx, *, caller: Caller, job_id: str) -> tuple[Job, list[tuple[Delivery, list[Attempt]]]]:
    """One of the caller's jobs, and all that was sent to its webhook. Raises `NotFound` where it has none."""
    job = get(tx, caller=caller, job_id=job_id)
    if job.webhook_url is None:
        raise errors.NotFound(f"The job {job_id} has no webhook: give `webhook_url` when you submit one.")
    return job, webhooks.inspect(tx, job_id=job_id)


def replay(tx: Tx, *, caller: Caller, job_id: str) -> tuple[Job, Delivery]:
    """Send the end of one of the caller's jobs to its webhook once more: the same bytes, the same id.

    Raises `NotFound` where the job has no webhook, `ValidationError` where it has not ended.
    """
    job, _ = webhook(tx, caller=caller, job_id=job_id)
    delivery = webhooks.replay(tx, job_id=job_id) if job.completed_ms is not None else None
    if delivery is None:
        raise errors.ValidationError.at("jobId", f"the job is {job.status}; its webhook is called when it has ended")
    return job, delivery


def webhook_states(tx: Tx, *, found: Iterable[Job]) -> dict[str, Delivery]:
    """How far the end of each of these jobs got on its way to the job's webhook, by job id."""
    return webhooks.states(tx, job_ids=[job.id for job in found if job.webhook_url is not None and job.completed_ms])


def get_seen(tx: Tx, *, caller: Caller, job_id: str, outlook: queue.Outlook) -> tuple[Job, Seen]:
    """The same with its place in the queue, while it is pending, and its webhook's state, if it has one."""
    job = get(tx, caller=caller, job_id=job_id)
    delivery = webhook_states(tx, found=[job]).get(job.id) if job.webhook_url else None
    if job.status != "pending":
        return job, Seen(delivery=delivery)
    place = outlook.place(tx, job)
    return job, Seen(place, outlook.eta_s(tx, model=job.model, place=place), delivery)


def look(tx: Tx, *, job_id: str) -> Job | None:
    """The job as it is now, for somebody who was shown it before."""
    return store.get(tx, job_id)


def watch(tx: Tx, *, job_id: str, after: int) -> tuple[Job | None, Preview | None]:
    """The job as it is now and, while it is being worked on, its preview where that is newer than number `after`."""
    job = store.get(tx, job_id)
    working = job is not None and job.status == "processing"
    return job, store.preview(tx, job_id, after=after) if working else None


def estimate(tx: Tx, *, caller: Caller, order: Order, outlook: queue.Outlook) -> dict[str, Any]:
    """What this order would cost and how long it would take from now, without placing it."""
    _check_allowed(caller, order)
    model = order.card.api_id
    balance = ledger.balance(tx, account_id=caller.account_id)
    place = outlook.place_of_next(tx, model=model, account_id=caller.account_id)
    return {
        "apiId": model,
        "creditCost": money.to_credits(order.cost_milli),
        "creditsRemaining": money.to_credits(balance),
        "affordable": order.cost_milli <= balance,
        "queuePosition": place,
        "etaSeconds": outlook.eta_s(tx, model=model, place=place),
    }


def list_jobs(
    tx: Tx,
    *,
    caller: Caller,
    limit: int,
    before: str | None = None,
    since: str | None = None,
    equal: Mapping[str, str] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> tuple[list[Job], str | None]:
    """The caller's jobs, newest first, and the id to pass as `before` for the next page (None at the end)."""
    found = store.page(
        tx,
        caller.account_id,
        limit=limit + 1,
        before=before,
        since=since,
        equal=equal or {},
        metadata=metadata or {},
    )
    more = len(found) > limit
    return found[:limit], found[limit - 1].id if more else None


def cancel(tx: Tx, *, caller: Caller, job_id: str, retention_s: int) -> tuple[str, Job]:
    """Stop one of the caller's jobs: (`cancelled` | `cancelling` | `too_late`, the job).

    A pending job ends here and now, refunded. One that is being worked on is marked; its worker ends it within
    about a second, and it can't complete any more.
    """
    job = get(tx, caller=caller, job_id=job_id)
    failed = fail(tx, job_id=job_id, lease=None, code="cancelled", message=_CANCELLED, retention_s=retention_s)
    if failed is not None:
        return "cancelled", failed
    if store.ask_cancel(tx, job_id, now_ms=clock.now_ms()):
        tx.wake(news.CANCELS)
        return "cancelling", job
    return "too_late", store.get(tx, job_id) or job


def discard(tx: Tx, *, caller: Caller, job_id: str) -> Job:
    """Let one of the caller's ended jobs expire at once. Raises `ValidationError` when it has not ended."""
    job = get(tx, caller=caller, job_id=job_id)
    if not store.expire_now(tx, job_id, now_ms=clock.now_ms()):
        raise errors.ValidationError.at("jobId", f"the job is {job.status}; cancel it first")
    return job


def inputs(tx: Tx, *, job_id: str) -> dict[str, bytes]:
    """The input pictures that came inside the request, by parameter."""
    return store.inputs(tx, job_id)


class Beat(NamedTuple):
    """What a worker tells of a job it holds: `preview` is a new one, as (content type, encoded picture)."""

    lease: str
    progress: float  # 0 to 1
    preview: tuple[str, bytes] | None = None


def heartbeat(tx: Tx, *, held: Mapping[str, Beat], lease_s: float) -> tuple[set[str], set[str]]:
    """Keep `held` (by job id) for another `lease_s`.

    Returns the ids whose lease is lost, and those whose job is to be cancelled.
    """
    until = clock.now_ms() + int(lease_s * 1000)
    lost, cancelled = set(), set()
    for job_id, beat in held.items():
        ppm = int(beat.progress * 1_000_000)
        kept, stop = store.keep(tx, job_id, lease=beat.lease, until_ms=until, progress_ppm=ppm)
        if not kept:
            lost.add(job_id)
        elif stop:
            cancelled.add(job_id)
        elif beat.preview is not None:
            store.put_preview(tx, job_id, *beat.preview)
        tx.wake(news.of_job(job_id))
    hooks.progressed(tx, [job_id for job_id, beat in held.items() if beat.progress and job_id not in lost])
    return lost, cancelled


def _tell_end(tx: Tx, job_id: str) -> None:
    tx.wake(news.of_job(job_id))
    tx.wake(news.of_end(job_id))


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
        store.drop_preview(tx, job_id)
        _tell_end(tx, job_id)
        hooks.ended(tx, job)
        return job
    # Still under this lease, it is only refused because it is to be cancelled.
    fail(tx, job_id=job_id, lease=lease, code="cancelled", message=_CANCELLED, retention_s=retention_s)
    return None


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
        store.drop_preview(tx, job_id)
        _tell_end(tx, job_id)
        ledger.refund(
            tx, account_id=job.account_id, key_id=job.key_id, job_id=job.id, model=job.model, cost_milli=job.cost_milli
        )
        hooks.ended(tx, job)
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
    """This attempt came to nothing: another one soon, or fail and refund when it was the last. False if lost.

    A job that is to be cancelled gets no other attempt.
    """
    if _cancel_if_asked(tx, job_id=job_id, lease=lease, retention_s=retention_s):
        return True
    if attempt >= max_attempts:
        tries = f"{attempt} attempts" if attempt > 1 else "1 attempt"
        text = f"{message} (after {tries})"
        return fail(tx, job_id=job_id, lease=lease, code=code, message=text, retention_s=retention_s) is not None
    wait_ms = _RETRY_MS[min(attempt, len(_RETRY_MS)) - 1]
    # A wait of zero is written as zero: such a job is ready whatever the clock does next.
    ready_ms = clock.now_ms() + wait_ms if wait_ms else 0
    moved = store.release(tx, job_id, lease=lease, ready_ms=ready_ms, attempt_change=0)
    tx.wake(news.PENDING)
    tx.wake(news.of_job(job_id))
    return moved


def _cancel_if_asked(tx: Tx, *, job_id: str, lease: str, retention_s: int) -> bool:
    """End a job under this lease that is to be cancelled. False for any other."""
    job = store.get(tx, job_id)
    if job is None or job.cancel_ms is None:
        return False
    ended = fail(tx, job_id=job_id, lease=lease, code="cancelled", message=_CANCELLED, retention_s=retention_s)
    return ended is not None


def release(tx: Tx, *, job_id: str, lease: str, retention_s: int) -> bool:
    """Hand a job back unworked, without counting the attempt: the worker is stopping."""
    if _cancel_if_asked(tx, job_id=job_id, lease=lease, retention_s=retention_s):
        return True
    moved = store.release(tx, job_id, lease=lease, ready_ms=0, attempt_change=-1)
    tx.wake(news.PENDING)
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


def mark_swept(tx: Tx, *, job_id: str, keep_input: bool = False) -> None:
    """The files of this finished job are gone, and with them, unless they are to be kept, what they were made from."""
    store.mark_swept(tx, job_id, keep_input=keep_input, now_ms=clock.now_ms())
    if not keep_input:
        webhooks.forget_payloads(tx, job_id=job_id)


def expire_pending(tx: Tx, *, retention_s: int, limit: int = 100) -> int:
    """Fail and refund jobs that waited until they expired; how many there were."""
    found = store.never_begun(tx, now_ms=clock.now_ms(), limit=limit)
    text = "The job waited until it expired and was not begun"
    for job_id in found:
        fail(tx, job_id=job_id, lease=None, code="expired", message=text, retention_s=retention_s)
    return len(found)


def enforce_limits(tx: Tx, *, retention_s: int, limit: int = 100) -> int:
    """End jobs that passed the limits their callers set; how many there were."""
    late = store.late(tx, now_ms=clock.now_ms(), limit=limit)
    for job_id, deadline in late:
        code, text = ("cancelled", "The job passed its Cancel-After limit") if deadline else (
            "not_started", "The job was not begun within its Start-Within limit"
        )  # fmt: skip
        if fail(tx, job_id=job_id, lease=None, code=code, message=text, retention_s=retention_s) is None:
            store.ask_cancel(tx, job_id, now_ms=clock.now_ms())
            tx.wake(news.CANCELS)
    return len(late)


def forget(tx: Tx, *, kept_s: int, limit: int = 100) -> int:
    """Delete jobs whose files went more than `kept_s` ago; the ledger keeps their entries. How many there were.

    None goes within 24 hours: until then its idempotency key must still find it.
    """
    kept_ms = max(kept_s * 1000, IDEMPOTENCY_MS)
    found = store.forgettable(tx, before_ms=clock.now_ms() - kept_ms, limit=limit)
    for job_id in found:
        store.delete(tx, job_id)
    return len(found)


def forget_idempotency(tx: Tx) -> int:
    """Drop idempotency keys older than 24 hours."""
    return store.drop_idempotency(tx, before_ms=clock.now_ms() - IDEMPOTENCY_MS)
