"""Traces as a collector gets them, from a real ``conductor serve``."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.sdk.trace import ReadableSpan

from conductor_rpc import names


@dataclass(frozen=True)
class Span:
    """One span. Times in milliseconds, from the beginning of the call's span."""

    name: str
    began: float
    ended: float
    attributes: Mapping[str, Any]
    error_text: str

    @property
    def milliseconds(self) -> float:
        return self.ended - self.began


@dataclass(frozen=True)
class Trace:
    """A call's span, and what lies in it."""

    call: Span
    stages: Sequence[Span]

    def __str__(self) -> str:
        """As a person would look at it."""
        return "\n".join(
            f"{'' if span is self.call else '  '}{span.name:28} {span.began:8.1f} + {span.milliseconds:8.2f} ms  "
            + "  ".join(f"{name}={value}" for name, value in sorted(span.attributes.items()))
            + span.error_text
            for span in (self.call, *sorted(self.stages, key=lambda span: span.began))
        )


class Collector(TraceServiceServicer):
    """Takes OTLP over gRPC."""

    def __init__(self) -> None:
        self.spans: list[Any] = []

    def Export(  # noqa: N802 - the method's name in the protocol
        self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.spans += scope.spans
        return ExportTraceServiceResponse()

    def find(self, trace_id: str, tenant_id: str = "") -> list[Trace]:
        """The calls of a trace, or those of a tenant, that have come; first begun first."""
        spans = [span for span in self.spans if span.trace_id.hex() == trace_id]
        known = {span.span_id for span in spans}
        roots = [span for span in spans if span.parent_span_id not in known]
        roots.sort(key=lambda span: span.start_time_unix_nano)
        found = [
            Trace(_span(root, root), [_span(span, root) for span in spans if span.parent_span_id == root.span_id])
            for root in roots
        ]
        return [one for one in found if tenant_id in ("", one.call.attributes.get(names.TENANT_ID))]

    async def trace(self, trace_id: str, tenant_id: str = "", seconds: float = 30) -> Trace:
        """The call of a trace. Stages end, and come, before their call does."""
        async with asyncio.timeout(seconds):
            while not (found := self.find(trace_id, tenant_id)):  # noqa: ASYNC110 - another thread takes spans
                await asyncio.sleep(0.02)
        return found[0]


def _span(span: Any, root: Any) -> Span:
    zero = root.start_time_unix_nano
    return Span(
        span.name,
        (span.start_time_unix_nano - zero) / 1e6,
        (span.end_time_unix_nano - zero) / 1e6,
        {one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in span.attributes},
        span.status.message,
    )


def in_memory(spans: Sequence[ReadableSpan]) -> Trace:
    """The call that spans of this process are about."""
    [root] = [span for span in spans if span.parent is None]
    zero = root.start_time or 0

    def of(span: ReadableSpan) -> Span:
        began, ended = ((moment or 0) - zero for moment in (span.start_time, span.end_time))
        return Span(span.name, began / 1e6, ended / 1e6, dict(span.attributes or {}), span.status.description or "")

    return Trace(of(root), [of(span) for span in spans if span is not root])


@contextmanager
def collecting() -> Iterator[tuple[Collector, dict[str, str]]]:
    """A collector, and the environment that makes a process export to it what the tail keeps, and callers sample."""
    collector, server = Collector(), grpc.server(ThreadPoolExecutor(1))
    add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield (
            collector,
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
                "OTEL_METRICS_EXPORTER": "none",
                "OTEL_BSP_SCHEDULE_DELAY": "50",
                "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
                "OTEL_TRACES_SAMPLER_ARG": "0",
            },
        )
    finally:
        server.stop(None).wait()


def new_trace(*, sampled: bool = False) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The id of a new trace, and the metadata of a call in it."""
    trace_id, parent_id = (f"{random.getrandbits(bits) or 1:0{bits // 4}x}" for bits in (128, 64))
    return trace_id, (("traceparent", f"00-{trace_id}-{parent_id}-0{int(sampled)}"),)


@dataclass(frozen=True)
class Told:
    """What an on-call engineer reads off a trace, with nothing beside it."""

    slow: str
    """Where most of the time went: a stage."""
    model: str = ""
    """Which answered, ``predictor/owner@version``; in brackets what it is, unless the champion."""
    lacked: str = ""
    """Why it is not the best answer that there is; empty where it is."""
    code: str = "OK"
    """Why there is none."""


def told(trace: Trace) -> Told:
    """Ask a trace: why was this request slow, and which model answered it?"""
    of_call = trace.call.attributes
    one = f"{of_call.get(names.MODEL_NAME, '')}@{of_call.get(names.MODEL_VERSION, '')}"
    model = of_call.get(names.MODELS, one).partition(": ")[0].removeprefix("models/").strip("@")
    variant = of_call.get(names.VARIANT, "champion")
    return Told(
        _slow(trace.stages),
        model if variant.startswith("champion") else f"{model} ({variant})",
        _lacked(trace),
        of_call.get(names.ERROR_REASON, of_call[names.RPC_RESPONSE_STATUS_CODE]),
    )


_ON_THE_LOOP = (names.MODEL_RUN, names.MODEL_RUN_TOGETHER, names.TESTS_ANSWER)
"""What holds the event loop up itself where it takes long."""


def _slow(stages: Sequence[Span]) -> str:
    """The longest stage; or what takes more than half of it, again and again. Empty: it came to none."""
    stages = [stage for stage in stages if stage.name != names.MODEL_COMPARE]  # it is beside the call, not within it
    at_work = [stage for stage in stages if stage.name in _ON_THE_LOOP]
    # A stall in which one of them is at work is its own.
    stages = [
        stage
        for stage in stages
        if stage.name != names.EVENT_LOOP_STALL or not any(_within(stage, one) for one in at_work)
    ]
    if not stages:
        return ""
    longest = max(stages, key=lambda stage: stage.milliseconds)
    while inside := [one for one in stages if one.milliseconds < longest.milliseconds and _within(longest, one)]:
        longest = max(inside, key=lambda stage: stage.milliseconds)
    if longest.name != names.MODEL_RUN:
        return longest.name
    rows, explaining = (longest.attributes[name] for name in (names.MODEL_ROWS, names.EXPLAINING_ROWS))
    return f"{names.MODEL_RUN}, explaining" if explaining > rows / 2 else names.MODEL_RUN


def _within(one: Span, other: Span) -> bool:
    """Whether more than half of the one is the other."""
    return min(one.ended, other.ended) - max(one.began, other.began) > one.milliseconds / 2


def _lacked(trace: Trace) -> str:
    of_call = trace.call.attributes
    for stage in trace.stages:
        if stage.name == names.FEATURES_READ and names.ERROR_TYPE in stage.attributes:
            return stage.error_text.partition(":")[0]
    if names.MODEL_FAILURE in of_call:
        return str(of_call[names.MODEL_FAILURE])
    fallback = str(of_call.get(names.FALLBACK_REASON, "none"))
    if not fallback.startswith("none"):
        return fallback
    missing = str(of_call.get(names.FEATURES_MISSING, ""))
    return f"features: {missing}" if missing else ""
