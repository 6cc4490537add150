"""A receiver of OpenTelemetry spans, to tell where a server's milliseconds go."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import grpc
import numpy as np
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)


class SpanReceiver(TraceServiceServicer):
    """Takes OTLP over gRPC on a free loopback port and keeps the durations of spans by name."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, list[float]] = defaultdict(list)
        self._server = grpc.server(ThreadPoolExecutor(max_workers=1))
        add_TraceServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        self._port = self._server.add_insecure_port("127.0.0.1:0")

    @property
    def environment(self) -> Mapping[str, str]:
        """Environment that makes a process export its spans here."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self._port}",
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_BSP_SCHEDULE_DELAY": "500",
        }

    @property
    def environment_of_every_call(self) -> Mapping[str, str]:
        """The same, of every call and not of those alone that are traced by default."""
        return dict(self.environment) | {"OTEL_TRACES_SAMPLER": "always_on"}

    def Export(  # noqa: N802 - the method's name in the protocol
        self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        """Take spans."""
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self._seconds[span.name].append((span.end_time_unix_nano - span.start_time_unix_nano) / 1e9)
        return ExportTraceServiceResponse()

    def clear(self) -> None:
        """Forget what was received."""
        self._seconds.clear()

    def stages(self) -> dict[str, dict[str, float]]:
        """Figures by span name: count, mean, p50, p95 in seconds."""
        return {
            name: {
                "count": len(seconds),
                "mean": float(np.mean(seconds)),
                "p50": float(np.percentile(seconds, 50)),
                "p95": float(np.percentile(seconds, 95)),
            }
            for name, seconds in sorted(self._seconds.items())
            if seconds
        }

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop(grace=0.5).wait()
