"""Why was this request slow, and which model answered it? The trace alone tells."""

from __future__ import annotations

import pytest

from conductor_rpc import names
from rpc.traced import METHOD, Traced
from server.harness import PREDICTOR, request, serving, write_features
from server.many import Fleet

STAGES = {names.ADMISSION, names.FEATURES_READ, names.MODEL_RUN}


@pytest.fixture
def fleet(store):
    return Fleet(store)


async def test_a_slow_prediction_tells_where_its_time_went_and_what_answered(redis_url, store, fleet):
    version = fleet.publish_all(["acme"])["acme"].version
    write_features(redis_url)
    traced = Traced(slow_seconds=0)
    async with serving(redis_url, store, traced.telemetry) as server:
        answer = await server.predict(request())
    assert set(traced.spans) == {METHOD, *STAGES}
    root = traced.spans[METHOD]
    assert all(traced.spans[stage].parent.span_id == root.context.span_id for stage in STAGES)
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
