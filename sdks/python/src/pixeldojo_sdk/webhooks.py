"""Webhooks: whether one was signed by the account's secret, as Standard Webhooks says. No network here."""

import base64
import binascii
import hashlib
import hmac
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pixeldojo_sdk import _decode
from pixeldojo_sdk.errors import InvalidResponseError, WebhookVerificationError
from pixeldojo_sdk.types import Job, JSONObject

_NAMES = ("webhook-id", "webhook-timestamp", "webhook-signature")
_MOST_SIGNATURES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookEvent:
    """The body of a webhook."""

    #: `job.completed`, `job.failed`, or another that the job's webhook was asked to hear of.
    type: str
    timestamp: str
    #: The job's JSON, as `get_job` showed it at that moment.
    data: JSONObject
    raw: JSONObject

    @property
    def job(self) -> Job:
        """`data` as a job. Raises `InvalidResponseError` where it is none."""
        try:
            return _decode.record(Job, self.data, "the job")
        except _decode.ShapeError as error:
            raise InvalidResponseError(f"the webhook tells of something else than a job: {error}") from None


def verify_webhook(
    payload: bytes | str,
    headers: Mapping[str, str] | Iterable[tuple[str, str]],
    secret: str | Sequence[str],
    *,
    tolerance: float = 300,
    now: float | None = None,
) -> WebhookEvent:
    """The event in a webhook that is signed by the secret (or one of several), within the tolerated time.

    `payload` is the body as it came, byte for byte: not parsed and written again. `tolerance` is how many seconds
    the sender's clock and this one may differ; `now` (seconds since 1970) is for tests. Raises
    `WebhookVerificationError`, and `ValueError` for a secret that is none.
    """
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    given = {name.lower(): value for name, value in pairs}
    message_id, timestamp, signatures = (given.get(name, "") for name in _NAMES)
    if not (message_id and timestamp and signatures):
        wanted = ", ".join(f"`{name}`" for name in _NAMES)
        raise WebhookVerificationError(f"the webhook lacks one of its headers: {wanted}")
    if not re.fullmatch(r"[0-9]{1,15}", timestamp):
        raise WebhookVerificationError("`webhook-timestamp` is not a time")
    age = (time.time() if now is None else now) - int(timestamp)
    if abs(age) > tolerance:
        far = f"{abs(age):.0f} s {'old' if age > 0 else 'in the future'}"
        raise WebhookVerificationError(f"the webhook is {far}; is the clock here right?")
    body = payload.encode("utf-8", "surrogatepass") if isinstance(payload, str) else bytes(payload)
    signed = f"{message_id}.{timestamp}.".encode("utf-8", "surrogatepass") + body
    if not _is_signed(signed, signatures, [secret] if isinstance(secret, str) else secret):
        raise WebhookVerificationError("the webhook is not signed by this secret")
    return _event(body)


def _key(secret: str) -> bytes:
    text = secret.strip().removeprefix("whsec_")
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise ValueError("a webhook secret is `whsec_` and base64, as the account shows it")
    return key


def _is_signed(signed: bytes, signatures: str, secrets: Sequence[str]) -> bool:
    given = [each[3:] for each in signatures.split(" ")[:_MOST_SIGNATURES] if each.startswith("v1,")]
    wanted = [base64.b64encode(hmac.digest(_key(secret), signed, hashlib.sha256)) for secret in secrets]
    # every pair is compared, and each in constant time
    pairs = [hmac.compare_digest(a.encode("utf-8", "replace"), b) for a in given for b in wanted]
    return any(pairs)


def _event(body: bytes) -> WebhookEvent:
    try:
        value: Any = _decode.parse(body)
    except _decode.ShapeError:
        raise WebhookVerificationError("the webhook is signed, but not JSON") from None
    if isinstance(value, dict):
        kind, data, timestamp = value.get("type"), value.get("data"), value.get("timestamp", "")
        if isinstance(kind, str) and isinstance(data, dict) and isinstance(timestamp, str):
            return WebhookEvent(type=kind, timestamp=timestamp, data=data, raw=value)
    raise WebhookVerificationError("the webhook is signed, but not an event")
