"""Every verb of the clients, as an operation: what is asked and in what order, with no IO.

Options and arguments come in, effects go out. The clients turn each operation into a method.
"""

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import partial
from os import PathLike
from typing import Literal
from urllib.parse import urljoin, urlsplit

from pixeldojo_sdk import _decode, _files, _sse, errors
from pixeldojo_sdk import _requests as requests
from pixeldojo_sdk._account import AccountOperations
from pixeldojo_sdk._effects import Block, Call, Close, Emit, Items, Operation, Read, Sleep, Steps, Stream, within
from pixeldojo_sdk._requests import Ask, Options
from pixeldojo_sdk.types import (
    Asset,
    Cancellation,
    Estimate,
    Job,
    JobEvent,
    JobList,
    JSONObject,
    ModelDetail,
    ModelList,
    ModelSchema,
    Progress,
    Receipt,
    Removal,
    Webhook,
    WebhookReplay,
)

_MOST_RECONNECT_WAIT = 30.0
_SILENCE = 60.0

Listener = Callable[[Progress], object]
Follow = Literal["poll", "events"]


@contextlib.contextmanager
def _naming(*, job_id: str | None = None, idempotency_key: str | None = None) -> Iterator[None]:
    """Errors tell which job or key they are about."""
    try:
        yield
    except errors.PixelDojoError as error:
        error.job_id = error.job_id or job_id
        error.idempotency_key = error.idempotency_key or idempotency_key
        raise


def _input(value: Mapping[str, object]) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise TypeError(f"input must be a mapping of parameters, not {type(value).__name__}")
    return dict(value)


def _check_follow(given: str) -> None:
    if given not in ("poll", "events"):
        raise ValueError(f'follow must be "poll" or "events", not {given!r}')


def _key(given: str | None) -> str:
    if given is None:
        return f"py_{secrets.token_hex(16)}"
    if not (given.strip() and given.isascii() and given.isprintable() and len(given) <= 255):
        raise ValueError("idempotency_key must be 1 to 255 printable ASCII characters")
    return given


