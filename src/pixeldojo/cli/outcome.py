"""How a command ends: the exit codes, and the one exception that carries a fault to `main`."""

import enum
from collections.abc import Sequence
from typing import Any

from pixeldojo import errors


class Exit(enum.IntEnum):
    """Exit codes; the texts are what `--help` shows."""

    def __new__(cls, number: int, text: str) -> "Exit":
        """A member that is a number and knows its meaning."""
        made = int.__new__(cls, number)
        made._value_ = number
        made.text = text
        return made

    text: str

    OK = 0, "done"
    FAILED = 1, "the job failed, or something else did"
    USAGE = 2, "wrong arguments, settings or model input"
    REFUSED = 3, "no valid key, or no such thing (any more)"
    CREDITS = 4, "not enough credits"
    UNREACHABLE = 5, "no service or database answers"
    TIMEOUT = 6, "waited long enough; the job goes on"
    INTERRUPTED = 130, "Ctrl-C"


_BY_CODE = {
    "unauthorized": Exit.REFUSED,
    "not_found": Exit.REFUSED,
    "expired": Exit.REFUSED,
    "validation_error": Exit.USAGE,
    "invalid_json": Exit.USAGE,
    "insufficient_credits": Exit.CREDITS,
}


def exit_of(code: str) -> Exit:
    """The exit code for an error code of the API."""
    return _BY_CODE.get(code, Exit.FAILED)


class CommandFailed(Exception):
    """The command can't go on. The message names the remedy."""

    def __init__(
        self,
        message: str,
        *,
        code: str,
        ends: Exit,
        status: int | None = None,
        details: Sequence[Any] = (),
        job_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.code, self.ends = message, code, ends
        self.status, self.details, self.job_id = status, tuple(details), job_id

    def envelope(self) -> dict[str, Any]:
        """The error as the API's envelope, with the exit code in it."""
        inside: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.status is not None:
            inside["status"] = self.status
        if self.details:
            inside["details"] = list(self.details)
        if self.job_id is not None:
            inside["jobId"] = self.job_id
        return {"error": inside | {"exitCode": int(self.ends)}}


def usage(message: str) -> CommandFailed:
    """The fault of an argument that can't be used."""
    return CommandFailed(message, code="usage_error", ends=Exit.USAGE)


def from_room(error: errors.PixelDojoError) -> CommandFailed:
    """What a room raised, as the fault of a command."""
    details = [{"path": detail.path, "message": detail.message} for detail in error.details]
    return CommandFailed(error.message, code=error.code, ends=exit_of(error.code), status=error.status, details=details)
