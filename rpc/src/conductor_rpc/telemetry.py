"""Spans and metrics. The providers are arguments; without any, nothing is recorded and next to nothing is spent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING

from opentelemetry import propagate, trace
from opentelemetry.context import get_current
from opentelemetry.metrics import Counter, Histogram, MeterProvider, Observation
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider

from conductor_rpc import names
from conductor_rpc.call import Call, current_call

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_SCOPE = "conductor"
_NOTHING: AbstractContextManager[None] = nullcontext()
_SERVER_FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})


class Telemetry:
    """Records calls, their stages and events of the process."""

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        registry: CollectorRegistry | None = None,
    ) -> None:
        """``registry``: where Prometheus reads the same metrics, if it does."""
        self.registry = registry
        self._tracer = tracer_provider.get_tracer(_SCOPE) if tracer_provider else None
        self._meter = meter_provider.get_meter(_SCOPE) if meter_provider else None
        self._call_seconds = self._histogram(names.RPC_SERVER_CALL_DURATION, "Duration of calls")
        self._stage_seconds = self._histogram(names.STAGE_DURATION, "Duration of a call's stages")
        self._counters: dict[str, Counter] = {}
        self._histograms: dict[str, Histogram] = {}

    def call(self, call: Call) -> AbstractContextManager[None]:
        """Around a call: its span, under the caller's W3C context, and its duration with the code it ended with."""
        return self._recorded_call(call) if self._tracer or self._call_seconds else _NOTHING

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Around a stage of the current call: its span and its duration."""
        call = current_call()
        timings = call.timings if call is not None else None
        if self._tracer is None and self._stage_seconds is None and timings is None:
            return _NOTHING
        return _Stage(self, name, timings)

    def shared_stage(self, name: str, calls: Sequence[Call]) -> AbstractContextManager[None]:
        """Around a stage that several calls are in at once: each of them is told the whole of it."""
        if self._tracer is None and self._stage_seconds is None and all(call.timings is None for call in calls):
            return _NOTHING
        return self._recorded_shared_stage(name, calls)

    @contextmanager
    def _recorded_shared_stage(self, name: str, calls: Sequence[Call]) -> Iterator[None]:
        began_ns, began = time.time_ns(), time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - began
            ended_ns = began_ns + int(seconds * 1e9)
            for call in calls:
                if self._tracer is not None:
                    self._tracer.start_span(name, call.trace_context, start_time=began_ns).end(ended_ns)
                self.stage_ended(name, seconds)
                if call.timings is not None:
                    call.timings[name] = call.timings.get(name, 0.0) + seconds

    def annotate(self, attributes: Mapping[str, str]) -> None:
        """Add attributes to the current span."""
        if self._tracer is not None:
            trace.get_current_span().set_attributes(attributes)

    def count(self, name: str, attributes: Mapping[str, str], number: int = 1) -> None:
        """Add to a counter; the attributes' values must be bounded."""
        if self._meter is None:
            return
        counter = self._counters.get(name)
        if counter is None:
            counter = self._counters[name] = self._meter.create_counter(name, unit="1")
        counter.add(number, attributes)

    def took(self, name: str, seconds: float, attributes: Mapping[str, str]) -> None:
        """Record a duration; the attributes' values must be bounded."""
        self._record(name, seconds, attributes, "s", names.DURATION_BUCKETS_SECONDS)

    def differs(self, difference: float, attributes: Mapping[str, str]) -> None:
        """Record how far two models' answers to one question lie apart: |ln(one / other)|."""
        self._record(names.VARIANT_DIFFERENCE, difference, attributes, "1", names.DIFFERENCE_BUCKETS)

    def _record(
        self, name: str, value: float, attributes: Mapping[str, str], unit: str, edges: Sequence[float]
    ) -> None:
        if self._meter is None:
            return
        histogram = self._histograms.get(name)
        if histogram is None:
            histogram = self._histograms[name] = self._meter.create_histogram(
                name, unit=unit, explicit_bucket_boundaries_advisory=edges
            )
        histogram.record(value, attributes)

    def observe(self, name: str, read: Callable[[], int], *, unit: str = "1", total: bool = False) -> None:
        """Let a number be read whenever metrics are: ``total`` for one that only grows."""
        if self._meter is None:
            return
        create = self._meter.create_observable_counter if total else self._meter.create_observable_gauge
        create(name, [lambda _: [Observation(read())]], unit=unit)

    def _histogram(self, name: str, description: str) -> Histogram | None:
        if self._meter is None:
            return None
        return self._meter.create_histogram(
            name,
            unit="s",
            description=description,
            explicit_bucket_boundaries_advisory=names.DURATION_BUCKETS_SECONDS,
        )

    @contextmanager
    def _recorded_call(self, call: Call) -> Iterator[None]:
        attributes = {names.RPC_SYSTEM_NAME: names.GRPC, names.RPC_METHOD: call.method.removeprefix("/")}
        span = self._start(call, attributes)
        started = time.perf_counter()
        with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            call.trace_context = get_current()
            try:
                yield
            finally:
                attributes[names.RPC_RESPONSE_STATUS_CODE] = call.code
                if call.code in _SERVER_FAULTS:
                    attributes[names.ERROR_TYPE] = call.code
                    span.set_status(Status(StatusCode.ERROR))
                span.set_attributes(attributes)
                if self._call_seconds is not None:
                    self._call_seconds.record(time.perf_counter() - started, attributes)

    def _start(self, call: Call, attributes: Mapping[str, str]) -> Span:
        if self._tracer is None:
            return trace.INVALID_SPAN
        carrier = {key: value for key, value in call.metadata.items() if isinstance(value, str)}
        context = propagate.extract(carrier)
        return self._tracer.start_span(attributes[names.RPC_METHOD], context, SpanKind.SERVER, attributes)

    def stage_started(self, name: str) -> AbstractContextManager[object]:
        """The span of a stage; nothing where there is no tracer."""
        return self._tracer.start_as_current_span(name) if self._tracer is not None else _NOTHING

    def stage_ended(self, name: str, seconds: float) -> None:
        """Record the duration of a stage."""
        if self._stage_seconds is not None:
            self._stage_seconds.record(seconds, {names.STAGE: name})


class _Stage:
    """A stage that is being recorded."""

    __slots__ = ("_name", "_span", "_started", "_telemetry", "_timings")

    def __init__(self, telemetry: Telemetry, name: str, timings: dict[str, float] | None) -> None:
        self._telemetry, self._name, self._timings = telemetry, name, timings
        self._span: AbstractContextManager[object] = _NOTHING

    def __enter__(self) -> None:
        self._span = self._telemetry.stage_started(self._name)
        self._span.__enter__()
        self._started = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        seconds = time.perf_counter() - self._started
        self._telemetry.stage_ended(self._name, seconds)
        if self._timings is not None:
            self._timings[self._name] = self._timings.get(self._name, 0.0) + seconds
        self._span.__exit__(kind, error, traceback)


OFF = Telemetry()
"""Records nothing."""
