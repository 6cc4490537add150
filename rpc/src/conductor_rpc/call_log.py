"""A line in the log for a call that somebody will ask about: it was slow, or failed by the server's fault.

The line says what its trace would, for who has no tracing at hand. It is bounded as traces are: metrics count the rest.
"""

from __future__ import annotations

import logging

from conductor_rpc import names
from conductor_rpc.allowance import Allowance
from conductor_rpc.call import Call
from conductor_rpc.logs import fields
from conductor_rpc.tracing import ids_of, reason_to_keep

_LOG = logging.getLogger("conductor.calls")
_MOST_AT_ONCE, _MOST_PER_S = 20, 1.0


class CallLog:
    """Writes such lines."""

    def __init__(self, slow_seconds: float) -> None:
        self._slow_seconds = slow_seconds
        self._allowance = Allowance(_MOST_AT_ONCE, _MOST_PER_S)
        self._left_out_count = 0

    def ended(self, call: Call, began: float, ended: float) -> None:
        """Tell of a call, if it is worth it. Times are of ``time.perf_counter()``."""
        seconds = ended - began
        reason = reason_to_keep(call, seconds, self._slow_seconds)
        if reason not in (names.SLOW, names.FAULT):
            return
        if not self._allowance.take(ended):
            self._left_out_count += 1
            return
        left_out, self._left_out_count = self._left_out_count, 0
        trace_id, span_id = ids_of(call)
        _LOG.warning(
            "%s call: %s %s after %.1f ms",
            reason,
            call.method.removeprefix("/"),
            call.code,
            seconds * 1000,
            extra=fields(
                trace_id=f"{trace_id:032x}",
                span_id=f"{span_id:016x}",
                method=call.method.removeprefix("/"),
                code=call.code,
                duration_ms=round(seconds * 1000, 3),
                stages_ms=_stages_ms(call, ended),
                left_out=left_out,
                **call.attributes,
            ),
        )


def _stages_ms(call: Call, ended: float) -> dict[str, float]:
    """How long each stage took, those of one name together."""
    found: dict[str, float] = {}
    for stage in call.stages or ():
        found[stage.name] = found.get(stage.name, 0.0) + ((stage.ended or ended) - stage.began) * 1000
    return {name: round(milliseconds, 3) for name, milliseconds in found.items()}
