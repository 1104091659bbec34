"""What leaves the hall: a job as clients, webhooks and the command line see it."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from pixeldojo import clock, money
from pixeldojo.assets.signing import Signer
from pixeldojo.jobs.store import Job
from pixeldojo.webhooks import view as webhooks
from pixeldojo.webhooks.service import Delivery


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a submit returns. `replayed` tells that an earlier submit with this idempotency key made the job."""

    job: Job
    balance_milli: int
    replayed: bool


class Seen(NamedTuple):
    """What a job's row does not say: its place in the queue, the seconds until it has probably ended, its webhook."""

    place: int | None = None
    eta_s: float | None = None
    delivery: Delivery | None = None


_NOTHING_SEEN = Seen()


class View:
    """Renders jobs with URLs under `base_url` (scheme, host and port, no slash at the end)."""

    def __init__(self, *, signer: Signer, base_url: str) -> None:
        self._signer = signer
        self._base_url = base_url

    def receipt(self, receipt: Receipt) -> dict[str, Any]:
        """The answer to a submit."""
        job = receipt.job
        return {
            "jobId": job.id,
            "status": job.status,
            "statusUrl": f"{self._base_url}/api/v1/jobs/{job.id}",
            "creditCost": money.to_credits(job.cost_milli),
            "creditsRemaining": money.to_credits(receipt.balance_milli),
            "expiresAt": clock.rfc3339(job.expires_ms),
        }

    def job(self, job: Job, seen: Seen = _NOTHING_SEEN) -> dict[str, Any]:
        """The whole job: what is known in its state, and nothing else."""
        shown: dict[str, Any] = {
            "jobId": job.id,
            "status": job.status,
            "model": job.model,
            "modality": job.modality,
            "input": msgspec.Raw(job.input.encode()),
            "creditCost": money.to_credits(job.cost_milli),
            "createdAt": clock.rfc3339(job.created_ms),
            "startedAt": None if job.started_ms is None else clock.rfc3339(job.started_ms),
            "completedAt": None if job.completed_ms is None else clock.rfc3339(job.completed_ms),
            "expiresAt": clock.rfc3339(job.expires_ms),
        }
        if job.metadata is not None:
            shown["metadata"] = msgspec.Raw(job.metadata.encode())
        if job.status == "pending" and seen.place is not None:
            shown["queuePosition"] = seen.place
            shown["etaSeconds"] = seen.eta_s
        elif job.status == "processing":
            shown["progress"] = job.progress_ppm / 1_000_000
        elif job.status == "completed":
            shown |= self._results(job)
            shown["metrics"] = {"engineSeconds": (job.engine_ms or 0) / 1000}
        elif job.status == "failed":
            shown["error"] = {"code": job.error_code, "message": job.error_message}
            shown["creditsRefunded"] = money.to_credits(job.refunded_milli)
        if job.webhook_url is not None:
            shown["webhook"] = webhooks.state(job.webhook_url, seen.delivery)
        return shown

    def listed(self, job: Job, seen: Seen = _NOTHING_SEEN) -> dict[str, Any]:
        """The job in a list, where it stays for longer than its files live: expired ones show no results."""
        shown = self.job(job, seen)
        if job.status == "completed" and job.expired(now_ms=clock.now_ms()):
            for name in ("output", "assets", "metrics"):
                del shown[name]
            shown["expired"] = True
        return shown

    def _results(self, job: Job) -> dict[str, Any]:
        assets = msgspec.json.decode(job.assets or "[]")
        for asset in assets:
            path = self._signer.url_path(asset.pop("key"), expires_ms=job.expires_ms)
            asset["url"] = self._base_url + path
        urls = [asset["url"] for asset in assets]
        kind = "video" if job.modality == "video" else "image"
        output = {f"{kind}s": urls, kind: urls[0] if urls else None}
        return {"output": output, "assets": [{"url": a.pop("url"), **a} for a in assets]}
