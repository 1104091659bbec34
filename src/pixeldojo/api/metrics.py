"""`/metrics` for Prometheus: this process's counts, and what the database says about queue, jobs and ledger.

The latter is computed when somebody asks, and kept for a short time: twenty times as long as it took, so that a
large database is never busy with it for more than a twentieth of the time.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from litestar import Response, get
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from pixeldojo import clock, errors, metrics
from pixeldojo.api import callers
from pixeldojo.api.respond import ApiRequest
from pixeldojo.house import House
from pixeldojo.jobs import figures
from pixeldojo.ledger import service as ledger
from pixeldojo.webhooks import service as webhooks

_BOUNDS_MS = (50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 120_000, 300_000, 600_000, 3_600_000)
_LEAST_S = 2.0
T = TypeVar("T")


class _Kept(Generic[T]):
    """The last answer of the database to one question, and until when it is good."""

    def __init__(self) -> None:
        self._value: T | None = None
        self._until_s = 0.0

    async def get(self, house: House, ask: Callable[..., T], /, **arguments: Any) -> tuple[T, bool]:
        """(the answer, whether it is a new one)."""
        began = time.monotonic()
        if self._value is not None and began < self._until_s:
            return self._value, False
        self._until_s = began + _LEAST_S  # whoever asks meanwhile gets the answer before this one, if there is one
        self._value = await house.db.scan(ask, **arguments)
        ended = time.monotonic()
        self._until_s = ended + max(_LEAST_S, 20 * (ended - began))
        return self._value, True


class _Spans:
    """A histogram of milliseconds that grows by whole batches."""

    def __init__(self) -> None:
        self.at_most = [0] * len(_BOUNDS_MS)
        self.count = self.total_ms = 0

    def add(self, count: int, total_ms: int, at_most: tuple[int, ...]) -> None:
        self.count += count
        self.total_ms += total_ms
        self.at_most = [a + b for a, b in zip(self.at_most, at_most, strict=True)]

    def show(self, family: HistogramMetricFamily, labels: list[str]) -> None:
        buckets = [(str(ms / 1000), float(n)) for ms, n in zip(_BOUNDS_MS, self.at_most, strict=True)]
        family.add_metric(labels, [*buckets, ("+Inf", float(self.count))], self.total_ms / 1000)


class Watch:
    """What one process's `/metrics` knows of the database. Jobs are counted from when it was made."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._queues: _Kept[list[figures.Queue]] = _Kept()
        self._totals: _Kept[ledger.Totals] = _Kept()
        self._deliveries: _Kept[dict[str, int]] = _Kept()
        self._ended: _Kept[tuple[int, list[figures.Ended]]] = _Kept()
        self._ended_until_ms = clock.now_ms()
        self._counts: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self._total: defaultdict[tuple[str, str], _Spans] = defaultdict(_Spans)
        self._engine: defaultdict[str, _Spans] = defaultdict(_Spans)

    async def families(self) -> list[Metric]:
        """Every series that comes from the database."""
        queues, _ = await self._queues.get(self._house, figures.queues)
        (until_ms, ended), is_new = await self._ended.get(
            self._house, figures.ended, after_ms=self._ended_until_ms, bounds_ms=_BOUNDS_MS
        )
        if is_new and until_ms > self._ended_until_ms:
            self._ended_until_ms = until_ms
            for group in ended:
                self._add(group)
        totals, _ = await self._totals.get(self._house, ledger.totals)
        deliveries, _ = await self._deliveries.get(self._house, webhooks.outcomes)
        models = [card.api_id for card in self._house.catalogue.cards]
        return [
            *_queue_families(queues, models),
            *self._job_families(),
            _delivery_family(deliveries),
            *_ledger_families(totals),
        ]

    def _add(self, group: figures.Ended) -> None:
        self._counts[group.model, group.status, group.code] += group.count
        self._total[group.model, group.status].add(group.count, group.total_ms, group.total_at_most)
        self._engine[group.model].add(group.made, group.engine_ms, group.engine_at_most)

    def _job_families(self) -> Iterator[Metric]:
        ended = CounterMetricFamily(
            "pixeldojo_jobs_ended", "Jobs that ended, in any process.", labels=["model", "status", "code"]
        )
        for names, count in self._counts.items():
            ended.add_metric(list(names), count)
        yield ended
        total = HistogramMetricFamily(
            "pixeldojo_job_seconds", "From a job's submission to its end.", labels=["model", "status"]
        )
        for pair, spans in self._total.items():
            spans.show(total, list(pair))
        yield total
        engine = HistogramMetricFamily(
            "pixeldojo_engine_seconds", "A completed job's time in its engine.", labels=["model"]
        )
        for model, spans in self._engine.items():
            spans.show(engine, [model])
        yield engine


def _queue_families(queues: list[figures.Queue], models: list[str]) -> Iterator[Metric]:
    by_model = {model: figures.Queue(model, 0, 0.0, 0) for model in models} | {each.model: each for each in queues}
    shown = {
        "pixeldojo_queue_depth": ("Pending jobs.", "pending"),
        "pixeldojo_queue_oldest_seconds": ("Age of the oldest pending job.", "oldest_s"),
        "pixeldojo_jobs_processing": ("Jobs at work.", "processing"),
    }
    for name, (text, field) in shown.items():
        family = GaugeMetricFamily(name, text, labels=["model"])
        for model, queue in sorted(by_model.items()):
            family.add_metric([model], getattr(queue, field))
        yield family


def _delivery_family(by_status: dict[str, int]) -> Metric:
    family = GaugeMetricFamily("pixeldojo_deliveries", "Webhook deliveries that are kept.", labels=["status"])
    for status, count in sorted(by_status.items()):
        family.add_metric([status], count)
    return family


def _ledger_families(totals: ledger.Totals) -> Iterator[Metric]:
    entries = GaugeMetricFamily("pixeldojo_ledger_credits", "Sum of the ledger's entries, in credits.", labels=["kind"])
    entries.add_metric(["grant"], totals.granted_milli / 1000)
    entries.add_metric(["charge"], totals.charged_milli / 1000)
    entries.add_metric(["refund"], totals.refunded_milli / 1000)
    yield entries
    yield GaugeMetricFamily("pixeldojo_balance_credits", "Sum of all balances.", totals.balances_milli / 1000)
    yield GaugeMetricFamily("pixeldojo_accounts", "How many accounts there are.", totals.accounts)
    yield GaugeMetricFamily(
        "pixeldojo_ledger_disagreements", "Accounts whose balance is not the sum of their entries. Must be 0.",
        totals.disagreements,
    )  # fmt: skip


@get("/metrics")
async def get_metrics(request: ApiRequest) -> Response[bytes]:
    """The page, for callers in the networks of `PIXELDOJO_METRICS_ALLOW`; for others there is nothing here."""
    house: House = request.app.state.house
    if not callers.is_within(request.scope, house.settings.metrics_allow, trusted=house.settings.trusted_proxies):
        raise errors.NotFound("There is nothing at GET /metrics for this address (PIXELDOJO_METRICS_ALLOW).")
    watch: Watch = request.app.state.watch
    body = metrics.page(await watch.families())
    return Response(body, media_type=metrics.MEDIA_TYPE, headers={"Cache-Control": "no-store"})