class Operations(AccountOperations):
    """The verbs."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def list_models(
        self, *, modality: Literal["image", "video"] | None = None, detailed: bool | None = None,
        timeout: float | None = None,
    ) -> Operation[ModelList]:  # fmt: skip
        """The models that can run now; `detailed` adds each one's `request_schema`. Needs no key."""
        query = {"modality": modality, "detailed": detailed}
        return (yield from requests.fetch(Ask(path="/models", query=query, timeout=timeout), self.options, ModelList))

    def get_model(self, api_id: str, *, timeout: float | None = None) -> Operation[ModelDetail]:
        """A model with its request schema, examples, limits and price. Needs no key."""
        ask = Ask(path=f"/models/{requests.segment(api_id, 'api_id')}", timeout=timeout)
        return (yield from requests.fetch(ask, self.options, ModelDetail))

    def get_model_schema(self, api_id: str, *, timeout: float | None = None) -> Operation[ModelSchema]:
        """The JSON Schema of a model's input. Needs no key."""
        ask = Ask(path=f"/models/{requests.segment(api_id, 'api_id')}/schema", timeout=timeout)
        return (yield from requests.fetch(ask, self.options, ModelSchema))

    def estimate(
        self, api_id: str, input: Mapping[str, object], *, timeout: float | None = None
    ) -> Operation[Estimate]:
        """What a job would cost and how long it would wait. Checks the input as `run` does; nothing runs."""
        path = f"/models/{requests.segment(api_id, 'api_id')}/estimate"
        ask = Ask(method="POST", path=path, json=_input(input), timeout=timeout)
        return (yield from requests.fetch(ask, self.options, Estimate))

    def run(
        self, api_id: str, input: Mapping[str, object], *, idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> Operation[Receipt]:  # fmt: skip
        """Submit a job. It is charged and queued, and runs by itself: `wait_for_job` waits for it.

        All attempts go under one idempotency key, so that at most one job is made and charged. `idempotency_key` is
        any text, new for each new job; the same one with the same input within 24 hours is the same job.
        """
        path = f"/models/{requests.segment(api_id, 'api_id')}/run"
        key = _key(idempotency_key)
        headers = {"idempotency-key": key}
        ask = Ask(method="POST", path=path, json=_input(input), headers=headers, timeout=timeout)
        with _naming(idempotency_key=key):
            return (yield from requests.fetch(ask, self.options, Receipt))

    def generate(
        self, api_id: str, input: Mapping[str, object], *, idempotency_key: str | None = None,
        timeout: float | None = 600, on_progress: Listener | None = None, follow: Follow = "poll",
        outage: float = 30,
    ) -> Operation[Job]:  # fmt: skip
        """Submit a job and wait until it is completed.

        `timeout` limits all the waiting (None: no limit). `on_progress` is called whenever the status or the
        progress changes. `follow="events"` listens instead of polling. `outage` is for how many seconds the service
        may be out of reach while the job runs. Raises `JobFailedError` when the job fails, `TimeoutError` when it
        takes too long; errors after the submit carry its `job_id`, and the job goes on.
        """
        _check_follow(follow)
        key = _key(idempotency_key)
        receipt: Receipt | None = None

        def work() -> Operation[Job]:
            nonlocal receipt
            receipt = yield from self.run(api_id, input, idempotency_key=key)
            submitted = receipt.status not in ("completed", "failed")  # else it was submitted before
            return (yield from self._follow(receipt.job_id, on_progress, follow, outage, submitted=submitted))

        def late() -> str:
            return f"{receipt.job_id + ' did not end' if receipt else 'the job was not submitted'} within {timeout:g} s"

        try:
            with _naming(idempotency_key=key):
                return (yield from within(work(), timeout, late))
        except errors.PixelDojoError as error:
            error.job_id = error.job_id or (receipt.job_id if receipt else None)
            raise

    def wait_for_job(
        self, job_id: str, *, timeout: float | None = 600, on_progress: Listener | None = None,
        follow: Follow = "poll", outage: float = 30,
    ) -> Operation[Job]:  # fmt: skip
        """Wait until a job is completed, as `generate` does."""
        _check_follow(follow)
        work = self._follow(job_id, on_progress, follow, outage, submitted=False)
        with _naming(job_id=job_id):
            return (yield from within(work, timeout, lambda: f"{job_id} did not end within {timeout:g} s"))

    def get_job(self, job_id: str, *, timeout: float | None = None) -> Operation[Job]:
        """A job in the state it is in."""
        ask = Ask(path=f"/jobs/{requests.segment(job_id, 'job_id')}", timeout=timeout)
        return (yield from requests.fetch(ask, self.options, Job, _check))

    def list_jobs(
        self, *, limit: int | None = None, cursor: str | None = None, status: str | None = None,
        model: str | None = None, key: str | None = None, metadata: Mapping[str, object] | None = None,
        created_after: datetime | str | None = None, created_before: datetime | str | None = None,
        timeout: float | None = None,
    ) -> Operation[JobList]:  # fmt: skip
        """A page of the account's jobs, newest first. `limit` is from 1 to 100, by default 20.

        `key` is the id of the API key they were submitted with; `metadata` what all of them carry; times are aware
        datetimes, or texts with their zone.
        """
        query = {
            "limit": limit, "cursor": cursor, "status": status, "model": model, "key": key,
            "createdAfter": requests.time_text(created_after), "createdBefore": requests.time_text(created_before),
        } | {f"metadata.{name}": value for name, value in (metadata or {}).items()}  # fmt: skip
        ask = Ask(path="/jobs", query=query, timeout=timeout)
        return (yield from requests.fetch(ask, self.options, JobList, _check_all))

    def iter_jobs(
        self, *, limit: int | None = None, cursor: str | None = None, status: str | None = None,
        model: str | None = None, key: str | None = None, metadata: Mapping[str, object] | None = None,
        created_after: datetime | str | None = None, created_before: datetime | str | None = None,
        timeout: float | None = None,
    ) -> Items[Job]:  # fmt: skip
        """All the account's jobs, newest first, page by page; `limit` is the size of a page."""
        seen: set[str] = set()
        while True:
            page = yield from self.list_jobs(
                limit=limit, cursor=cursor, status=status, model=model, key=key, metadata=metadata,
                created_after=created_after, created_before=created_before, timeout=timeout,
            )  # fmt: skip
            for job in page.jobs:
                yield Emit(job)
            cursor = page.next_cursor
            if cursor is None:
                return
            if cursor in seen:
                raise errors.InvalidResponseError("the list of jobs goes in circles: a cursor came twice")
            seen.add(cursor)

    def cancel(self, job_id: str, *, timeout: float | None = None) -> Operation[Cancellation]:
        """Cancel a job; its credits are refunded unless it is too late."""
        path = f"/jobs/{requests.segment(job_id, 'job_id')}/cancel"
        return (yield from requests.fetch(Ask(method="POST", path=path, timeout=timeout), self.options, Cancellation))

    def delete_job(self, job_id: str, *, timeout: float | None = None) -> Operation[Removal]:
        """Remove an ended job's files now, instead of when it expires. From then on the job is an `ExpiredError`."""
        path = f"/jobs/{requests.segment(job_id, 'job_id')}"
        ask = Ask(method="DELETE", path=path, retry="refused", timeout=timeout)
        return (yield from requests.fetch(ask, self.options, Removal))

    def get_webhook(self, job_id: str, *, timeout: float | None = None) -> Operation[Webhook]:
        """A job's webhook and its delivery attempts."""
        ask = Ask(path=f"/jobs/{requests.segment(job_id, 'job_id')}/webhook", timeout=timeout)
        return (yield from requests.fetch(ask, self.options, Webhook))

    def replay_webhook(self, job_id: str, *, timeout: float | None = None) -> Operation[WebhookReplay]:
        """Send the webhook of an ended job once more."""
        path = f"/jobs/{requests.segment(job_id, 'job_id')}/webhook"
        ask = Ask(method="POST", path=path, retry="refused", timeout=timeout)
        return (yield from requests.fetch(ask, self.options, WebhookReplay))

    def events(self, job_id: str, *, last_event_id: str = "", timeout: float = _SILENCE) -> Items[JobEvent]:
        """What happens to a job, until it ends. A connection that breaks is made again, and goes on where it ended.

        `timeout` is how many seconds the stream may be silent before it counts as broken; the service says
        something every 15 seconds.
        """
        path = f"/jobs/{requests.segment(job_id, 'job_id')}/events"
        last_id, reconnect, failures = last_event_id, 0.0, 0
        while True:
            parser, heard = _sse.Parser(last_id=last_id, retry=reconnect), False
            fault: errors.PixelDojoError = errors.ConnectionError(f"the events of {job_id} broke off")
            stream: Stream | None = None
            try:
                with _naming(job_id=job_id):
                    stream = yield from self._event_stream(path, last_id, timeout)
                    while (piece := (yield Read(stream, time.monotonic() + timeout))) is not None:
                        for event in _events(parser, piece, stream):
                            heard = True
                            yield Emit(event)
                            if event.type in ("completed", "failed"):
                                return
            except errors.PixelDojoError as error:
                if not requests.is_transient(error):
                    raise
                fault = error
            if stream is not None:
                yield Close(stream)
            last_id, reconnect = parser.last_id, min(parser.retry, _MOST_RECONNECT_WAIT)
            failures = 0 if heard else failures + 1
            wait = self.options.retry_base if heard else requests.backoff(fault, failures, self.options)
            if wait is None:
                fault.job_id = job_id
                raise fault
            yield Sleep(max(wait, reconnect))

    def _event_stream(self, path: str, last_id: str, pause: float) -> Operation[Stream]:
        headers = {"accept": "text/event-stream"} | ({"last-event-id": last_id} if last_id else {})
        stream = yield from requests.opened(Ask(path=path, headers=headers), self.options, pause)
        if not stream.headers.get("content-type", "").lower().startswith("text/event-stream"):
            yield Close(stream)
            raise requests.unreadable(f"{path} is not a stream of events", stream)
        return stream

    def download_asset(self, asset: Asset | str, *, timeout: float | None = None) -> Operation[bytes]:
        """The bytes of a result. The key is not sent; `timeout` is how long nothing may come."""
        body = bytearray()

        def keep(piece: bytes) -> Operation[None]:
            body.extend(piece)
            yield from ()

        def attempt() -> Operation[bytes]:
            body.clear()
            yield from self._download(asset, timeout, keep)
            return bytes(body)

        return (yield from requests.attempts(Ask(), self.options, attempt))

    def save_asset(
        self, asset: Asset | str, path: str | PathLike[str], *, timeout: float | None = None
    ) -> Operation[int]:
        """Save a result to a file, whole or not at all; folders on the way are made. Returns how many bytes it has."""

        def attempt() -> Operation[int]:
            part = _files.Part(path)
            try:
                yield Block(part.open)
                yield from self._download(asset, timeout, lambda piece: _block(part.write, piece))
                yield Block(part.finish)
            except BaseException:
                part.discard()
                raise
            return part.size

        return (yield from requests.attempts(Ask(), self.options, attempt))

    def _download(
        self, asset: Asset | str, timeout: float | None, each: Callable[[bytes], Operation[None]]
    ) -> Operation[None]:
        url = urljoin(self.options.root, asset if isinstance(asset, str) else asset.url)
        if urlsplit(url).scheme not in ("http", "https"):
            raise ValueError("an asset's URL begins with http:// or https://")
        pause = self.options.timeout if timeout is None else timeout
        ask = Ask(url=url, headers={"accept-encoding": "identity"}, timeout=timeout)
        stream = yield from requests.opened(ask, self.options, pause)
        try:
            while (piece := (yield Read(stream, time.monotonic() + pause))) is not None:
                yield from each(piece)
        except Exception:
            yield Close(stream)
            raise
        yield Close(stream)

    def _follow(
        self, job_id: str, listener: Listener | None, follow: Follow, outage: float, *, submitted: bool
    ) -> Operation[Job]:
        teller = _Teller(listener)
        if submitted:
            yield from teller.tell(Progress(job_id=job_id, status="pending"))
        interval = self.options.poll_interval
        if follow == "events":
            yield from self._tell_events(job_id, teller)
        elif submitted:
            yield Sleep(interval)
            interval = min(interval * 1.5, self.options.max_poll_interval)
        answered = time.monotonic()
        while True:
            wait = interval
            try:
                job = yield from self.get_job(job_id)
            except errors.PixelDojoError as error:
                if not requests.is_transient(error):
                    raise
                if isinstance(error, errors.RateLimitError):
                    answered = time.monotonic()
                elif time.monotonic() - answered >= outage:
                    raise
                if (error.retry_after or 0.0) > self.options.max_retry_after:
                    raise
                wait = max(wait, error.retry_after or 0.0)
            else:
                answered = time.monotonic()
                yield from teller.tell(_progress(job_id, job.raw))
                if job.status == "completed":
                    return job
                if job.status == "failed":
                    raise errors.JobFailedError.of(job)
            yield Sleep(wait)
            interval = min(interval * 1.5, self.options.max_poll_interval)

    def _tell_events(self, job_id: str, teller: "_Teller") -> Operation[None]:
        """Tell the progress that the events speak of, until they end. How the job ended is asked for afterwards."""
        steps = Steps(self.events(job_id))
        try:
            while (effect := steps.next()) is not None:
                if isinstance(effect, Emit):
                    yield from teller.tell_event(job_id, effect.item)
                    steps.give(None)
                    continue
                try:
                    steps.give((yield effect))
                except Exception as error:
                    steps.fail(error)
        except errors.PixelDojoError:
            return  # polling gets the job's end nevertheless, or a better reason
        finally:
            steps.close()


class _Teller:
    """Tells a listener what differs from what it was told last."""

    def __init__(self, listener: Listener | None) -> None:
        self._listener = listener
        self._last: Progress | None = None

    def tell(self, progress: Progress) -> Operation[None]:
        if self._listener is not None and progress != self._last:
            yield Call(partial(self._listener, progress))
        self._last = progress

    def tell_event(self, job_id: str, event: JobEvent) -> Operation[None]:
        progress = _progress(job_id, {"status": "processing"} | event.raw)
        if event.type in ("status", "progress") and progress.status in ("pending", "processing"):
            yield from self.tell(progress)


def _block(function: Callable[[bytes], object], piece: bytes) -> Operation[None]:
    yield Block(partial(function, piece))


def _events(parser: _sse.Parser, piece: bytes, stream: Stream) -> Iterator[JobEvent]:
    try:
        for message in parser.feed(piece):
            data = _decode.parse(message.data.encode())
            raw = data if isinstance(data, dict) else {}
            yield JobEvent(type=message.event, id=message.id, data=data, raw=raw)
    except (_decode.ShapeError, _sse.TooLong) as fault:
        raise requests.unreadable(f"an event of the job can't be read: {fault}", stream, piece) from None


def _progress(job_id: str, seen: JSONObject) -> Progress:
    def number(name: str) -> float | None:
        value = seen.get(name)
        return value if isinstance(value, int | float) else None

    status, place = str(seen.get("status")), number("queuePosition")
    return Progress(
        job_id=job_id,
        status=status,
        progress=1.0 if status == "completed" else float(number("progress") or 0),
        queue_position=None if place is None else int(place),
        eta_seconds=number("etaSeconds"),
    )


def _check_all(page: JobList) -> None:
    for job in page.jobs:
        _check(job)


def _check(job: Job) -> None:
    """What an ended job must have, that others need not."""
    if job.status == "completed" and not job.expired and not isinstance(job.raw.get("assets"), list):
        raise _decode.ShapeError("the job is completed and has no `assets`")
    if job.status == "failed" and job.error is None:
        raise _decode.ShapeError("the job has failed and has no `error`")
