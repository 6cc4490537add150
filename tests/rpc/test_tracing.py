"""Which calls leave a trace, and what stands in it. Spans are the real SDK's, calls go through a real server."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack

import grpc
import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBasedTraceIdRatio, TraceIdRatioBased
from opentelemetry.trace import StatusCode

from conductor.events.v1.event_service_pb2 import PublishEventsRequest
from conductor.events.v1.event_service_pb2_grpc import EventServiceStub
from conductor_rpc import names, tracing
from conductor_rpc.call import NO_DEADLINE, Call, set_current_call
from conductor_rpc.sampling import head_sampler
from conductor_rpc.telemetry import OFF
from rpc.harness import PREDICTION, bearer, request, serving
from rpc.traced import METHOD, OFF_BUT_FOR_CALLERS, Traced

TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


async def ask(traced, behaviour=None, count=1, flags=None):
    """Ask a server so many times; the names of the codes."""
    metadata = () if flags is None else (("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-{flags}"),)
    codes = []
    async with serving(traced.telemetry) as running, running.stub() as stub:
        running.predictions.behaviour = behaviour
        for _ in range(count):
            call = stub.PredictBuildDuration(request(), metadata=metadata)
            codes.append((await call.code()).name)
    return codes


async def test_a_caller_who_samples_gets_the_whole_trace():
    traced = Traced()
    took = []

    async def work(_):
        began = time.time_ns()
        with traced.telemetry.stage(names.MODEL_RUN):
            await asyncio.sleep(0.02)
        took.append((began, time.time_ns()))

    assert await ask(traced, work, flags="01") == ["OK"]
    assert set(traced.spans) == {METHOD, names.RECEIVE, names.ADMISSION, names.MODEL_RUN}
    root, admission, run = (traced.spans[name] for name in (METHOD, names.ADMISSION, names.MODEL_RUN))
    assert f"{root.parent.span_id:016x}" == PARENT_ID
    for stage in (admission, run):
        assert stage.parent.span_id == root.context.span_id
        assert f"{stage.context.trace_id:032x}" == TRACE_ID
        assert names.STAGE_UNFINISHED not in stage.attributes
    assert root.start_time <= admission.start_time <= admission.end_time <= run.start_time <= run.end_time
    assert run.end_time <= root.end_time
    [(began, ended)] = took
    moments = [(run.start_time, began), (run.end_time, ended)]
    assert all(abs(told - measured) < 5e9 for told, measured in moments), "the time of day"
    assert run.end_time - run.start_time >= 20e6
    assert names.KEPT_FOR not in root.attributes


async def test_an_unsampled_fast_call_leaves_nothing():
    traced = Traced()
    assert await ask(traced, count=3) == ["OK"] * 3
    assert await ask(traced, flags="00") == ["OK"]
    assert traced.spans == {}
    assert traced.exemplars(names.RPC_SERVER_CALL_DURATION) == []


@pytest.mark.parametrize(
    "head", [OFF_BUT_FOR_CALLERS, ALWAYS_OFF, TraceIdRatioBased(0.0)], ids=["parent", "off", "ratio"]
)
@pytest.mark.parametrize("flags", [None, "00"])
async def test_an_unsampled_slow_call_leaves_all_of_its_trace(head, flags):
    behaviour = lambda _: asyncio.sleep(0.06)  # noqa: E731
    traced = Traced(head, slow_seconds=30)
    assert await ask(traced, behaviour, flags=flags) == ["OK"]
    assert traced.spans == {}, "it was not slow"
    traced = Traced(head, slow_seconds=0.05)
    assert await ask(traced, behaviour, flags=flags) == ["OK"]
    assert set(traced.spans) == {METHOD, names.RECEIVE, names.ADMISSION}
    root = traced.spans[METHOD]
    assert traced.spans[names.ADMISSION].parent.span_id == root.context.span_id
    assert root.attributes[names.KEPT_FOR] == names.SLOW
    assert (root.parent and f"{root.parent.span_id:016x}") == (flags and PARENT_ID)


async def test_an_unsampled_failing_call_leaves_all_of_its_trace():
    traced = Traced()

    async def fail(_):
        raise RuntimeError

    assert await ask(traced, fail) == ["INTERNAL"]
    root = traced.spans[METHOD]
    assert set(traced.spans) == {METHOD, names.RECEIVE, names.ADMISSION}
    assert root.attributes[names.KEPT_FOR] == names.FAULT
    assert root.attributes[names.ERROR_TYPE] == "INTERNAL"
    assert root.status.status_code is StatusCode.ERROR


async def test_what_a_caller_did_wrong_is_no_reason():
    traced = Traced()
    async with serving(traced.telemetry) as running, running.stub() as stub:
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.PredictBuildDuration(request(change={"added_line_count": -1}))
    assert traced.spans == {}


async def test_a_refusal_is_kept_with_its_reason_its_tenant_and_the_time_there_was():
    traced = Traced()
    async with serving(traced.telemetry, tenant_rates={"acme": 0.1}) as running, running.stub() as stub:
        await stub.PredictBuildDuration(request())
        assert traced.spans == {}
        began = time.monotonic()
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.PredictBuildDuration(request(), timeout=7)
        took = time.monotonic() - began
    told = traced.spans[METHOD].attributes
    assert (told[names.KEPT_FOR], told[names.ERROR_REASON]) == (names.REFUSED, "RATE_LIMITED")
    assert told[names.TENANT_ID] == "acme"
    assert 6.9 - took < told[names.DEADLINE_SECONDS] < 7.2, "gRPC rounds up"


async def test_a_stage_that_went_without_is_told_of_each_call_that_is_in_it():
    traced = Traced()
    calls = [Call(f"/{METHOD}", {}, NO_DEADLINE) for _ in range(2)]
    with ExitStack() as under_way:
        for call in calls:
            under_way.enter_context(traced.telemetry.call(call))
        with traced.telemetry.shared_stage(names.FEATURES_READ, calls):
            with traced.telemetry.span(names.MODEL_RUN, {names.MODEL_ROWS: 3}, calls[:1]):
                pass
            traced.telemetry.went_without(TimeoutError("not in time"))
        traced.telemetry.went_without(TimeoutError("of no stage"))
    reads = [span for span in traced.all_spans if span.name == names.FEATURES_READ]
    assert [span.attributes[names.ERROR_TYPE] for span in reads] == ["TimeoutError"] * 2
    assert [span.status.description for span in reads] == ["not in time"] * 2
    assert [span.attributes[names.KEPT_FOR] for span in traced.calls] == [names.FALLBACK] * 2
    [run] = [span for span in traced.all_spans if span.name == names.MODEL_RUN]
    assert run.attributes == {names.MODEL_ROWS: 3}


async def test_an_answer_that_fell_back_is_kept_with_what_answered():
    traced = Traced()

    async def fall_back(_):
        traced.telemetry.annotate({names.MODEL_NAME: "global"}, fell_back=True)

    await ask(traced, fall_back)
    told = traced.spans[METHOD].attributes
    assert (told[names.KEPT_FOR], told[names.MODEL_NAME]) == (names.FALLBACK, "global")


async def test_a_stage_that_outlives_its_call_is_told_too():
    traced = Traced()
    stages = []

    async def hang(_):
        stages.append(traced.telemetry.stage(names.FEATURES_READ))
        stages[0].__enter__()
        raise RuntimeError

    await ask(traced, hang)
    root, read = traced.spans[METHOD], traced.spans[names.FEATURES_READ]
    assert read.attributes[names.STAGE_UNFINISHED]
    assert read.end_time == root.end_time


async def test_a_shared_stage_is_in_the_trace_of_each():
    """Calls of one task, begun before others ended, as the messages of a stream are."""
    traced = Traced(ALWAYS_ON)
    calls = [Call(f"/{PREDICTION}/{number}", {}, NO_DEADLINE) for number in range(3)]
    with ExitStack() as under_way:
        for call in calls:
            under_way.enter_context(traced.telemetry.call(call))
        set_current_call(calls[1])
        traced.telemetry.annotate({names.MODEL_VERSION: "v1"})
        with traced.telemetry.shared_stage(names.MODEL_RUN, calls[:2]):
            pass
    spans = traced.all_spans
    roots = {span.name[-1]: span for span in spans if span.name != names.MODEL_RUN}
    runs = {span.parent.span_id: span for span in spans if span.name == names.MODEL_RUN}
    assert set(runs) == {roots["0"].context.span_id, roots["1"].context.span_id}
    assert [names.MODEL_VERSION in roots[number].attributes for number in "012"] == [False, True, False]
    assert len({span.context.trace_id for span in spans}) == 3


async def test_everything_where_it_is_asked_for():
    traced = Traced(ParentBasedTraceIdRatio(1.0))
    await ask(traced, count=20)
    assert len(traced.calls) == 20


async def test_a_share_of_calls_that_no_caller_decided_about():
    traced = Traced(ParentBasedTraceIdRatio(0.5))
    for _ in range(400):
        with traced.telemetry.call(Call(f"/{METHOD}", {}, NO_DEADLINE)):
            pass
    assert 140 < len(traced.calls) < 260


async def test_the_tail_is_bounded_so_that_a_slow_server_is_not_slowed_down(monkeypatch):
    monkeypatch.setattr(tracing, "_MOST_AT_ONCE", 5)
    monkeypatch.setattr(tracing, "_MOST_PER_S", 2.0)
    traced = Traced(slow_seconds=0)

    def end(code, count):
        """How many of so many calls are kept."""
        before = len(traced.calls)
        for _ in range(count):
            call = Call(f"/{METHOD}", {}, NO_DEADLINE)
            with traced.telemetry.call(call):
                call.code = code
        return len(traced.calls) - before

    monkeypatch.setattr(time, "perf_counter", lambda: 7.0)
    assert end("OK", 20) == 5
    assert end("INTERNAL", 1) == 1, "one reason does not hide another"
    monkeypatch.setattr(time, "perf_counter", lambda: 8.0)
    assert end("OK", 20) == 2
    monkeypatch.setattr(time, "perf_counter", lambda: 100.0)
    assert end("OK", 20) == 5


async def test_strangers_who_sample_leave_few_traces(secure, keys, authority, monkeypatch):
    """Else who has no credentials fills the exporter's queue, and others' traces are lost."""
    monkeypatch.setattr(tracing, "_MOST_AT_ONCE", 3)
    monkeypatch.setattr(tracing, "_MOST_PER_S", 0.0)
    traced = Traced()
    sampled = (("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-01"),)
    known = (*sampled, *bearer(keys.token("acme")))
    async with serving(traced.telemetry, **secure) as running, running.stub(authority.credentials()) as stub:
        for metadata in (sampled, known):
            for _ in range(5):
                await stub.PredictBuildDuration(request("acme"), metadata=metadata).code()
    told = [span.attributes[names.RPC_RESPONSE_STATUS_CODE] for span in traced.calls]
    assert told == ["UNAUTHENTICATED"] * 3 + ["OK"] * 5


async def test_exemplars_point_to_the_trace():
    traced = Traced(slow_seconds=0)
    await ask(traced)
    [exemplar] = traced.exemplars(names.RPC_SERVER_CALL_DURATION)
    assert (exemplar.trace_id, exemplar.span_id) == (
        traced.spans[METHOD].context.trace_id,
        traced.spans[METHOD].context.span_id,
    )


async def test_a_stream_without_end_notes_no_end_of_stages():
    traced = Traced(ALWAYS_ON)
    call = Call(f"/{METHOD}", {}, NO_DEADLINE)
    with traced.telemetry.call(call):
        for _ in range(1000):
            with traced.telemetry.shared_stage(names.MODEL_RUN, [call]):
                pass
        assert len(call.stages) < 1000


def test_the_head_is_the_environments_or_ours(monkeypatch):
    monkeypatch.delenv("OTEL_TRACES_SAMPLER", raising=False)

    def head():
        return head_sampler().get_description()

    assert "ParentBased{root:TraceIdRatioBased{0.01}" in head()
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    assert "AlwaysOnSampler" in head()
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.25")
    assert "ParentBased{root:TraceIdRatioBased{0.25}" in head()


def test_off_notes_nothing():
    call = Call(f"/{METHOD}", {}, NO_DEADLINE)
    with OFF.call(call), OFF.shared_stage("a", [call]):
        assert call.stages is None


async def test_a_stream_that_lasts_is_not_slow():
    traced = Traced(slow_seconds=0)

    async def batches():
        yield PublishEventsRequest(tenant_id="acme")

    async with serving(traced.telemetry) as running, running.channel() as channel:
        await EventServiceStub(channel).PublishEvents(batches())
        assert traced.spans == {}
        async with running.stub() as stub:
            await stub.PredictBuildDuration(request())
    assert len(traced.calls) == 1
