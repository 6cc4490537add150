"""Canary, challenger, shadow: who is answered by which, and when one is withdrawn."""

from __future__ import annotations

import asyncio
import logging
import threading
import time

import grpc
import pytest

from conductor.model.v1 import model_service_pb2 as messages
from conductor.model.v1.model_service_pb2_grpc import ModelServiceStub
from conductor.prediction.v1 import build_duration_pb2
from conductor.prediction.v1.provenance_pb2 import FallbackReason, Variant
from conductor_model_store import ModelStore, ModelStoreUnavailable
from conductor_rpc import names
from conductor_server.models import comparison
from conductor_server.models.canary_bounds import CanaryBounds
from conductor_server.models.served_model import ServedModel
from conductor_server.models.shares import place_of
from conductor_server.models.variant_statistics import VariantStatistics
from server.harness import PREDICTOR, seconds, serving, write_features
from server.many import measured, on

ROW = (100.0, 0.0, 60.0, 2.0)
CHAMPION, CANARY, CHALLENGER = Variant.VARIANT_CHAMPION, Variant.VARIANT_CANARY, Variant.VARIANT_CHALLENGER
BRANCHES = [f"branch-{number}" for number in range(60)]
CALM = {"canary_minimum_count": 1_000_000}
"""For tests that are not about the guard."""


def position(branch: str) -> float:
    return place_of(PREDICTOR, "acme", ("shop/web", "ci", branch))


def expected(branch: str, canary: float, challenger: float = 0.0):
    at = position(branch)
    return CANARY if at < canary else CHALLENGER if at < canary + challenger else CHAMPION


async def answered_by(server, variant):
    """Once the server has taken the roll-out up; some branch is of each share."""
    for branch in BRANCHES:
        await server.predict(on(branch))
    deadline = time.monotonic() + 60
    while True:
        for branch in BRANCHES:
            if (await server.predict(on(branch))).provenance.variant == variant:
                return
        assert time.monotonic() < deadline


