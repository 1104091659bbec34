"""`/metrics`: what it counts, who may read it, and that nothing private is on it. And the spans of a job."""

import gzip
import http.server
import ipaddress
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import httpx2
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from prometheus_client.parser import text_string_to_metric_families

from doors.conftest import API, BASE, RUN, Service, fault
from pixeldojo import clock, metrics, traces
from pixeldojo.db import Tx

Serve = Callable[..., Service]
Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def read(service: Service) -> Series:
    answer = service.ask("GET", "/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == metrics.CONTENT_TYPE
    found: Series = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in found, f"twice: {key}"
            found[key] = sample.value
    return found


def value(series: Series, name: str, **labels: str) -> float:
    return series.get((name, tuple(sorted(labels.items()))), 0.0)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Lets seconds pass for the clock and for what is kept."""
    now_ms, monotonic, moved = clock.now_ms, time.monotonic, 0

    def move(seconds: int) -> None:
        nonlocal moved
        moved += seconds
        monkeypatch.setattr(clock, "now_ms", lambda: now_ms() + moved * 1000)
        monkeypatch.setattr("pixeldojo.api.metrics.time.monotonic", lambda: monotonic() + moved)

    return move


def test_requests_and_refusals(serve: Serve) -> None:
    service = serve(works=False, rate_limit="4/minute")
    before = read(service)
    ana = service.person()
    for url in (f"{API}/jobs/job_a", f"{API}/jobs/job_b", "/no/such/place", f"{API}/jobs", f"{API}/jobs"):
        ana.ask("GET", url)
    service.ask("BREW", "/no/such/place")
    after = read(service)

    def more(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    job = f"{API}/jobs/{{job_id}}"
    assert more("pixeldojo_http_requests_total", method="GET", route=job, status="404") == 2
    assert more("pixeldojo_http_request_seconds_count", method="GET", route=job) == 2
    assert more("pixeldojo_http_requests_total", method="GET", route="none", status="404") == 1
    assert more("pixeldojo_http_requests_total", method="GET", route="none", status="429") == 1
    assert more("pixeldojo_http_requests_total", method="other", route="none", status="404") == 1
    assert more("pixeldojo_rate_limit_refusals_total", counted_as="key") == 1
    assert more("pixeldojo_http_requests_total", method="GET", route="/metrics", status="200") == 1


def test_queue_jobs_and_ledger(serve: Serve, soon: Callable[[int], None]) -> None:
    service = serve(works=False)
    ana = service.person(credits=10)
    for _ in range(3):
        ana.submit()
    soon(60)
    seen = read(service)
    assert value(seen, "pixeldojo_queue_depth", model="testcard") == 3
    assert 60 <= value(seen, "pixeldojo_queue_oldest_seconds", model="testcard") < 80
    assert value(seen, "pixeldojo_jobs_processing", model="testcard") == 0
    assert value(seen, "pixeldojo_ledger_credits", kind="grant") == 10
    assert value(seen, "pixeldojo_ledger_credits", kind="charge") == 3
    assert value(seen, "pixeldojo_balance_credits") == 7
    assert value(seen, "pixeldojo_ledger_disagreements") == 0

    def lose(tx: Tx) -> None:
        tx.run("UPDATE accounts SET balance_milli = balance_milli - 1000")

    service.write(lose)
    assert value(read(service), "pixeldojo_ledger_disagreements") == 0, "kept for a while"
    soon(60)
    seen = read(service)
    assert value(seen, "pixeldojo_ledger_disagreements") == 1
    assert value(seen, "pixeldojo_balance_credits") == 6


def test_ended_jobs(serve: Serve, soon: Callable[[int], None]) -> None:
    service = serve()
    ana = service.person(credits=50)
    read(service)
    secret = "a prompt nobody else may read"
    done = [ana.done(secret) for _ in range(2)]
    ana.done("!crash")
    ended = {("completed", ""): 2, ("failed", "engine_failed"): 1}
    for _ in range(3):  # counted once, however often somebody asks
        soon(30)
        seen = read(service)
    for (status, code), count in ended.items():
        assert value(seen, "pixeldojo_jobs_ended_total", model="testcard", status=status, code=code) == count
    assert value(seen, "pixeldojo_job_seconds_count", model="testcard", status="completed") == 2
    assert value(seen, "pixeldojo_job_seconds_bucket", model="testcard", status="completed", le="+Inf") == 2
    assert 0 < value(seen, "pixeldojo_job_seconds_sum", model="testcard", status="completed") < 60
    assert value(seen, "pixeldojo_engine_seconds_count", model="testcard") == 2
    page = service.ask("GET", "/metrics").text
    for private in (secret, ana.key, ana.key_id, ana.account_id, done[0]["jobId"]):
        assert private not in page


def test_deliveries(serve: Serve) -> None:
    service = serve(works=False)
    before = value(read(service), "pixeldojo_webhook_deliveries_total", outcome="delivered")
    metrics.delivered("delivered")
    assert value(read(service), "pixeldojo_webhook_deliveries_total", outcome="delivered") == before + 1


def test_who_may_read_it(serve: Serve) -> None:
    proxies = (ipaddress.ip_network("10.0.0.0/8"),)
    service = serve(works=False, trusted_proxies=proxies)
    open_wide = serve(works=False, metrics_allow=(ipaddress.ip_network("192.0.2.0/24"),))
    closed = serve(works=False, metrics_allow=())

    def ask(at: Service, peer: str, **headers: str) -> httpx2.Response:
        async def send() -> httpx2.Response:
            transport = httpx2.ASGITransport(at.app, client=(peer, 1))
            async with httpx2.AsyncClient(transport=transport, base_url=BASE) as client:
                return await client.get("/metrics", headers=headers)

        return at.do(send())

    assert ask(service, "127.0.0.1").status_code == 200
    assert ask(service, "::1").status_code == 200
    assert ask(service, "::ffff:127.0.0.1").status_code == 200
    assert ask(service, "10.0.0.1", **{"x-forwarded-for": "127.0.0.1"}).status_code == 200
    fault(ask(service, "192.0.2.1"), 404, "not_found")
    fault(ask(service, "10.0.0.1", **{"x-forwarded-for": "192.0.2.1"}), 404, "not_found")
    for name in ("x-forwarded-for", "forwarded", "x-real-ip"):  # a proxy on this machine that nobody named
        fault(ask(service, "127.0.0.1", **{name: "127.0.0.1"}), 404, "not_found")
    assert ask(open_wide, "192.0.2.1").status_code == 200
    fault(ask(open_wide, "127.0.0.1"), 404, "not_found")
    fault(ask(closed, "127.0.0.1"), 404, "not_found")


@pytest.fixture
def spans() -> Iterator[Any]:
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    exporter = memory.InMemorySpanExporter()
    assert traces.set_up("", exporter=exporter)
    yield exporter
    traces.close()


def test_spans_of_a_job(spans: Any, serve: Serve) -> None:
    service = serve()
    ana = service.person()
    parent = f"00-{'a' * 32}-{'b' * 16}-01"
    answer = ana.ask("POST", RUN, json={"prompt": "a secret prompt"}, headers={"traceparent": parent})
    ana.wait(answer.json()["jobId"])
    ana.ask("GET", f"{API}/jobs/job_nothing")
    service.until(lambda: [span.name for span in spans.get_finished_spans()], lambda names: "finish" in names)
    found = {span.name: span for span in spans.get_finished_spans()}
    request = found[f"POST {API}/models/{{api_id}}/run"]
    assert request.kind.name == "SERVER"
    assert request.attributes["http.response.status_code"] == 202
    assert request.attributes["pixeldojo.request_id"] == answer.headers["x-request-id"]
    assert f"{request.context.trace_id:032x}" == "a" * 32, "within the caller's trace"
    assert found["submit"].parent.span_id == request.context.span_id
    attempt = found["attempt"]
    assert attempt.attributes["job"] == answer.json()["jobId"]
    assert {found[name].parent.span_id for name in ("engine run", "finish")} == {attempt.context.span_id}
    assert found[f"GET {API}/jobs/{{job_id}}"].attributes["http.response.status_code"] == 404
    everything = " ".join(span.to_json() for span in spans.get_finished_spans())
    assert "secret prompt" not in everything
    assert ana.key not in everything


def test_traces_are_off_by_default() -> None:
    assert not traces.is_on()
    assert not traces.set_up("")
    with traces.span("nothing") as made, traces.request("GET", []) as also:
        assert made is also is None


class _Collector(http.server.BaseHTTPRequestHandler):
    """The receiving end of OTLP over HTTP: keeps the bodies."""

    bodies: ClassVar[list[tuple[str, bytes]]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.bodies.append((self.path, body))
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_spans_reach_a_collector() -> None:
    class Collector(_Collector):
        bodies: ClassVar[list[tuple[str, bytes]]] = []

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            assert traces.set_up(f"http://127.0.0.1:{server.server_port}/")
            with traces.span("attempt", job="job_1"), traces.span("engine run"):
                pass
            traces.close()  # sends what is left
        finally:
            server.shutdown()
            thread.join()
    ((path, body),) = Collector.bodies
    assert path == "/v1/traces"
    (sent,) = trace_service_pb2.ExportTraceServiceRequest.FromString(body).resource_spans
    assert {each.key: each.value.string_value for each in sent.resource.attributes}["service.name"] == "pixeldojo"
    inner, outer = sent.scope_spans[0].spans
    assert (inner.name, outer.name) == ("engine run", "attempt")
    assert inner.parent_span_id == outer.span_id
    assert [(each.key, each.value.string_value) for each in outer.attributes] == [("job", "job_1")]
