"""Ids of spans: those that a log line was told before, else random ones."""

from __future__ import annotations

from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

from conductor_rpc.tracing import GIVEN_IDS


class GivenIds(RandomIdGenerator):
    """For a TracerProvider."""

    def generate_trace_id(self) -> int:
        """The id for a new trace."""
        given = GIVEN_IDS.get()
        return given[0] if given else super().generate_trace_id()

    def generate_span_id(self) -> int:
        """The id for a new span."""
        given = GIVEN_IDS.get()
        return given[1] if given else super().generate_span_id()
