"""OpenTelemetry spans: real ones once `set_up` found an endpoint and the extra `[otel]`, otherwise nothing.

Attributes are ids, models, routes and statuses. Messages of exceptions are left out: they may quote a prompt.
"""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import structlog

_log = structlog.get_logger()
_NOTHING: contextlib.nullcontext[None] = contextlib.nullcontext()
_provider: Any = None
_tracer: Any = None
_codes: Any = None
_parents: Any = None


def set_up(endpoint: str, *, exporter: Any = None) -> bool:
    """Send spans to `endpoint` (`http://host:4318`), or to a given exporter at once; whether that can be done."""
    global _provider, _tracer, _codes, _parents
    if not endpoint and exporter is None:
        return False
    try:  # an extra, and slow to import
        from opentelemetry import trace
        from opentelemetry.sdk import trace as sdk
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import export
        from opentelemetry.trace.propagation import tracecontext

        if exporter is None:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        _log.warning("traces_off", reason="install pixeldojo[otel]")
        return False
    _provider = sdk.TracerProvider(resource=Resource.create({"service.name": "pixeldojo"}))
    if exporter is None:
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
        _provider.add_span_processor(export.BatchSpanProcessor(exporter))
    else:
        _provider.add_span_processor(export.SimpleSpanProcessor(exporter))
    _tracer, _codes = _provider.get_tracer("pixeldojo"), trace
    _parents = tracecontext.TraceContextTextMapPropagator()
    return True


def close() -> None:
    """Send what is left, and stop."""
    global _provider, _tracer
    provider, _provider, _tracer = _provider, None, None
    if provider is not None:
        provider.shutdown()


def is_on() -> bool:
    """Whether spans go anywhere."""
    return _tracer is not None


def here() -> Any:
    """The current place in the current trace: as `within` it makes another task's span part of it."""
    return None if _tracer is None else _codes.set_span_in_context(_codes.get_current_span())


def span(name: str, /, *, within: Any = None, **attributes: Any) -> contextlib.AbstractContextManager[Any]:
    """A span around a block; the block gets it, or None while traces are off."""
    return _NOTHING if _tracer is None else _span(name, attributes, within, kind="INTERNAL")


def request(method: str, headers: Iterable[tuple[bytes, bytes]]) -> contextlib.AbstractContextManager[Any]:
    """The span of one HTTP request, within the caller's trace where it sends a `traceparent`."""
    if _tracer is None:
        return _NOTHING
    carrier = {
        name.decode(): value.decode("latin-1") for name, value in headers if name in (b"traceparent", b"tracestate")
    }
    parent = _parents.extract(carrier) if carrier else None
    return _span(method, {"http.request.method": method}, parent, kind="SERVER")


@contextlib.contextmanager
def _span(name: str, attributes: dict[str, Any], parent: Any, *, kind: str) -> Iterator[Any]:
    with _tracer.start_as_current_span(
        name, context=parent, kind=_codes.SpanKind[kind], attributes=attributes,
        record_exception=False, set_status_on_exception=False,
    ) as made:  # fmt: skip
        try:
            yield made
        except Exception as error:
            made.set_attribute("error.type", type(error).__name__)
            made.set_status(_codes.StatusCode.ERROR)
            raise
