"""Answers, their labels, and each rung below the model."""

from __future__ import annotations

import math
import os
import signal

import grpc
import numpy as np
import pytest
import redis
from google.protobuf.duration_pb2 import Duration

from conductor.prediction.v1.build_duration_pb2 import BatchPredictBuildDurationsRequest
from conductor.prediction.v1.provenance_pb2 import PredictionMethod
from conductor_features.filling import position_key
from conductor_features.keys import entity_key
from conductor_features.views import REPOSITORY_BUILDS
from conductor_features.writer import write_rows
from conductor_server.prediction.answers import Estimate
from rpc.harness import failure, from_status
from server.harness import (
    QUEUED,
    SECOND,
    expected_median,
    graph,
    manifest,
    publish,
    request,
    seconds,
    serving,
    settings,
    with_golden,
    write_features,
)

MODEL = PredictionMethod.PREDICTION_METHOD_MODEL
DEGRADED = PredictionMethod.PREDICTION_METHOD_MODEL_DEGRADED
FROM_HISTORY = PredictionMethod.PREDICTION_METHOD_HISTORY
DEFAULT = PredictionMethod.PREDICTION_METHOD_DEFAULT
STATISTICS = {"lower_seconds": 10, "median_seconds": 20, "upper_seconds": 40, "row_count": 9}


def _fallback(result):
    result.fallback.overall.MergeFrom(type(result.fallback.overall)(**STATISTICS))
    result.fallback.pipelines.add(
        tenant_id="acme",
        repository="shop/web",
        pipeline="ci",
        statistics={"lower_seconds": 1, "median_seconds": 2, "upper_seconds": 4, "row_count": 5},
    )


def _required(result):
    _fallback(result)
    result.inputs[0].required = True


async def test_a_full_answer(redis_url, store):
    version = publish(store)
    write_features(redis_url)
    async with serving(redis_url, store) as server:
        answer = await server.predict(request(lines=7))
    median = expected_median(10, lines=7)
    assert seconds(answer.duration) == pytest.approx(median, rel=1e-6)
    assert seconds(answer.interval.lower_duration) == pytest.approx(0.8 * median, rel=1e-6)
    assert seconds(answer.interval.upper_duration) == pytest.approx(1.25 * median, rel=1e-6)
    assert answer.interval.coverage == 0.9
    provenance = answer.provenance
    assert provenance.method == MODEL
    assert provenance.model_name == "models/build-duration/global"
    assert (provenance.model_version, len(provenance.model_digest)) == (version.version, 64)
    assert seconds(provenance.oldest_feature_age) == 60
    assert not provenance.missing_features
    assert len(provenance.prediction_id) == 32
    assert provenance.HasField("prediction_time")


async def test_contributions(redis_url, store):
    publish(store)
    write_features(redis_url)
    async with serving(redis_url, store) as server:
        answer = await server.predict(request(lines=7))
        told = [(c.feature, c.value, seconds(c.effect_duration)) for c in answer.contributions]
        # recent 100 against 60; lines 7 against 10, twice; running 2 against 0, thrice; "since" has no typical value.
        assert told == [
            ("recent", 100, pytest.approx(40)),
            ("lines", 7, pytest.approx(-6)),
            ("running", 2, pytest.approx(6)),
        ]
        unknown = await server.predict(request())  # lines unknown: absent counts as 0 in this graph
        assert [c.feature for c in unknown.contributions] == ["recent", "lines", "running"]
        assert not unknown.contributions[1].HasField("value")
        assert seconds(unknown.contributions[1].effect_duration) == pytest.approx(-20)
        for count in (0, 1, 32):
            message = request(lines=7)
            message.contribution_count = count
            assert len((await server.predict(message)).contributions) == min(count, 3)


async def test_degraded_without_a_row(redis_url, store):
    publish(store)
    write_features(redis_url, load=False)
    async with serving(redis_url, store) as server:
        answer = await server.predict(request())
    assert answer.provenance.method == DEGRADED
    assert list(answer.provenance.missing_features) == ["tenant_load_v1.running_count"]
    assert seconds(answer.duration) == pytest.approx(expected_median(10, running=0))
    assert answer.interval.coverage == 0.9  # the entity never had a row: calibration holds over that


async def test_stale_rows_are_missing(redis_url, store):
    publish(store, change=lambda m: m.inputs[0].maximum_age.CopyFrom(Duration(seconds=30)))
    write_features(redis_url)
    async with serving(redis_url, store) as server:
        answer = await server.predict(request())
    assert answer.provenance.method == DEGRADED
    assert list(answer.provenance.missing_features) == ["pipeline_builds_v1.median_duration_7"]
    assert seconds(answer.duration) == pytest.approx(expected_median(10, recent=0))
    assert answer.interval.coverage == 0


