"""What a running farm tells of itself: one trace of a picture's way, and logs that say what they are about."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from running import running_farm, wait_until

from farm.settings import Settings


@contextmanager
def collector() -> Iterator[tuple[str, list[tuple[str, Span]]]]:
    """A collector of traces: its address, and the spans that came, each with the name of its service."""
    spans: list[tuple[str, Span]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                told = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
                spans.extend((told["service.name"], span) for scope in resource.scope_spans for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", spans
    finally:
        server.shutdown()
        server.server_close()


def test_a_pictures_way_is_one_trace_and_logs_say_what_they_are_about(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collector() as (address, spans):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        settings = settings.model_copy(update={"log_format": "json"})
        settings.model_fields_set.add("log_format")
        with running_farm(settings, tmp_path, ["--device", "cpu"]) as farm:
            job = farm.client.submit(["a fox"], steps=2, size="64x64", output_format="png", seed=1)
            # What fails is logged; the other job is another trace.
            assert farm.await_job(job.id)["state"] == "completed"
            of_job = wait_until(lambda: whole_way(spans, job.id), "the spans of all stages")

    trace = {span.trace_id for _, span in of_job}
    assert len(trace) == 1
    assert {service for service, _ in of_job} == {"dashboard", "producer", "worker"}
    by_id = {span.span_id: span for _, span in of_job}

    def parents(span: Span) -> list[str]:
        parent = by_id.get(span.parent_span_id)
        return [] if parent is None else [parent.name, *parents(parent)]

    way = {(span.name, *parents(span)) for _, span in of_job}
    for stage, *parts in (
        ("base", "fetch", "render", "store"),
        ("refiner", "fetch", "render", "encode", "store", "commit"),
    ):
        assert {(part, stage, "submit") for part in parts} <= way
    assert ("dispatch", "submit") in way

    producer, worker = (
        [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
        for name in ("producer", "worker")
        for log in tmp_path.glob(f"*-{name}.log")
    )
    assert producer[0].keys() >= {"time", "level", "logger", "process", "message"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}", worker[0]["time"])


def whole_way(spans: list[tuple[str, Span]], job_id: int) -> list[tuple[str, Span]] | None:
    """All spans of the trace that this job's are of, once it is complete."""
    traces = {
        span.trace_id
        for _, span in spans
        if any(pair.key == "farm.job" and pair.value.int_value == job_id for pair in span.attributes)
    }
    found = [(service, span) for service, span in spans if span.trace_id in traces]
    return found if {"submit", "dispatch", "base", "refiner", "commit"} <= {span.name for _, span in found} else None
