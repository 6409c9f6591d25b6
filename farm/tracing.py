"""Traces: the way of a picture through submission, dispatch, base, store and refiner, as spans of OpenTelemetry.

They are recorded if the standard variable ``OTEL_EXPORTER_OTLP_ENDPOINT`` (or ``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT``)
says where to send them and the packages of ``sdxl-farm[tracing]`` are installed; else nothing here does anything. All
spans of a job are one trace: its context is written to the job's row (W3C Trace Context) and travels in no message.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

logger = logging.getLogger(__name__)

VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_HEADER = "traceparent"

_tracer: "Tracer | None" = None


def set_up_tracing(service: str) -> None:
    """Record what this process does as spans of ``service`` (dashboard, producer, worker), if that is asked for."""
    global _tracer  # noqa: PLW0603 - one for the process, as OpenTelemetry has it
    if not any(os.environ.get(name) for name in VARIABLES):
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        logger.warning(
            "no traces: what sends them is missing; pip install 'sdxl-farm[tracing]', or unset %s", VARIABLES[0]
        )
        return
    # What is waiting to be sent goes when the process ends.
    provider = TracerProvider(resource=Resource.create({"service.namespace": "sdxl-farm", "service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracer = provider.get_tracer("sdxl-farm")


@contextmanager
def span(name: str, parent: str | None = None, **attributes: str | int | float) -> Iterator[None]:
    """A span for the time of the context, within ``parent`` (a traceparent) or within what this thread is at."""
    if _tracer is None:
        yield
        return
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = None if parent is None else TraceContextTextMapPropagator().extract({_HEADER: parent})
    told = {f"farm.{key}": value for key, value in attributes.items()}
    with _tracer.start_as_current_span(name, context, attributes=told):
        yield


def traceparent() -> str | None:
    """The span that this thread is in, for whoever goes on with it elsewhere; None without one."""
    if _tracer is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get(_HEADER)
