"""Traces and metrics. The providers are arguments; without any, nothing is recorded and next to nothing is spent."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING

from opentelemetry.metrics import Counter, Histogram, MeterProvider, Observation
from opentelemetry.trace import TracerProvider

from conductor_rpc import names
from conductor_rpc.call import HANDED_TIME, Attributes, Call, Stage, current_call
from conductor_rpc.call_log import CallLog
from conductor_rpc.side_work import SideWork
from conductor_rpc.stalls import Stalls
from conductor_rpc.tracing import SERVER_FAULTS, SLOW_SECONDS, Traces

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.sampling import Sampler
    from prometheus_client import CollectorRegistry

_SCOPE = "conductor"
_NOTHING: AbstractContextManager[None] = nullcontext()
_STAGE: ContextVar[_RecordedStage | None] = ContextVar("conductor_stage", default=None)
"""The stage that this task is in."""


class Telemetry:
    """Records calls, their stages and events of the process."""

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        registry: CollectorRegistry | None = None,
        *,
        head: Sampler | None = None,
        slow_seconds: float = SLOW_SECONDS,
        call_log: CallLog | None = None,
    ) -> None:
        """What is recorded, and where.

        Args:
            tracer_provider: Records every span that it is told; which calls are traced is decided before.
            meter_provider: Of the metrics.
            registry: Where Prometheus reads the same metrics, if it does.
            head: Says which calls are traced whatever comes of them; None: all.
            slow_seconds: A call that takes so long is traced whatever the head says.
            call_log: Tells of calls that somebody will ask about.
        """
        self.registry = registry
        self.stalls = Stalls()
        """Traces tell of them, where somebody starts them."""
        self._call_log = call_log
        tracer = tracer_provider.get_tracer(_SCOPE) if tracer_provider else None
        self._side_work = SideWork()
        self._traces = Traces(tracer, head, slow_seconds, self.stalls, self._side_work) if tracer else None
        self._meter = meter_provider.get_meter(_SCOPE) if meter_provider else None
        self._call_seconds = self._histogram(names.RPC_SERVER_CALL_DURATION, "Duration of calls")
        self._stage_seconds = self._histogram(names.STAGE_DURATION, "Duration of a call's stages")
        self._counters: dict[str, Counter] = {}
        self._histograms: dict[str, Histogram] = {}
        self._observed: dict[str, list[Callable[[], list[Observation]]]] = {}
        self.observe(names.EVENT_LOOP_STALLED, lambda: self.stalls.loop_seconds, unit="s", total=True)
        self.observe(names.GC_PAUSED, lambda: self.stalls.gc_seconds, unit="s", total=True)

    def call(self, call: Call) -> AbstractContextManager[None]:
        """Around a call: its trace, under the caller's W3C context, and its duration with the code it ended with."""
        recorded = self._traces or self._call_seconds or self._call_log
        return _RecordedCall(call, self._traces, self._call_seconds, self._call_log) if recorded else _NOTHING

    def stage(self, name: str, attributes: Attributes | None = None) -> AbstractContextManager[None]:
        """Around a stage of the current call: its span and its duration."""
        call = current_call()
        if self._stage_seconds is None and (call is None or call.stages is None):
            return _NOTHING
        return _RecordedStage(name, () if call is None else (call,), self._stage_seconds, attributes)

    def shared_stage(self, name: str, calls: Sequence[Call]) -> AbstractContextManager[None]:
        """Around a stage that several calls are in at once: each of them is told the whole of it, metrics once.

        No ``calls``: metrics alone.
        """
        if self._stage_seconds is None and all(call.stages is None for call in calls):
            return _NOTHING
        return _RecordedStage(name, calls, self._stage_seconds)

    def span(
        self, name: str, attributes: Attributes | None = None, calls: Sequence[Call] | None = None
    ) -> AbstractContextManager[None]:
        """Around what only traces tell, of these calls or the current one: a value of the histogram costs more."""
        if calls is None:
            call = current_call()
            calls = () if call is None else (call,)
        if all(call.stages is None for call in calls):
            return _NOTHING
        return _RecordedStage(name, calls, None, attributes)

    def side_work(self, name: str, attributes: Attributes) -> AbstractContextManager[None]:
        """Around what the process does that no call waits for: traces of the calls that it runs beside tell of it."""
        return _NOTHING if self._traces is None else self._side_work.doing(name, attributes)

    def went_without(self, error: Exception) -> None:
        """Tell that the stage under way did not bring what it should, and why; its calls are answered all the same."""
        stage = _STAGE.get()
        if stage is not None:
            stage.went_without(error)

    def annotate(self, attributes: Mapping[str, str], *, fell_back: bool = False) -> None:
        """Add attributes to the current call's trace. ``fell_back``: the answer is less than the best there is."""
        call = current_call()
        if call is not None and call.stages is not None:
            call.attributes.update(attributes)
            call.fell_back |= fell_back

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

    def observe(self, name: str, read: Callable[[], float | None], *, unit: str = "1", total: bool = False) -> None:
        """Let a number be read whenever metrics are: ``total`` for one that only grows; None is no number."""

        def observations() -> list[Observation]:
            value = read()
            return [] if value is None else [Observation(value)]

        self._observe(name, observations, unit, total)

    def observe_by(
        self,
        attribute: str,
        name: str,
        read: Callable[[], Mapping[str, float]],
        attributes: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Let numbers that only grow be read, by the value of an attribute, of which there must be few."""

        def observations() -> list[Observation]:
            return [Observation(number, {**attributes, attribute: key}) for key, number in tuple(read().items())]

        self._observe(name, observations, "1", True)

    def _observe(self, name: str, observations: Callable[[], list[Observation]], unit: str, total: bool) -> None:
        if self._meter is None:
            return
        reading = self._observed.get(name)
        if reading is not None:  # an instrument is made once
            reading.append(observations)
            return
        reading = self._observed[name] = [observations]
        create = self._meter.create_observable_counter if total else self._meter.create_observable_gauge
        create(name, [lambda _: [found for read in reading for found in read()]], unit=unit)

    def _histogram(self, name: str, description: str) -> Histogram | None:
        if self._meter is None:
            return None
        return self._meter.create_histogram(
            name,
            unit="s",
            description=description,
            explicit_bucket_boundaries_advisory=names.DURATION_BUCKETS_SECONDS,
        )


class _RecordedCall:
    """A call that is being recorded."""

    __slots__ = ("_began", "_call", "_log", "_seconds", "_traces")

    def __init__(self, call: Call, traces: Traces | None, seconds: Histogram | None, log: CallLog | None) -> None:
        self._call, self._traces, self._seconds, self._log = call, traces, seconds, log

    def __enter__(self) -> None:
        now = time.perf_counter()
        if self._traces is not None or self._log is not None:
            self._call.stages = []
        self._began = now - (time.monotonic() - self._call.began)
        if HANDED_TIME.get():
            self._call.note(Stage(names.RECEIVE, self._began, now))
        if self._call.waited_since:
            waited_seconds = self._call.began - self._call.waited_since
            self._call.note(Stage(names.ITEM_WAIT, self._began - waited_seconds, self._began))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        call, began, ended = self._call, self._began, time.perf_counter()
        if self._log is not None:
            self._log.ended(call, began, ended)
        if self._traces is None and self._seconds is None:
            return
        attributes = {
            names.RPC_SYSTEM_NAME: names.GRPC,
            names.RPC_METHOD: call.method.removeprefix("/"),
            names.RPC_RESPONSE_STATUS_CODE: call.code,
        }
        if call.code in SERVER_FAULTS:
            attributes[names.ERROR_TYPE] = call.code
        # Metrics point to the trace, if there is one.
        context = self._traces.ended(call, began, ended, attributes) if self._traces is not None else None
        if self._seconds is not None:
            self._seconds.record(ended - began, attributes, context)


class _RecordedStage:
    """A stage that is being recorded."""

    __slots__ = ("_calls", "_outer", "_seconds", "_stage")

    def __init__(
        self, name: str, calls: Sequence[Call], seconds: Histogram | None, attributes: Attributes | None = None
    ) -> None:
        self._calls, self._seconds = calls, seconds
        self._stage = Stage(name, 0.0, attributes=attributes)

    def __enter__(self) -> None:
        self._outer = _STAGE.get()
        _STAGE.set(self)
        self._stage.began = time.perf_counter()
        for call in self._calls:
            call.note(self._stage)

    def went_without(self, error: Exception) -> None:
        self._stage.error, self._stage.error_text = type(error).__name__, str(error)
        for call in self._calls:
            call.fell_back = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        stage = self._stage
        stage.ended = time.perf_counter()
        _STAGE.set(self._outer)
        if kind is not None:
            stage.error = kind.__name__
        if self._seconds is not None:
            self._seconds.record(stage.ended - stage.began, {names.STAGE: stage.name})


OFF = Telemetry()
"""Records nothing."""