@pytest.mark.parametrize("ahead", [0 * SECOND, 5 * SECOND])
async def test_nothing_known_later_than_the_named_moment_is_used(redis_url, store, ahead):
    publish(store)
    write_features(redis_url)
    async with serving(redis_url, store) as server:
        late = await server.predict(request(queued_time=QUEUED - 60 * SECOND - ahead))
        assert late.provenance.method == DEGRADED
        assert len(late.provenance.missing_features) == 3
        assert seconds(late.duration) == pytest.approx(10)
        now = await server.predict(request(queued_time=None))  # "now" is a year or so after those rows
        assert now.provenance.HasField("oldest_feature_age")


@pytest.mark.parametrize("damage", ["truncate", "flip", "swap", "type"])
async def test_damaged_values_are_never_used(redis_url, store, damage):
    publish(store)
    write_features(redis_url)
    write_features(redis_url, repository="shop/other", recent=9999)
    key = entity_key("pipeline_builds_v1", ("acme", "shop/web", "ci"))
    with redis.Redis.from_url(redis_url) as redis_client:
        value = redis_client.get(key)
        other = redis_client.get(entity_key("pipeline_builds_v1", ("acme", "shop/other", "ci")))
        redis_client.delete(key)
        match damage:
            case "truncate":
                redis_client.set(key, value[:-1])
            case "flip":
                redis_client.set(key, value[:50] + bytes([value[50] ^ 1]) + value[51:])
            case "swap":
                redis_client.set(key, other)
            case "type":
                redis_client.lpush(key, value)
    async with serving(redis_url, store) as server:
        answer = await server.predict(request())
    assert answer.provenance.method == DEGRADED
    assert "pipeline_builds_v1.median_duration_7" in answer.provenance.missing_features
    assert seconds(answer.duration) == pytest.approx(expected_median(10, recent=0, since=0))
    assert answer.interval.coverage == (0 if damage != "type" else 0.9)


@pytest.mark.parametrize(
    ("error", "lower", "upper", "coverage"),
    [(math.nan, 50, 200, 0), (math.log(2), 50, 200, 0.9), (0.1, 100 * math.exp(-0.1), 100 * math.exp(0.1), 0.9)],
)
async def test_history_rung(redis_url, store, error, lower, upper, coverage):
    write_features(redis_url, relative_error_50=error)
    async with serving(redis_url, store) as server:  # no model at all
        answer = await server.predict(request())
    assert answer.provenance.method == FROM_HISTORY
    assert seconds(answer.duration) == 100
    assert seconds(answer.interval.lower_duration) == pytest.approx(lower)
    assert seconds(answer.interval.upper_duration) == pytest.approx(upper)
    assert answer.interval.coverage == coverage
    assert answer.provenance.model_name == ""
    assert seconds(answer.provenance.oldest_feature_age) == 60
    assert not answer.contributions


async def test_history_of_the_repository(redis_url, store):
    values = [math.nan] * len(REPOSITORY_BUILDS.fields)
    for name, value in (("median_duration_30", 10), ("lower_duration_30", 12), ("upper_duration_30", 40)):
        values[REPOSITORY_BUILDS.field_index[name]] = value
    with redis.Redis.from_url(redis_url) as redis_client:
        write_rows(redis_client, REPOSITORY_BUILDS, [(("acme", "shop/web"), QUEUED - 5 * SECOND, values)])
    async with serving(redis_url, store) as server:
        answer = await server.predict(request(pipeline="new"))
        assert answer.provenance.method == FROM_HISTORY
        spread = [answer.interval.lower_duration, answer.duration, answer.interval.upper_duration]
        assert [seconds(duration) for duration in spread] == [10, 10, 40]  # stretched to hold the median
        assert seconds(answer.provenance.oldest_feature_age) == 5
        with pytest.raises(grpc.aio.AioRpcError) as caught:  # what was known only later is no history
            await server.predict(request(queued_time=QUEUED - 5 * SECOND))
        assert failure(caught.value).reason == "NO_PREDICTION"


