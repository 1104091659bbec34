"""The shapes of webhooks in the OpenAPI document, the examples they are shown with, and the calls they make."""

from collections.abc import Mapping
from typing import get_args

import msgspec

from pixeldojo import clock
from pixeldojo.api.openapi_schemas import Schema, _count, _list, _object, _text, _time, ref
from pixeldojo.webhooks import view
from pixeldojo.webhooks.service import Attempt, Delivery

_URL = {"type": "string", "format": "uri"}
_EVENTS = ("start", "progress", "completed", "failed")
_TYPES = ("job.started", "job.progress", "job.completed", "job.failed")
_STATUS = _text(
    "`pending`: to be sent, now or later · `delivered`: answered with 2xx · `failed`: every attempt came to nothing · "
    "`gone`: answered with 410, which ends the attempts · `skipped`: an end that `webhook_events_filter` left out.",
    enum=list(get_args(view.Status)),
)
_ANSWERED = {
    "type": ["integer", "null"],
    "minimum": 100,
    "maximum": 999,
    "description": "The status the receiver answered with last; null where no answer came.",
}
_STATE: dict[str, Schema] = {
    "url": {**_URL, "description": "Where the job's events are sent."},
    "status": _STATUS,
    "attempts": _count("How often the end of the job was sent."),
    "lastAttemptAt": _time("When it was sent last. Null until it was.", absent=True),
    "lastResponseStatus": _ANSWERED,
    "nextAttemptAt": _time("When it will be sent next; null where it will not be.", absent=True),
}

SCHEMAS: dict[str, Schema] = {
    "Webhook": _object("The job's webhook, and how far the end of the job got on its way to it.", **_STATE),
    "WebhookInspection": _object(
        "A job's webhook with all that was sent to it.",
        **_STATE,
        events=_list("What the webhook hears of.", {"type": "string", "enum": list(_EVENTS)}),
        deliveries=_list("Each event that was to be sent, oldest first.", ref("Delivery")),
    ),
    "Delivery": _object(
        "One event on its way to a webhook. Its bytes and its id never change.",
        id=_text("The `webhook-id` it is sent with, at every attempt the same."),
        type=_text("The event.", enum=list(_TYPES)),
        status=_STATUS,
        createdAt=_time("When it happened."),
        nextAttemptAt=_STATE["nextAttemptAt"],
        attempts=_list("Every attempt, oldest first; of very many the latest.", ref("DeliveryAttempt")),
    ),
    "DeliveryAttempt": _object(
        "One attempt to deliver an event.",
        number=_count("Its number, from 1.", least=1),
        at=_time("When it began."),
        durationMs=_count("How long it took, in milliseconds."),
        responseStatus=_ANSWERED | {"description": "The answer's status; null where no answer came."},
        error={"type": ["string", "null"], "description": "Why it came to nothing; null where it was successful."},
        response={
            "type": ["string", "null"],
            "description": "The first 2 kB of the answer's body; null where no answer came.",
        },
    ),
    "Replay": _object(
        "The end of the job will be sent once more, now: the same bytes under the same id.",
        jobId=_text("The job's id."),
        webhookId=_text("The `webhook-id` it is sent with."),
        webhook=ref("Webhook"),
    ),
    "WebhookEvent": _object(
        "What a webhook is told. The bytes are frozen when it happens: every attempt and every replay sends the same.",
        type=_text("The event.", enum=list(_TYPES)),
        timestamp=_time("When it happened."),
        data=ref("Job"),
    ),
    "WebhookSecrets": _object(
        "The secrets that sign the webhooks of the account.",
        secret=_text("The current secret, in the form of the Standard Webhooks specification.", pattern="^whsec_"),
        secrets=_list(
            "Every secret that is valid: the current one and, for 24 hours after a rotation, the one before it. "
            "A webhook carries a signature by each.",
            ref("WebhookSecret"),
        ),
    ),
    "WebhookSecret": _object(
        "A secret that signs webhooks.",
        secret=_text("`whsec_` and base 64.", pattern="^whsec_"),
        createdAt=_time("When it was made."),
        expiresAt=_time("When it ends; null for the current one.", absent=True),
    ),
}

_AT_MS = 1_737_547_200_900
_DELIVERY = Delivery(
    id="msg_01948de2367c4f1c0d3e5b7a9c8d6e2f", job_id="job_01948de236004f1c0d3e5b7a9c8d6e2f", account_id="", line="",
    url="https://example.com/hook", type="job.completed", terminal=1, status="delivered", tries=2, attempts=2,
    next_ms=_AT_MS, last_ms=_AT_MS + 5_200, last_status=204, created_ms=_AT_MS, expires_ms=0,
)  # fmt: skip
_ATTEMPTS = [
    Attempt(_DELIVERY.id, 1, _AT_MS + 4, 31, 503, "the host answered with status 503", "try later"),
    Attempt(_DELIVERY.id, 2, _AT_MS + 5_200, 18, 204, None, ""),
]
_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - the specification's own example
INSPECTION = view.inspection(_DELIVERY.url, events=["completed", "failed"], found=[(_DELIVERY, _ATTEMPTS)])
REPLAY = {
    "jobId": _DELIVERY.job_id,
    "webhookId": _DELIVERY.id,
    "webhook": view.state(_DELIVERY.url, _DELIVERY._replace(status="due")),
}
SECRETS = view.secrets([(_SECRET, _AT_MS, None)])

_CALLS = {
    "job.completed": ("completed", "A job is completed", "Sent unless `webhook_events_filter` leaves it out."),
    "job.failed": ("failed", "A job has failed", "Sent unless `webhook_events_filter` leaves it out."),
    "job.started": ("processing", "Work on a job begins", "Only with `start` in `webhook_events_filter`. Tried once."),
    "job.progress": (
        "processing", "A job has come further",
        "Only with `progress` in `webhook_events_filter`, at most one in half a second. Tried once.",
    ),
}  # fmt: skip
_SIGNED = {
    "webhook-id": "The event's id: at every attempt the same, so it tells a repetition from a new event.",
    "webhook-timestamp": "When this attempt was made: seconds since 1970. Refuse what is older than five minutes.",
    "webhook-signature": "Signatures after the Standard Webhooks specification, with a space between: one for each "
    "valid secret of the account. One that fits is enough.",
}


def calls(jobs: Mapping[str, bytes]) -> Schema:
    """What this service asks of a webhook, by event; `jobs` are examples in JSON by their status."""
    parameters = [
        {"name": name, "in": "header", "required": True, "description": text, "schema": {"type": "string"}}
        for name, text in _SIGNED.items()
    ]
    responses = {
        "2XX": {"description": "It arrived. Answer at once, and do the work afterwards."},
        "410": {"description": "Nobody is here any more: it is not sent again."},
        "default": {"description": "It did not arrive. An end is sent again later, and `Retry-After` is honoured."},
    }
    made: Schema = {}
    for event, (status, summary, text) in _CALLS.items():
        told = {"type": event, "timestamp": clock.rfc3339(_AT_MS), "data": msgspec.json.decode(jobs[status])}
        content = {"schema": ref("WebhookEvent"), "examples": {"example": {"value": told}}}
        made[event] = {
            "post": {
                "operationId": event.replace(".", "_"), "tags": ["jobs"], "summary": summary, "description": text,
                "security": [], "parameters": parameters, "responses": responses,
                "requestBody": {"required": True, "content": {"application/json": content}},
            }
        }  # fmt: skip
    return made
