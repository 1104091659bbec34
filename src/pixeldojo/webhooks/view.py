"""What leaves the room of webhooks: a job's webhook as its owner sees it, and the headers that sign a payload."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from standardwebhooks import Webhook

from pixeldojo import clock
from pixeldojo.webhooks.service import Attempt, Delivery, Flight

Status = Literal["pending", "delivered", "failed", "gone", "skipped"]

_STATUS = {"due": "pending", "sending": "pending", "waiting": "pending"}


def _time(time_ms: int | None) -> str | None:
    return None if time_ms is None else clock.rfc3339(time_ms)


def _status(delivery: Delivery) -> str:
    return _STATUS.get(delivery.status, delivery.status)


def _next(delivery: Delivery) -> str | None:
    return _time(delivery.next_ms) if _status(delivery) == "pending" else None


def state(url: str, delivery: Delivery | None) -> dict[str, Any]:
    """The `webhook` of a job. Without a delivery the job has not ended."""
    return {
        "url": url,
        "status": "pending" if delivery is None else _status(delivery),
        "attempts": 0 if delivery is None else delivery.attempts,
        "lastAttemptAt": None if delivery is None else _time(delivery.last_ms),
        "lastResponseStatus": None if delivery is None else delivery.last_status,
        "nextAttemptAt": None if delivery is None else _next(delivery),
    }


def inspection(
    url: str, *, events: Sequence[str], found: Sequence[tuple[Delivery, Sequence[Attempt]]]
) -> dict[str, Any]:
    """A job's webhook with every delivery and every attempt."""
    terminal = next((delivery for delivery, _ in found if delivery.terminal), None)
    return state(url, terminal) | {"events": list(events), "deliveries": [_delivery(*each) for each in found]}


def _delivery(delivery: Delivery, attempts: Sequence[Attempt]) -> dict[str, Any]:
    return {
        "id": delivery.id,
        "type": delivery.type,
        "status": _status(delivery),
        "createdAt": clock.rfc3339(delivery.created_ms),
        "nextAttemptAt": _next(delivery),
        "attempts": [
            {
                "number": attempt.number,
                "at": clock.rfc3339(attempt.at_ms),
                "durationMs": attempt.duration_ms,
                "responseStatus": attempt.response_status,
                "error": attempt.error,
                "response": attempt.response,
            }
            for attempt in attempts
        ],
    }


def secrets(valid: Sequence[tuple[str, int, int | None]]) -> dict[str, Any]:
    """An account's current secret, and the one before it while that is valid too."""
    shown = [
        {"secret": secret, "createdAt": clock.rfc3339(created), "expiresAt": _time(expires)}
        for secret, created, expires in valid
    ]
    return {"secret": valid[0][0], "secrets": shown}


def headers(flight: Flight, *, now_ms: int) -> dict[str, str]:
    """The headers of an attempt at `now_ms`, after the Standard Webhooks specification."""
    moment, text = datetime.fromtimestamp(now_ms // 1000, UTC), flight.payload.decode()
    signatures = [
        Webhook(secret).sign(msg_id=flight.delivery.id, timestamp=moment, data=text) for secret in flight.secrets
    ]
    return {
        "content-type": "application/json",
        "webhook-id": flight.delivery.id,
        "webhook-timestamp": str(now_ms // 1000),
        "webhook-signature": " ".join(signatures),
    }
