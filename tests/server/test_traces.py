"""Why was this request slow, and which model answered it? The trace alone tells."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import grpc.aio

from conductor.inference.v2.inference_service_pb2 import ModelInferRequest
from conductor.inference.v2.inference_service_pb2_grpc import GRPCInferenceServiceStub
from conductor.prediction.v1.build_duration_pb2 import (
    BatchPredictBuildDurationsRequest,
    StreamBuildDurationPredictionsRequest,
)
from conductor_rpc import names
from conductor_server.features.online import OnlineFeatures
from rpc.harness import PREDICTION
from rpc.traced import METHOD, Traced
from server.harness import PREDICTOR, request, serving, write_features

STAGES = {names.ADMISSION, names.COALESCE_WAIT, names.FEATURES_READ, names.MODEL_RUN, names.COALESCE_RESUME}


async def test_a_slow_prediction_tells_where_its_time_went_and_what_answered(redis_url, store, fleet):
    version = fleet.publish_all(["acme"])["acme"].version
    write_features(redis_url)
    traced = Traced(slow_seconds=0)
    async with serving(redis_url, store, traced.telemetry) as server:
        answer = await server.predict(request())
    assert set(traced.spans) == {METHOD, names.RECEIVE, *STAGES}
    root = traced.spans[METHOD]
    assert all(traced.spans[stage].parent.span_id == root.context.span_id for stage in {names.RECEIVE, *STAGES})
    run, read = traced.spans[names.MODEL_RUN], traced.spans[names.FEATURES_READ]
    assert root.start_time < read.start_time < read.end_time <= run.start_time < run.end_time < root.end_time
    told = root.attributes
    assert told[names.PREDICTION_ID] == answer.provenance.prediction_id
    assert told[names.MODEL_NAME] == f"models/{PREDICTOR}/tenants/acme"
    assert told[names.MODEL_VERSION] == version
    assert (told[names.PREDICTION_METHOD], told[names.FALLBACK_REASON]) == ("model", "none")
    assert told[names.KEPT_FOR] == names.SLOW


async def test_what_fell_back_is_kept_and_what_did_not_is_not(redis_url, store, fleet):
    fleet.publish(10)
    fleet.publish_all(["acme"])
    write_features(redis_url)
    traced = Traced()
    async with serving(redis_url, store, traced.telemetry, model_load_all_count=0) as server:
        await server.predict(request("nobody"))
        assert traced.spans == {}
        await server.predict(request())
        told = traced.spans[METHOD].attributes
        assert told[names.KEPT_FOR] == names.FALLBACK
        assert told[names.FALLBACK_REASON] == "model_loading"
        assert told[names.MODEL_NAME] == f"models/{PREDICTOR}/global"


async def test_waiting_for_others_work_is_told(own_redis, store, fleet, monkeypatch):
    """Redis hangs: who asks while another's batch is there waits a moment for company."""
    fleet.publish(10)
    write_features(own_redis.url)
    traced = Traced(slow_seconds=0)
    begun, read = asyncio.Semaphore(0), OnlineFeatures.read

    async def noted(features, *arguments):
        begun.release()
        return await read(features, *arguments)

    monkeypatch.setattr(OnlineFeatures, "read", noted)
    async with serving(own_redis.url, store, traced.telemetry, feature_timeout_seconds=10) as server:
        await server.predict(request())
        await begun.acquire()
        os.kill(own_redis.pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(60):
                asked = [asyncio.ensure_future(server.predict(request()))]
                await begun.acquire()
                began = time.monotonic()
                asked.append(asyncio.ensure_future(server.predict(request())))
                await begun.acquire()
                await asyncio.sleep(2 * (time.monotonic() - began))  # so most of its time is not that wait
        finally:
            os.kill(own_redis.pid, signal.SIGCONT)
        await asyncio.gather(*asked)
    last = max(traced.calls, key=lambda span: span.start_time)
    [wait] = [
        span
        for span in traced.all_spans
        if span.name == names.COALESCE_WAIT and span.parent.span_id == last.context.span_id
    ]
    assert 0.004e9 <= wait.end_time - wait.start_time < 0.5 * (last.end_time - last.start_time)
    assert names.STAGE_UNFINISHED not in wait.attributes


async def test_without_redis_the_trace_tells_what_was_missing(redis_url, store, fleet):
    fleet.publish(10)
    traced = Traced(slow_seconds=0)
    async with serving("redis://127.0.0.1:1/0", store, traced.telemetry) as server:
        await server.predict(request())
    told = traced.spans[METHOD].attributes
    assert told[names.PREDICTION_METHOD] == "model_degraded"
    count, _, first = told[names.FEATURES_MISSING].partition(": ")
    assert int(count) == 3
    assert "pipeline_builds_v1.median_duration_7" in first


async def test_a_batch_tells_which_models_answered_how_many(redis_url, store, fleet):
    version = fleet.publish_all(["acme"])["acme"].version
    write_features(redis_url)
    traced = Traced(slow_seconds=0)
    async with serving(redis_url, store, traced.telemetry) as server:
        items = [request(), request(repository="shop/other"), request()]
        await server.stub.BatchPredictBuildDurations(
            BatchPredictBuildDurationsRequest(tenant_id="acme", requests=items)
        )
    [root] = [span for span in traced.all_spans if span.name == f"{PREDICTION}/BatchPredictBuildDurations"]
    told = root.attributes
    assert told[names.ANSWERED_TOGETHER] == "3"
    assert told[names.METHODS] == "model: 2, model_degraded: 1"
    assert told[names.MODELS] == f"models/{PREDICTOR}/tenants/acme@{version}: 3"
    assert told[names.FALLBACK_REASON] == "none: 3"
    stages = {span.name for span in traced.all_spans if span.parent and span.parent.span_id == root.context.span_id}
    of_batch = {names.BATCH_CHECK, names.BATCH_ANSWER}
    assert stages >= {names.ADMISSION, names.FEATURES_READ, names.MODEL_RUN, *of_batch}


async def test_an_item_of_a_stream_and_raw_tensors_tell_it_too(redis_url, store, fleet):
    version = fleet.publish_all(["acme"])["acme"].version
    write_features(redis_url)
    traced = Traced(slow_seconds=0)
    async with serving(redis_url, store, traced.telemetry) as server:
        stream = server.stub.StreamBuildDurationPredictions()
        message = StreamBuildDurationPredictionsRequest()
        for item_id in range(3):
            message.items.add(id=item_id, request=request())
        await stream.write(message)
        await stream.done_writing()
        async for _ in stream:
            pass
        assert len(traced.calls) == 3
        for item in traced.calls:
            assert item.attributes[names.MODEL_VERSION] == version
            assert item.attributes[names.ANSWERED_TOGETHER] == "3"
            inside = [span for span in traced.all_spans if span.parent and span.parent.span_id == item.context.span_id]
            assert {span.name for span in inside} == STAGES
        async with grpc.aio.insecure_channel(server.target) as channel:
            asked = ModelInferRequest(model_name=PREDICTOR)
            asked.parameters["tenant_id"].string_param = "acme"
            tensor = asked.inputs.add(name="inputs", datatype="FP32", shape=[2, 4])
            tensor.contents.fp32_contents.extend([1.0] * 8)
            await GRPCInferenceServiceStub(channel).ModelInfer(asked)
    [root] = [span for span in traced.all_spans if span.name.endswith("/ModelInfer")]
    assert root.attributes[names.MODEL_VERSION] == version
    assert (root.attributes[names.ANSWERED_TOGETHER], root.attributes[names.FALLBACK_REASON]) == ("2", "none")