async def test_nullable_columns_do_not_degrade_unless_unreadable(redis_url, store):
    def nullable(result):
        result.inputs[3].nullable = True
        result.inputs[3].maximum_age.CopyFrom(Duration(seconds=30))

    publish(store, change=nullable)
    write_features(redis_url, load=False)
    async with serving(redis_url, store) as server:
        with redis.Redis.from_url(redis_url) as redis_client:
            position = redis_client.getdel(position_key("tenant_load_v1"))
            answer = await server.predict(request())  # an online store that is being filled: nobody knows
            assert (answer.provenance.method, answer.interval.coverage) == (DEGRADED, 0)
            redis_client.set(position_key("tenant_load_v1"), position)
        for _ in ("absent", "too old"):
            answer = await server.predict(request())
            assert list(answer.provenance.missing_features) == ["tenant_load_v1.running_count"]
            assert (answer.provenance.method, answer.interval.coverage) == (MODEL, 0.9)
            write_features(redis_url)
        with redis.Redis.from_url(redis_url) as redis_client:
            redis_client.set(entity_key("tenant_load_v1", ("acme",)), b"damaged")
        answer = await server.predict(request())
        assert (answer.provenance.method, answer.interval.coverage) == (DEGRADED, 0)


async def test_history_from_the_manifest_then_default(redis_url, store):
    publish(store, change=_required)
    async with serving(redis_url, store) as server:
        answer = await server.predict(request())  # the required column is missing
        assert answer.provenance.method == FROM_HISTORY
        assert seconds(answer.duration) == 2
        assert answer.provenance.model_name == "models/build-duration/global"
        assert "pipeline_builds_v1.median_duration_7" in answer.provenance.missing_features
        answer = await server.predict(request(pipeline="other"))
        assert answer.provenance.method == DEFAULT
        assert seconds(answer.duration) == 20
        write_features(redis_url)
        assert (await server.predict(request())).provenance.method == MODEL


async def test_no_prediction(redis_url, store):
    async with serving(redis_url, store) as server:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await server.predict(request())
    assert (failure(caught.value).code, failure(caught.value).reason) == (grpc.StatusCode.UNAVAILABLE, "NO_PREDICTION")


async def test_tenants_model_then_the_global_one(redis_url, store):
    publish(store, 10)
    publish(store, 1000, "acme", lambda m: setattr(m.inputs[3], "required", True))
    write_features(redis_url, "acme")
    write_features(redis_url, "other")
    async with serving(redis_url, store) as server:
        own = await server.predict(request("acme"))
        assert own.provenance.model_name == "models/build-duration/tenants/acme"
        assert seconds(own.duration) == pytest.approx(expected_median(1000))
        other = await server.predict(request("other"))
        assert other.provenance.model_name == "models/build-duration/global"
        with redis.Redis.from_url(redis_url) as redis_client:
            redis_client.delete(entity_key("tenant_load_v1", ("acme",)))
        fallen = await server.predict(request("acme"))  # its own model can't do without that column
        assert fallen.provenance.model_name == "models/build-duration/global"
        assert fallen.provenance.method == DEGRADED


async def test_what_a_model_may_not_say_is_not_said(redis_url, store):
    """A row that makes the graph's answer NaN, infinite or negative falls to the next rung."""
    publish(store, change=_fallback)
    async with serving(redis_url, store) as server:
        for recent in (-1000.0, math.inf, 3e38):
            write_features(redis_url, recent=recent, age=60 * SECOND)
            answer = await server.predict(request())
            assert math.isfinite(seconds(answer.duration))
            assert seconds(answer.duration) > 0
            expected = DEGRADED if math.isinf(recent) else FROM_HISTORY
            assert answer.provenance.method in (expected, MODEL), recent
            if recent == -1000.0:
                assert answer.provenance.method == FROM_HISTORY


def test_estimates_that_can_not_be():
    nan, inf = math.nan, math.inf
    for bad in ((nan, 1, 2), (0, nan, 2), (0, 1, inf), (2, 1, 3), (0, 3, 2), (-3, -2, -1), (0, 0, 0), (0, 1, 1e12)):
        assert Estimate.checked(*bad) is None
    assert Estimate.checked(-1, 1, 2) == Estimate(0, 1, 2)


async def test_batch_is_the_same_as_one_by_one(redis_url, store):
    publish(store, change=_required)
    random = np.random.default_rng(7)
    messages = []
    for number in range(60):
        repository = f"r{number % 7}"
        if number % 3:
            write_features(redis_url, repository=repository, recent=float(random.integers(1, 500)))
        messages.append(request(repository=repository, lines=int(random.integers(0, 100))))
    async with serving(redis_url, store) as server:
        batch = await server.stub.BatchPredictBuildDurations(
            BatchPredictBuildDurationsRequest(tenant_id="acme", requests=messages)
        )
        assert len(batch.results) == len(messages)
        for message, result in zip(messages, batch.results, strict=True):
            one = await server.predict(message)
            for answer in (one, result.response):
                answer.provenance.ClearField("prediction_id")
                answer.provenance.ClearField("prediction_time")
            assert one == result.response


