"""Every error of this package. Those of the service are one class a code; the names are the same in every SDK.

`TimeoutError` and `ConnectionError` derive from the built-in ones of these names as well, so `except TimeoutError`
catches them either way.
"""

import builtins
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pixeldojo_sdk.types import Job


@dataclass(frozen=True, slots=True)
class ErrorDetail:
    """One fault in the input. `path` is dotted (`prompt`), or empty for the whole body."""

    path: str
    message: str


class PixelDojoError(Exception):
    """Every error that this package raises by itself derives from this one."""

    #: A word for programs: the service's code, or one of this package's (`connection_error`, `timeout`, …).
    code: str = "error"

    def __init__(
        self,
        message: str = "",
        *,
        code: str | None = None,
        status: int | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        details: Sequence[ErrorDetail] = (),
        body: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        #: The HTTP status, where there was an answer.
        self.status = status
        #: The id of the request, to name when asking for help.
        self.request_id = request_id
        #: Seconds after which it may be tried again, if the service said so.
        self.retry_after = retry_after
        #: Every fault in the input, of a `ValidationError`.
        self.details = tuple(details)
        #: The beginning of an answer that could not be read.
        self.body = body[:1000]
        #: The job that was waited for. It goes on: `wait_for_job(job_id)` waits again.
        self.job_id: str | None = None
        #: The key a `run` was submitted under. With it and the same input, `run` can be repeated and charges once.
        self.idempotency_key: str | None = None

    def __str__(self) -> str:
        return self.message


class ApiError(PixelDojoError):
    """The service refused or failed, and said why. An unknown code is a plain `ApiError`."""


class UnauthorizedError(ApiError):
    """`unauthorized`: the API key is missing or not valid."""

    code = "unauthorized"


class InvalidJSONError(ApiError):
    """`invalid_json`: the request's body was not JSON."""

    code = "invalid_json"


class ValidationError(ApiError):
    """`validation_error`: the input is not valid. `details` names every fault."""

    code = "validation_error"


class InsufficientCreditsError(ApiError):
    """`insufficient_credits`: the account has too few credits for this job."""

    code = "insufficient_credits"


class NotFoundError(ApiError):
    """`not_found`: there is no such model, job, webhook or file."""

    code = "not_found"


class ExpiredError(ApiError):
    """`expired`: the job or file has expired and was removed."""

    code = "expired"


class RateLimitError(ApiError):
    """`rate_limit_exceeded`: too many requests; `retry_after` says for how many seconds to wait."""

    code = "rate_limit_exceeded"


class ServerError(ApiError):
    """`internal_error`, `credit_error` or `submission_failed`: something went wrong in the service."""

    code = "internal_error"


class ConnectionError(PixelDojoError, builtins.ConnectionError):
    """The service can't be reached, or the connection broke."""

    code = "connection_error"


class TimeoutError(PixelDojoError, builtins.TimeoutError):
    """No answer in time. With a `job_id`: the job did not end in time, and goes on."""

    code = "timeout"


class InvalidResponseError(PixelDojoError):
    """An answer that PixelDojo does not give: HTML, broken JSON, a wrong shape. Check `base_url`, and proxies."""

    code = "invalid_response"


class JobFailedError(PixelDojoError):
    """The job failed or was cancelled, and its credits were refunded. `code` and `message` are the job's."""

    code = "job_failed"

    #: The failed job.
    job: "Job"

    @classmethod
    def of(cls, job: "Job") -> "JobFailedError":
        """The error for a job whose status is `failed`."""
        fault = job.error
        error = cls(fault.message if fault else "the job failed", code=fault.code if fault else None)
        error.job, error.job_id = job, job.job_id
        return error


class WebhookVerificationError(PixelDojoError):
    """A webhook that is not signed by the secret, or not now. Answer it with 401 and don't act on it."""

    code = "webhook_verification_failed"


_BY_CODE: dict[str, type[ApiError]] = {
    "unauthorized": UnauthorizedError,
    "invalid_json": InvalidJSONError,
    "validation_error": ValidationError,
    "insufficient_credits": InsufficientCreditsError,
    "not_found": NotFoundError,
    "expired": ExpiredError,
    "rate_limit_exceeded": RateLimitError,
    "internal_error": ServerError,
    "credit_error": ServerError,
    "submission_failed": ServerError,
}


def by_code(code: str, message: str, *, status: int, **fields: Any) -> ApiError:
    """The error of this code. Where the code is unknown, the status tells whose fault it was."""
    kind = _BY_CODE.get(code) or (ServerError if status >= 500 else ApiError)
    return kind(message, code=code, status=status, **fields)
