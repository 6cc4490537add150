"""Traces of calls. A call notes its stages; only at its end, and only if it is kept, are they made into spans.

The head, a sampler, keeps a share of all calls and what callers sample. The tail keeps calls that were slow, failed by
our fault, or were answered by something less than the best: what somebody will ask about. ADR 22 tells why.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer

from conductor_rpc import names
from conductor_rpc.allowance import Allowance
from conductor_rpc.call import NO_DEADLINE, Call
from conductor_rpc.side_work import SideWork
from conductor_rpc.stalls import Stalls

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.sampling import Sampler

_OTHERS = frozenset({"tracestate", "baggage"})
"""What callers tell each other beside the trace. Whatever it holds, we need none of it and export none of it."""
_TRACE_HEADERS = propagate.get_global_textmap().fields - _OTHERS
"""What callers tell of their trace with, in the formats that OTEL_PROPAGATORS names."""
SERVER_FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
_REFUSED = "RESOURCE_EXHAUSTED"
_STRANGERS = "UNAUTHENTICATED"
"""What those get whom nobody knows. That they sample their calls must not cost the traces of others."""
SLOW_SECONDS = 0.1
"""The budget of one prediction."""
_MOST_AT_ONCE = 100
_MOST_PER_S = 2.0
"""What the tail keeps for each reason: a hiccup as a whole; but where all calls are slow, tracing must not make it
worse. Metrics count every one."""

GIVEN_IDS: ContextVar[tuple[int, int] | None] = ContextVar("conductor_given_ids", default=None)
"""Trace and span id for the next span, where they were told to somebody before there was a span."""


def ids_of(call: Call) -> tuple[int, int]:
    """Trace and span id that the call's span has if it is kept; a call whose ids are known is."""
    if not call.span_id:
        call.trace_id = trace.get_current_span(_parent(call)).get_span_context().trace_id or _bits(128)
        call.span_id = _bits(64)
    return call.trace_id, call.span_id


class Traces:
    """Makes the spans of calls that are kept."""

    def __init__(
        self, tracer: Tracer, head: Sampler | None, slow_seconds: float, stalls: Stalls, side_work: SideWork
    ) -> None:
        """The tracer records all that it is told. ``head``: None keeps every call."""
        self._tracer, self._head, self._slow_seconds = tracer, head, slow_seconds
        self._stalls, self._side_work = stalls, side_work
        self._of_strangers = Allowance(_MOST_AT_ONCE, _MOST_PER_S)
        self._allowances = {reason: Allowance(_MOST_AT_ONCE, _MOST_PER_S) for reason in names.REASONS_TO_KEEP}

    def ended(self, call: Call, began: float, ended: float, attributes: Mapping[str, str]) -> Context | None:
        """Make the spans of a call, if it is kept. Times are of ``time.perf_counter()``.

        Returns:
            The context of the call's span; None where the call is not kept.
        """
        parent = _parent(call)
        # Who came right after a stall has most likely waited in it, where nobody could see him.
        seconds = ended - self._stalls.waited_since(began)
        reason = reason_to_keep(call, seconds, self._slow_seconds) or (names.LOGGED if call.span_id else "")
        sampled = self._sampled(parent, attributes) and (call.code != _STRANGERS or self._of_strangers.take(ended))
        if not (sampled or (reason and self._allowances[reason].take(ended))):
            return None
        clock = _Clock()
        name = attributes[names.RPC_METHOD]
        given = GIVEN_IDS.set((call.trace_id, call.span_id) if call.span_id else None)
        span = self._tracer.start_span(name, parent, SpanKind.SERVER, attributes, start_time=clock.ns(began))
        GIVEN_IDS.reset(given)
        span.set_attributes(call.attributes)
        tenant_id = call.tenant_id or (call.identity.tenant_id if call.identity is not None else "")
        if tenant_id:
            span.set_attribute(names.TENANT_ID, tenant_id)
        if call.deadline is not NO_DEADLINE:
            span.set_attribute(names.DEADLINE_SECONDS, call.deadline.time - call.began)
        if reason:
            span.set_attribute(names.KEPT_FOR, reason)
        if names.ERROR_TYPE in attributes:
            span.set_status(Status(StatusCode.ERROR))
        context = trace.set_span_in_context(span, parent)
        of_process = (*self._stalls.during(began, ended), *self._side_work.during(began, ended))
        for stage in (*(call.stages or ()), *of_process):
            of_stage = self._tracer.start_span(stage.name, context, start_time=clock.ns(stage.began))
            if stage.attributes is not None:
                of_stage.set_attributes(stage.attributes)
            if stage.error:
                of_stage.set_attribute(names.ERROR_TYPE, stage.error)
                of_stage.set_status(Status(StatusCode.ERROR, stage.error_text or None))
            if stage.ended is None:
                of_stage.set_attribute(names.STAGE_UNFINISHED, True)
            of_stage.end(clock.ns(ended if stage.ended is None else stage.ended))
        span.end(clock.ns(ended))
        return context

    def _sampled(self, parent: Context, attributes: Mapping[str, str]) -> bool:
        """What the head says. It is asked without a span, since nearly always it says no."""
        if self._head is None:
            return True
        # No parent's trace id is 0.
        trace_id = trace.get_current_span(parent).get_span_context().trace_id or _bits(128)
        name = attributes[names.RPC_METHOD]
        decision = self._head.should_sample(parent, trace_id, name, SpanKind.SERVER, attributes).decision
        return bool(decision.is_sampled())  # type: ignore[no-untyped-call]


def reason_to_keep(call: Call, seconds: float, slow_seconds: float) -> str:
    """Why somebody will ask about the call; empty for no reason."""
    if call.code in SERVER_FAULTS:
        return names.FAULT
    if call.code == _REFUSED:
        return names.REFUSED
    if call.streams:  # it lasts as long as its caller likes; what is waited for is its first message
        seconds = call.first_answered - call.began
    if seconds >= slow_seconds:
        return names.SLOW
    return names.FALLBACK if call.fell_back else ""


def _parent(call: Call) -> Context:
    if _TRACE_HEADERS.isdisjoint(call.metadata):
        return Context()
    told = {key: value for key, value in call.metadata.items() if isinstance(value, str) and key not in _OTHERS}
    return propagate.extract(told)


def _bits(count: int) -> int:
    return random.getrandbits(count) or 1  # 0 is no id


class _Clock:
    """Turns moments of ``time.perf_counter()`` into the time of day."""

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.perf_counter_ns()

    def ns(self, moment: float) -> int:
        """Nanoseconds since 1970."""
        return self._offset_ns + int(moment * 1e9)