async def test_batch_items_fail_one_by_one(redis_url, store):
    publish(store)
    write_features(redis_url)
    bad = request(lines=-1)
    other = request("other")
    bare = request()
    bare.tenant_id = ""
    async with serving(redis_url, store) as server:
        batch = await server.stub.BatchPredictBuildDurations(
            BatchPredictBuildDurationsRequest(tenant_id="acme", requests=[request(), bad, other, bare])
        )
        kinds = [result.WhichOneof("result") for result in batch.results]
        assert kinds == ["response", "error", "error", "response"]
        assert from_status(batch.results[1].error).fields == {"build.change.added_line_count": "must not be negative"}
        assert from_status(batch.results[2].error).reason == "TENANT_MISMATCH"
        empty = await server.stub.BatchPredictBuildDurations(BatchPredictBuildDurationsRequest(tenant_id="acme"))
        assert not empty.results
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await server.stub.BatchPredictBuildDurations(
                BatchPredictBuildDurationsRequest(tenant_id="acme", requests=[request()] * 1025)
            )
        assert failure(caught.value).reason == "BATCH_TOO_LARGE"


async def test_tenants_do_not_see_each_other(redis_url, store):
    publish(store)
    write_features(redis_url, "acme", recent=100)
    write_features(redis_url, "a", recent=7777)
    async with serving(redis_url, store) as server:
        for tenant in ("acme2", "Acme", "acm", "*", "acme:", "4:acme"):
            answer = await server.predict(request(tenant))
            assert answer.provenance.method == DEGRADED
            assert seconds(answer.duration) == pytest.approx(10)


async def test_redis_killed_and_restarted(own_redis, store):
    publish(store, change=_required)
    write_features(own_redis.url)
    async with serving(own_redis.url, store) as server:
        assert (await server.predict(request())).provenance.method == MODEL
        os.kill(own_redis.pid, signal.SIGKILL)
        for _ in range(20):
            answer = await server.predict(request(), timeout=30)
            assert answer.provenance.method == FROM_HISTORY  # from the manifest
            assert seconds(answer.duration) == 2
        own_redis.stop()
        own_redis.start()
        write_features(own_redis.url)
        await server.eventually(lambda answer: answer.provenance.method == MODEL)


async def test_redis_that_hangs_costs_its_timeout_only(own_redis, store):
    publish(store, change=_fallback)
    write_features(own_redis.url)
    async with serving(own_redis.url, store, feature_timeout_seconds=0.02) as server:
        await server.eventually(lambda answer: answer.provenance.method == MODEL)
        os.kill(own_redis.pid, signal.SIGSTOP)
        try:
            for _ in range(10):
                answer = await server.predict(request(), timeout=10)
                assert answer.provenance.method == DEGRADED
                assert len(answer.provenance.missing_features) == 3
                assert answer.interval.coverage == 0
        finally:
            os.kill(own_redis.pid, signal.SIGCONT)
        await server.eventually(lambda answer: answer.provenance.method == MODEL)


async def test_cancelled_calls_leave_nothing_behind(redis_url, store):
    """Half of the calls are cancelled at random moments; the others' answers are their own."""
    import asyncio

    publish(store)
    for number in range(20):
        write_features(redis_url, repository=f"r{number}", recent=100.0 * number)
    random = np.random.default_rng(3)

    async def one(server, number):
        call = server.stub.PredictBuildDuration(request(repository=f"r{number}"))
        if random.random() < 0.5:
            await asyncio.sleep(random.random() * 0.01)
            call.cancel()
            return 0
        answer = await call
        assert seconds(answer.duration) == pytest.approx(expected_median(10, recent=100.0 * number), rel=1e-6)
        return 1

    async with serving(redis_url, store) as server:
        done = 0
        for _ in range(10):
            done += sum(await asyncio.gather(*(one(server, int(n)) for n in random.integers(0, 20, 50))))
    assert done > 100


def test_the_server_imports_no_training_library_and_no_database():
    import subprocess
    import sys

    code = (
        "import conductor_server.worker, conductor_server.cli, sys;"
        "print([m for m in ('psycopg','feast','pandas','sklearn','xgboost','onnx') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"[]\n"


def test_settings_are_documented_and_frozen(redis_url, store):
    found = settings(redis_url, store)
    assert all(field.description for field in type(found).model_fields.values())
    with pytest.raises(ValueError, match="frozen"):
        found.port = 1


def test_golden_requests_come_from_the_graph():
    content = graph(1)
    assert with_golden(manifest(content), content).golden_requests[1].outputs[1] == pytest.approx(1)