async def eventually(condition, limit: float = 60):
    deadline = time.monotonic() + limit
    while not (found := condition()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    return found


@pytest.mark.parametrize("tenant_id", ["", "acme"])
async def test_each_entity_has_its_variant_and_keeps_it(redis_url, store, fleet, tenant_id):
    write_features(redis_url)
    versions = {CHAMPION: fleet.publish(10, tenant_id).version}
    for variant, channel, bias in ((CANARY, "canary", 500), (CHALLENGER, "challenger", 900)):
        versions[variant] = fleet.publish(bias, tenant_id, channel=channel).version
        fleet.store.promote(PREDICTOR, tenant_id, versions[variant], channel, weight=0.3)
    async with serving(redis_url, store, **CALM) as server:
        await answered_by(server, CHALLENGER)
        await answered_by(server, CANARY)
        for _ in range(2):
            batch = build_duration_pb2.BatchPredictBuildDurationsRequest(tenant_id="acme", requests=map(on, BRANCHES))
            together = (await server.stub.BatchPredictBuildDurations(batch)).results
            for branch, result in zip(BRANCHES, together, strict=True):
                for answer in (await server.predict(on(branch)), result.response):
                    label = answer.provenance
                    assert label.variant == expected(branch, 0.3, 0.3)
                    assert label.model_version == versions[label.variant]
                    assert fleet.is_right("acme", answer, ROW)
        assert {expected(branch, 0.3, 0.3) for branch in BRANCHES} == {CHAMPION, CANARY, CHALLENGER}
        # Another weight moves only the entities between the two.
        fleet.store.promote(PREDICTOR, tenant_id, versions[CANARY], "canary", weight=0.5)
        between = next(branch for branch in BRANCHES if 0.3 <= position(branch) < 0.5)
        await server.eventually(lambda a: a.provenance.variant == CANARY, on(between))
        for branch in BRANCHES:
            assert (await server.predict(on(branch))).provenance.variant == expected(branch, 0.5, 0.3)
        fleet.store.withdraw(PREDICTOR, tenant_id, "canary", "enough")
        first = next(branch for branch in BRANCHES if position(branch) < 0.3)
        answer = await server.eventually(lambda a: a.provenance.variant != CANARY, on(first))
        # The challenger's share is from 0 now.
        assert answer.provenance.variant == CHALLENGER
        fleet.store.rollback(PREDICTOR, tenant_id, "canary")
        await server.eventually(lambda a: a.provenance.variant == CANARY, on(first))


def test_places_are_the_same_for_ever_and_spread_evenly():
    assert place_of("build-duration", "acme", ("shop/web", "ci", "main")) == pytest.approx(_MAIN, abs=1e-12)
    assert place_of("p", "a", ("bc",)) != place_of("p", "ab", ("c",))
    found = [place_of("p", "t", (str(number),)) for number in range(4000)]
    for share in (0.05, 0.3, 0.5, 0.9):
        assert sum(at < share for at in found) / len(found) == pytest.approx(share, abs=0.03)


_MAIN = 0.6381663688016246


async def test_where_a_canary_can_not_answer_the_champion_does(redis_url, store, fleet):
    write_features(redis_url)
    fleet.publish(10, "acme")
    version = fleet.publish(
        500, "acme", channel="canary", change=lambda m: setattr(m.inputs[1], "required", True)
    ).version
    fleet.store.promote(PREDICTOR, "acme", version, "canary", weight=1.0)
    async with serving(redis_url, store, **CALM) as server:
        await answered_by(server, CANARY)
        answer = await server.predict(on("main", lines=None))
    assert answer.provenance.variant == CHAMPION
    assert answer.provenance.fallback_reason == FallbackReason.FALLBACK_REASON_MODEL_FAILED
    assert seconds(answer.duration) == pytest.approx(fleet.median("acme", answer.provenance.model_version, ROW))


async def test_a_canary_that_can_not_be_loaded_leaves_its_share_to_the_champion(redis_url, store, fleet, caplog):
    write_features(redis_url)
    fleet.publish(10, "acme")
    version = fleet.publish(500, "acme", channel="canary", change=lambda m: m.ClearField("golden_requests")).version
    fleet.store.promote(PREDICTOR, "acme", version, "canary", weight=1.0)
    with caplog.at_level(logging.ERROR):
        async with serving(redis_url, store, **CALM) as server:
            await server.predict(on("main"))
            await eventually(lambda: "golden requests" in caplog.text)
            for branch in BRANCHES:
                answer = await server.predict(on(branch))
                assert (answer.provenance.variant, answer.provenance.fallback_reason) == (CHAMPION, 0)
                assert fleet.is_right("acme", answer, ROW)


async def statistics_of(server, channel, **ours):
    async with grpc.aio.insecure_channel(server.target) as link:
        found = await ModelServiceStub(link).GetModel(
            messages.GetModelRequest(tenant_id="acme", predictor=PREDICTOR, **ours)
        )
    return next((one for one in found.statistics if one.channel == channel), None)


async def test_a_shadow_scores_every_request_and_answers_none(redis_url, store, fleet):
    write_features(redis_url)
    fleet.publish(10, "acme")
    fleet.publish(10 + 182, "acme", channel="shadow")
    telemetry, read = measured()
    async with serving(redis_url, store, telemetry) as server:
        await server.predict(on("main"))
        await asyncio.sleep(0)
        deadline = time.monotonic() + 60
        while (found := await statistics_of(server, "shadow")) is None:
            await server.predict(on("main"))
            assert time.monotonic() < deadline
        before = found.compared_count
        for branch in BRANCHES:
            answer = await server.predict(on(branch))
            assert answer.provenance.variant == CHAMPION
            assert fleet.is_right("acme", answer, ROW)
        while (found := await statistics_of(server, "shadow")).compared_count < before + len(BRANCHES):
            assert time.monotonic() < deadline + 10
        # 146 + 182 beside 146: ln 2.2466.
        assert found.mean_difference == pytest.approx(0.8094, abs=1e-3)
        assert (found.p50_difference, found.p95_difference) == pytest.approx((0.8094, 0.8094), abs=1e-3)
        assert (found.failure_count, found.dropped_count) == (0, 0)
        assert found.latency_ratio > 0
        assert read()[names.VARIANT_DIFFERENCE] >= len(BRANCHES)


async def test_a_shadow_that_hangs_or_fails_changes_no_answer_and_holds_up_none(redis_url, store, fleet, monkeypatch):
    write_features(redis_url)
    fleet.publish(10, "acme")
    shadow = fleet.publish(300, "acme", channel="shadow").version
    gate, entered, score = threading.Event(), threading.Event(), ServedModel.score
    monkeypatch.setattr(comparison, "_MOST_WAITING", 20)

    def hang(self, inputs):
        if self.label.version == shadow:
            entered.set()
            assert gate.wait(60)
            raise comparison.ModelFailed("no")
        return score(self, inputs)

    monkeypatch.setattr(ServedModel, "score", hang)
    telemetry, read = measured()
    try:
        async with serving(redis_url, store, telemetry) as server:
            await server.eventually(lambda _: entered.is_set(), on("main"))
            asked = 0
            # With the shadow hanging, all are answered: more than may wait.
            for _ in range(2):
                for branch in BRANCHES:
                    assert fleet.is_right("acme", await server.predict(on(branch)), ROW)
                    asked += 1
            assert read()[names.VARIANT_DROPS] >= asked - 20
            gate.set()
            await eventually(lambda: read().get(names.VARIANT_FAILURES, 0) >= 20)
            assert fleet.is_right("acme", await server.predict(on("main")), ROW)
            found = await statistics_of(server, "shadow")
            assert (found.compared_count, found.failure_count >= 20, found.dropped_count > 0) == (0, True, True)
    finally:
        gate.set()


GUARDED = {"canary_minimum_count": 20, "canary_max_latency_ratio": 1000.0}


@pytest.mark.parametrize("kind", ["disagreement", "failures"])
async def test_a_canary_that_does_not_hold_is_withdrawn_with_its_reason(redis_url, store, fleet, caplog, kind):
    write_features(redis_url)
    good = fleet.publish(10, "acme").version
    change = (lambda m: setattr(m.inputs[1], "required", True)) if kind == "failures" else None
    bias = 12 if kind == "failures" else 5000
    version = fleet.publish(bias, "acme", channel="canary", change=change).version
    fleet.store.promote(PREDICTOR, "acme", version, "canary", weight=0.5)
    telemetry, read = measured()
    async with (
        serving(redis_url, store, telemetry, **GUARDED) as one,
        serving(redis_url, store, telemetry, **GUARDED) as other,
    ):
        deadline = time.monotonic() + 60
        while fleet.store.resolve(PREDICTOR, "acme", "canary") is not None:
            for server in (one, other):
                for branch in BRANCHES:
                    answer = await server.predict(on(branch, lines=None))
                    assert fleet.is_right("acme", answer, ROW)
            assert time.monotonic() < deadline
        for server in (one, other):
            await server.eventually(lambda a: a.provenance.model_version == good, on(BRANCHES[0]))
        last = fleet.store.history(PREDICTOR, "acme", "canary")[0]
        assert (last.withdrawn, last.reason) == (True, "withdraw")
        assert last.detail.startswith("share of failures 1" if kind == "failures" else "disagreement")
        assert len(fleet.store.history(PREDICTOR, "acme", "canary")) == 3  # two servers, one withdrawal
        for server in (one, other):
            for branch in BRANCHES:
                assert (await server.predict(on(branch))).provenance.variant == CHAMPION
        assert f"canary {version} is withdrawn" in caplog.text
        assert read()[names.CANARY_WITHDRAWALS] in (1, 2)
        found = await statistics_of(one, "canary")
        assert found.failure_count + found.compared_count >= 20
    assert fleet.store.resolve(PREDICTOR, "acme").version == good


async def test_a_canary_that_holds_stays(redis_url, store, fleet):
    write_features(redis_url)
    fleet.publish(10, "acme")
    version = fleet.publish(12, "acme", channel="canary").version
    fleet.store.promote(PREDICTOR, "acme", version, "canary", weight=0.5)
    async with serving(redis_url, store, **GUARDED) as server:
        await answered_by(server, CANARY)
        deadline = time.monotonic() + 60
        while (await statistics_of(server, "canary")).compared_count < 60:
            for branch in BRANCHES:
                await server.predict(on(branch))
            assert time.monotonic() < deadline
    assert fleet.store.resolve(PREDICTOR, "acme", "canary").version == version


async def test_where_the_store_is_read_only_the_canary_is_withdrawn_here(redis_url, store, fleet, monkeypatch, caplog):
    write_features(redis_url)
    fleet.publish(10, "acme")
    version = fleet.publish(5000, "acme", channel="canary").version
    fleet.store.promote(PREDICTOR, "acme", version, "canary", weight=1.0)

    def refuse(*_, **__):
        raise ModelStoreUnavailable("read only")

    monkeypatch.setattr(ModelStore, "withdraw", refuse)
    async with serving(redis_url, store, **GUARDED) as server:
        deadline = time.monotonic() + 60
        while "in this process only" not in caplog.text:
            await server.predict(on("main"))
            assert time.monotonic() < deadline
        for branch in BRANCHES:
            assert (await server.predict(on(branch))).provenance.variant == CHAMPION
    assert fleet.store.resolve(PREDICTOR, "acme", "canary").version == version


def test_the_guard_judges_by_every_bound_and_not_too_soon():
    bounds = CanaryBounds(10, max_failure_share=0.1, max_latency_ratio=2.0, max_disagreement=0.2)

    def of(compared: int, failed: int, ratio: float, own_seconds: float) -> VariantStatistics:
        found = VariantStatistics(failure_count=failed)
        for _ in range(compared):
            found.compared(100.0 * ratio, 100.0)
            found.seconds.append((own_seconds, 1.0))
        return found

    assert bounds.broken(of(9, 0, 5.0, 9.0)) is None
    assert bounds.broken(of(10, 0, 1.1, 1.9)) is None
    for found, kind in (
        (of(10, 2, 1, 1), "failures"),
        (of(10, 0, 1, 2.1), "latency"),
        (of(10, 0, 1.3, 1), "disagreement"),
    ):
        assert bounds.broken(found)[0] == kind
    assert bounds.broken(of(10, 0, 1 / 1.3, 1))[0] == "disagreement"
