"""What a process does beside its calls stands in the traces of those that were under way meanwhile."""

from __future__ import annotations

import asyncio

from conductor_rpc import names
from rpc.harness import request, serving
from rpc.traced import Traced


async def test_work_is_told_to_the_calls_that_it_overlaps_unless_it_was_short():
    traced = Traced(slow_seconds=0)

    async def work(_):
        with traced.telemetry.side_work("long", {"conductor.model.rows": 3}):
            await asyncio.sleep(0.05)
        with traced.telemetry.side_work("short", {}):
            pass

    async with serving(traced.telemetry) as running, running.stub() as stub:
        running.predictions.behaviour = work
        await stub.PredictBuildDuration(request())
        running.predictions.behaviour = None
        await stub.PredictBuildDuration(request())
    assert len(traced.calls) == 2
    [told] = [span for span in traced.all_spans if span.name in ("long", "short")]
    first = min(traced.calls, key=lambda call: call.start_time)
    assert (told.name, told.parent.span_id) == ("long", first.context.span_id)
    assert dict(told.attributes) == {"conductor.model.rows": 3}
    assert told.end_time - told.start_time >= 0.05e9


async def test_work_that_goes_on_is_told_too():
    traced = Traced(slow_seconds=0)
    async with serving(traced.telemetry) as running, running.stub() as stub:
        with traced.telemetry.side_work("work", {}):
            await asyncio.sleep(0.05)
            await stub.PredictBuildDuration(request())
    told, [call] = traced.spans["work"], traced.calls
    assert told.attributes[names.STAGE_UNFINISHED]
    assert (told.start_time < call.start_time, told.end_time) == (True, call.end_time)
