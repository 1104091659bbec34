"""What to do about each error: the sentence that documents add to what the error means. Constants only."""

from typing import NamedTuple

from pixeldojo import errors

REMEDIES = {
    "unauthorized": "Check the key and its scopes; whoever runs the service makes keys.",
    "invalid_json": "Send a JSON object with Content-Type: application/json.",
    "validation_error": "Change what details names; the model's schema says what is accepted.",
    "not_found": "Check the id and the address; GET /models lists the models, GET /jobs your jobs.",
    "insufficient_credits": "Choose a cheaper model or fewer outputs, or ask for credits; nothing was charged.",
    "credit_error": "Try again with the same Idempotency-Key.",
    "submission_failed": "Try again with the same Idempotency-Key.",
    "expired": "Run it again; with the same seed the same input gives the same result.",
    "rate_limit_exceeded": "Then try again; poll less often, or wait with Prefer: wait.",
    "internal_error": "Wait for Retry-After, a few seconds where there is none.",
}


class Fault(NamedTuple):
    """A row of the table of errors."""

    code: str
    status: int
    meaning: str
    remedy: str


FAULTS = [Fault(each.code, each.status, each().message, REMEDIES[each.code]) for each in errors.TABLE]
