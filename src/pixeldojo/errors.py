"""Every error a caller can meet: one class a row of the documented table. Doors render them; rooms raise them.

The message is for the person or agent who must act on it: it names the field and the remedy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Detail:
    """One fault in the input. `path` is dotted, `` for the whole body: `prompt`, `metadata.tags.0`."""

    path: str
    message: str


class DatabaseUnavailable(Exception):
    """The database could not do it: full disk, lost connection, locked for too long. Nothing was changed.
    Doors render it as theirs."""


class CommitUnknown(DatabaseUnavailable):
    """The connection was lost while committing: it is not known whether something was changed."""

    def __str__(self) -> str:
        return f"it is not known whether this was committed: {super().__str__()}"


class PixelDojoError(Exception):
    """Something went wrong."""

    code = "internal_error"
    status = 500

    def __init__(
        self,
        message: str | None = None,
        *,
        details: Sequence[Detail] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.message = message or (self.__doc__ or "").strip().splitlines()[0]
        self.details = tuple(details)
        self.headers = dict(headers or {})
        super().__init__(self.message)


class Unauthorized(PixelDojoError):
    """Missing or invalid API key: send `Authorization: Bearer YOUR_API_KEY`."""

    code, status = "unauthorized", 401


class InvalidJSON(PixelDojoError):
    """The request body is not valid JSON."""

    code, status = "invalid_json", 400


class ValidationError(PixelDojoError):
    """The input is not valid."""

    code, status = "validation_error", 400

    @classmethod
    def at(cls, path: str, message: str) -> "ValidationError":
        """The error for one field; the message is repeated at the top so that a short client shows it."""
        return cls(f"{path}: {message}" if path else message, details=[Detail(path, message)])


class NotFound(PixelDojoError):
    """There is no such thing here."""

    code, status = "not_found", 404


class InsufficientCredits(PixelDojoError):
    """Your account has insufficient credits."""

    code, status = "insufficient_credits", 402


class CreditError(PixelDojoError):
    """The credits could not be deducted; nothing was charged."""

    code, status = "credit_error", 500


class SubmissionFailed(PixelDojoError):
    """The job could not be stored; nothing was charged. Try again."""

    code, status = "submission_failed", 500


class Expired(PixelDojoError):
    """The job has expired: its files were removed."""

    code, status = "expired", 410


class RateLimited(PixelDojoError):
    """Too many requests: wait for the seconds in `Retry-After`."""

    code, status = "rate_limit_exceeded", 429


class InternalError(PixelDojoError):
    """Something went wrong on our side. Try again; the request id helps whoever looks into it."""


TABLE: tuple[type[PixelDojoError], ...] = (
    Unauthorized, InvalidJSON, ValidationError, NotFound, InsufficientCredits,
    CreditError, SubmissionFailed, Expired, RateLimited, InternalError,
)  # fmt: skip
