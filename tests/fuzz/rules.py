"""What no JSON Schema can say: why a request may be refused although its schema allows it.

Each rule is a path and a message of a `validation_error`. A refusal is excused only when rules cover all its faults.
"""

import re
from typing import Any

_RULES = (
    # opaque, and only the service makes them
    (r"cursor", r"must be the nextCursor|printable characters|null characters"),
    # two members together, or a time of the clock's
    (r"from", r"must be before `to`|at most \d+ days before|must be a time such as"),
    (r"to", r"must be a time such as"),  # years that RFC 3339 knows and no calendar here
    (r"created(After|Before)", r"must be a time with its zone"),
    (r"expiresAt", r"must lie in the future|must be a time such as"),
    (r"expiresIn", r"can't be given together with expiresAt"),
    # Unicode's categories, and decimals of floats
    (r"name|note|Idempotency-Key|models", r"printable characters|1 to 100 strings"),
    (r"credits|capCredits|max_credit_cost", r"at most three decimals"),
    (r".*", r"null characters"),
    # what the service holds at the moment
    (r"name", r"there is already an account named|the default account keeps its name"),
    (r"models\.\d+", r"there is no model"),
    (r"key", r"was rotated already|has ended or was just rotated"),
    (r"credits", r"holds only"),
    (r"", r"the account has \d+ keys that work"),
    (r"jobId", r"the job is (pending|processing)"),
    (r"Idempotency-Key", r"was used .* for another"),
    (r"max_credit_cost", r"the job costs .* more than"),
    # formats of the service's own: bounds on durations, and the guard on addresses
    (r"Cancel-After|Start-Within", r"must be a duration"),
    (r"Prefer", r"wait must be a whole number"),
    (r"webhook_url|image_url", r""),
)
_ANY_MODEL = ("run", "estimate")  # one operation for all models: what each takes is in its own


def excused(operation_id: str, error: dict[str, Any]) -> bool:
    """Whether this error of a request that its schema allows is one of the rules."""
    if error.get("code") != "validation_error":
        return False
    if operation_id in _ANY_MODEL:
        return True
    return all(
        any(re.fullmatch(path, each["path"]) and re.search(text, each["message"]) for path, text in _RULES)
        for each in error.get("details", [{"path": "", "message": ""}])
    )
