"""What holds up the whole process stands in the traces of those who waited."""

from __future__ import annotations

import asyncio
import gc
import time

from conductor_rpc import names, stalls
from conductor_rpc.stalls import Stalls
from rpc.harness import request, serving
from rpc.traced import Traced


async def test_a_stall_stands_in_the_trace_of_who_waited_and_not_in_others():
    traced = Traced(slow_seconds=0)
    moments = []

    async def wait(_):
        loop = asyncio.get_running_loop()
        loop.call_later(0.05, hold_up)
        await asyncio.sleep(0.1)

    def hold_up():
        moments.append(time.time_ns())
        time.sleep(0.2)
        moments.append(time.time_ns())

    async with serving(traced.telemetry) as running, running.stub() as stub:
        running.predictions.behaviour = wait
        await stub.PredictBuildDuration(request())
        [root] = traced.calls
        of_it = [span for span in traced.stalls if span.parent.span_id == root.context.span_id]
        then = [span for span in of_it if span.start_time < moments[1] and span.end_time > moments[0]]
        longest = max(then, key=lambda span: span.end_time - span.start_time)  # of these: the machine adds its own
        assert longest.name == names.EVENT_LOOP_STALL
        assert longest.end_time - longest.start_time > 0.15e9
        running.predictions.behaviour = None
        await asyncio.sleep(0.05)
        await stub.PredictBuildDuration(request())
    later = [span for span in traced.calls if span is not root and span.context.span_id != root.context.span_id]
    assert all(
        span.start_time >= moments[1] for span in traced.stalls if span.parent.span_id == later[0].context.span_id
    )


async def test_a_stall_at_whose_end_a_call_ends_is_noticed():
    found = Stalls()
    found.start()
    await asyncio.sleep(0)
    began = time.perf_counter()
    time.sleep(0.1)  # noqa: ASYNC251 - a stall is the point
    ended = time.perf_counter()
    names_found = {stall.name for stall in found.during(began, ended)}
    found.stop()
    assert names.EVENT_LOOP_STALL in names_found
    assert list(found.during(ended + 1, ended + 2)) == []
    assert found.loop_seconds >= 0.07


async def test_collections_of_garbage_are_timed(monkeypatch):
    monkeypatch.setattr(stalls, "_LEAST_SECONDS", 0.0)
    found = Stalls()
    found.start()
    began = time.perf_counter()
    gc.collect()
    ended = time.perf_counter()
    assert names.GC_PAUSE in {stall.name for stall in found.during(began, ended)}
    assert found.gc_seconds > 0
    found.stop()
    before = found.gc_seconds
    gc.collect()
    assert found.gc_seconds == before, "nothing is left behind"


async def test_who_comes_right_after_a_stall_may_have_waited_in_it(monkeypatch):
    began = now = 100.0  # a clock of the test's own: a busy machine adds no stalls
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    found = Stalls()
    found.start()
    now += 0.1
    async with asyncio.timeout(30):
        while not found.loop_seconds:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)
    found.stop()
    ended = now + 0.001
    assert began - 0.01 < found.waited_since(ended) < began + 0.05
    assert names.EVENT_LOOP_STALL in {stall.name for stall in found.during(ended, ended + 1)}
    assert found.waited_since(ended + 1) == ended + 1
    assert Stalls().waited_since(ended) == ended
