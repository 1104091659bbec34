"""`/api/v1/jobs/{jobId}/events`: a job as Server-Sent Events, from its present state to its end."""

from base64 import b64encode
from collections.abc import AsyncIterator

import msgspec
from litestar import get
from litestar.params import FromPath
from litestar.response import Stream

from pixeldojo.accounts import service as accounts
from pixeldojo.api import waiting
from pixeldojo.api.respond import ApiRequest, header, view
from pixeldojo.house import House
from pixeldojo.jobs import news
from pixeldojo.jobs import service as jobs
from pixeldojo.jobs.view import View

_KEEP_ALIVE_S = 15.0  # proxies cut connections that stay silent for long


def _mark(job: jobs.Job) -> str:
    """An event's id: what of the job it told."""
    return f"{job.status}-{job.attempt}-{job.progress_ppm}"


def _event(name: str, job: jobs.Job, shown: View, seen: jobs.Seen) -> bytes:
    data = msgspec.json.encode(shown.job(job, seen))
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (_mark(job).encode(), name.encode(), data)


def _preview(job: jobs.Job, preview: jobs.Preview) -> bytes:
    picture = f"data:{preview.content_type};base64,{b64encode(preview.picture).decode()}"
    told = {"jobId": job.id, "progress": job.progress_ppm / 1_000_000, "picture": picture}
    return b"id: %s\nevent: preview\ndata: %s\n\n" % (_mark(job).encode(), msgspec.json.encode(told))


def _name(job: jobs.Job, before: str) -> str:
    if job.completed_ms is not None:
        return job.status
    return "progress" if before.startswith(f"{job.status}-{job.attempt}-") else "status"


async def _told(
    house: House, shown: View, watch: waiting.Watch, first: jobs.Job, seen: jobs.Seen, last_id: str
) -> AsyncIterator[bytes]:
    """The events of a job. `last_id` is the id of the last one that this client has had."""
    yield b"retry: 2000\n\n"
    told, job = last_id, first
    preview, previews = None, 0
    while True:
        if _mark(job) != told:
            yield _event(_name(job, told), job, shown, seen)
            told = _mark(job)
        if preview is not None:
            yield _preview(job, preview)
            previews = preview.number
        if job.completed_ms is not None:
            return
        while not await watch.next(timeout_s=_KEEP_ALIVE_S):
            yield b": still here\n\n"
        if house.leaving.now:
            return  # who wants more asks again, with the id of the last event
        current, preview = await house.db.read(jobs.watch, job_id=job.id, after=previews)
        if current is None:
            return
        job, seen = current, jobs.Seen()


@get("/api/v1/jobs/{job_id:str}/events")
async def job_events(request: ApiRequest, job_id: FromPath[str]) -> Stream:
    """Status, progress, previews and the end of a job, as they happen."""
    house: House = request.app.state.house
    authorization = header(request, b"authorization")
    watch = waiting.Watch(house, news.of_job(job_id))  # before the job is read: it may end in the next moment
    job, seen = await house.db.read(
        accounts.as_caller, authorization, jobs.get_seen, job_id=job_id, outlook=house.outlook
    )
    last_id = header(request, b"last-event-id") or ""
    return Stream(
        _told(house, view(request), watch, job, seen, last_id),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )
