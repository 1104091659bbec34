"""The channels on which rooms hear of jobs. A wake-up only says "look": what happened is in the row."""

PENDING = "jobs"  # a job became pending
CANCELS = "cancels"  # a job that is being worked on is to be cancelled


def of_job(job_id: str) -> str:
    """The channel that is woken whenever this job changes."""
    return f"job:{job_id}"


def of_end(job_id: str) -> str:
    """The channel that is woken when this job ends. Who only wants the result is not troubled before."""
    return f"end:{job_id}"
