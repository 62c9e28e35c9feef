"""A collector of traces for tests: OTLP over HTTP on loopback, in a thread, that keeps every span it is sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Span:
    """One span as it arrived; ids are in hexadecimal, *above* is empty where it has no parent."""

    bank: str
    name: str
    trace: str
    own: str
    above: str
    began: int
    ended: int
    error: bool
    attributes: dict[str, str | bool]


@dataclass
class Collector:
    """What has arrived so far, and where it is to be sent."""

    endpoint: str
    spans: list[Span] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    """Every request's head and body, as they came."""

    def of(self, transfer: str) -> list[Span]:
        return [span for span in self.spans if span.attributes["distribank.transaction"] == transfer]


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that listens on a free port of this machine, until the block is left."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.said.append(f"{self.headers} {body.decode(errors='replace')}")
            if self.path == "/v1/traces":
                collector.spans.extend(spans_of(body))
            self.send_response(200 if self.path == "/v1/traces" else 404)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def spans_of(body: bytes) -> Iterator[Span]:
    for group in ExportTraceServiceRequest.FromString(body).resource_spans:
        bank = next(each.value.string_value for each in group.resource.attributes if each.key == "service.name")
        for span in [span for scope in group.scope_spans for span in scope.spans]:
            yield Span(
                bank,
                span.name,
                span.trace_id.hex(),
                span.span_id.hex(),
                span.parent_span_id.hex(),
                span.start_time_unix_nano,
                span.end_time_unix_nano,
                span.status.code == span.status.STATUS_CODE_ERROR,
                {
                    each.key: each.value.bool_value if each.value.HasField("bool_value") else each.value.string_value
                    for each in span.attributes
                },
            )
