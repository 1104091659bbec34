"""What this process counts for Prometheus. Whoever does something counts it here; `/metrics` shows it.

Labels are words of our own (a route's template, a status, an outcome), never anything a caller wrote: so their
number is bounded, and no prompt, key or address is among them.
"""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import Metric

MEDIA_TYPE = "text/plain; version=0.0.4"
CONTENT_TYPE = f"{MEDIA_TYPE}; charset=utf-8"
_HTTP_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

REGISTRY = CollectorRegistry()

_requests = Counter(
    "pixeldojo_http_requests", "Requests answered by this process.", ["method", "route", "status"], registry=REGISTRY
)
_seconds = Histogram(
    "pixeldojo_http_request_seconds", "From a request to the end of its answer.", ["method", "route"],
    buckets=_HTTP_S, registry=REGISTRY,
)  # fmt: skip
_refusals = Counter(
    "pixeldojo_rate_limit_refusals", "Requests refused with 429, by what they were counted as.", ["counted_as"],
    registry=REGISTRY,
)  # fmt: skip
_deliveries = Counter(
    "pixeldojo_webhook_deliveries", "Webhook delivery attempts of this process, by outcome.", ["outcome"],
    registry=REGISTRY,
)  # fmt: skip

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_Answered = tuple[Callable[[], None], Callable[[float], None]]
_answered: dict[tuple[str, str, int], _Answered] = {}  # looking a series up by its labels costs more than counting


def answered(method: str, route: str, status: int, *, seconds: float) -> None:
    """Count an answered request. `route` is the template, such as `/api/v1/jobs/{job_id}`."""
    found = _answered.get((method, route, status)) or _first(method, route, status)
    found[0]()
    found[1](seconds)


def _first(method: str, route: str, status: int) -> _Answered:
    if method not in _METHODS:  # a word of the caller's: kept out of labels, and out of memory
        return _requests.labels("other", route, str(status)).inc, _seconds.labels("other", route).observe
    found = _requests.labels(method, route, str(status)).inc, _seconds.labels(method, route).observe
    _answered[method, route, status] = found
    return found


def refused(counted_as: str) -> None:
    """Count a request refused by the rate limit of a `key` or an `address`."""
    _refusals.labels(counted_as).inc()


def delivered(outcome: str) -> None:
    """Count one webhook delivery attempt: `delivered`, `failed`, `gone`, or another fixed word."""
    _deliveries.labels(outcome).inc()


class _Page:
    """Everything on one page: this process's series and those of the caller."""

    def __init__(self, more: Iterable[Metric]) -> None:
        self._more = more

    def collect(self) -> Iterator[Metric]:
        yield from REGISTRY.collect()
        yield from self._more


def page(more: Iterable[Metric]) -> bytes:
    """Every series as Prometheus reads it; `more` are those that somebody else computed."""
    return generate_latest(_Page(more))
