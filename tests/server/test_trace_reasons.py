"""«Why was this request slow, and which model answered it?» is asked of traces alone, for causes that are real."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import grpc.aio
import pytest

from conductor.prediction.v1.prediction_service_pb2_grpc import PredictionServiceStub
from conductor_rpc import names
from conductor_workbench.faults.network import CALM, RESET, Fault, slow
from machine import tries
from rpc.harness import AUDIENCE, ISSUER, Authority, Keys, bearer
from rpc.test_authentication import key_server
from server.harness import publish, request, write_features
from server.test_processes import command
from server.traced_platform import LATE_SECONDS, Asking, Platform, combined_diff, platform
from server.traces import Span, Told, Trace, collecting, new_trace, told

QUICK = ""
"""Nothing of it takes long: which stage is the longest is left to chance, and not asked."""
READ, RUN = names.FEATURES_READ, names.MODEL_RUN
DIFF = combined_diff(20_000)
PATTERNS = [f"*{number}*never*" for number in range(500)]
SLOW_REDIS, HANGING_REDIS = slow(LATE_SECONDS), slow(3600)


@dataclass(frozen=True)
class Case:
    """Something that makes an answer slow or poor, and what the trace is to tell of it."""

    name: str
    ask: Asking
    expected: Told
    fault: Fault = CALM
    """Of Redis."""
    kept: bool = True
    """By itself, whoever asks; else the caller samples."""
    tenant_id: str = ""
    """Whose item of a stream is looked at."""
    tenant_told: bool = True
    tries: int = 1


def cases(one: Platform) -> Sequence[Case]:
    own, everyones, slow_one, tests = (one.models[name] for name in ("acme", "global", "slow", "tests"))
    unary, batch, items, select, tensors = one.unary, one.batch, one.items, one.select, one.tensors
    missing = "features: 2: pipeline_builds_v1.median_duration_7, pipeline_builds_v1.last_completed_time"
    unasked = f"models/{one.models['demanding']}: a column that it requires is missing"
    given_up = "Redis did not answer in time"
    return (
        Case("Redis is slow", unary(), Told(READ, own), SLOW_REDIS),
        Case("… for an item", items("acme"), Told(READ, own), SLOW_REDIS, tenant_id="acme"),
        Case("… for a batch", batch(), Told(READ, own), SLOW_REDIS),
        Case("… for tests", select(), Told(READ, tests), SLOW_REDIS),
        Case("… for an order", one.order(), Told(READ, tests), SLOW_REDIS),
        Case("the change is long", one.predict(DIFF), Told(names.DIFF_READ, tests), kept=False),
        Case("… of a failure", one.classify(DIFF), Told(names.DIFF_READ), kept=False),
        Case("many patterns say what must run", select(*PATTERNS), Told(names.TESTS_JUDGE, tests), kept=False),
        # The call must come before the process has been up again for long, which a busy machine may keep it from.
        Case("the process stood still", one.stopped(unary()), Told(names.EVENT_LOOP_STALL, own), tries=5),
        Case("the model is slow", unary("slow"), Told(RUN, slow_one), kept=False),
        Case("… on tensors", tensors("slow"), Told(RUN, slow_one), kept=False),
        Case("its explanation is", unary("slow", explain=3), Told(f"{RUN}, explaining", slow_one), kept=False),
        Case(
            "another's model is",
            items("acme", "slow"),
            Told(names.MODEL_RUN_TOGETHER, own),
            kept=False,
            tenant_id="acme",
        ),
        Case(
            "the audit log is slow",
            one.with_audit_log_held(one.roll_back()),
            Told(names.AUDIT, code="MODEL_NOT_FOUND"),
            kept=False,
        ),
        Case("its model was refused", unary("refused"), Told(QUICK, everyones, "model_unavailable")),
        Case("its model can't answer", unary("demanding"), Told(QUICK, everyones, unasked)),
        Case("a canary answers", unary("trying"), Told(QUICK, one.models["canary"]), kept=False),
        Case("never seen before", unary(repository="never/seen"), Told(QUICK, own, missing), kept=False),
        Case("too much is asked", batch("modest", 500), Told(QUICK, code="RATE_LIMITED")),
        Case(
            "no time is left",
            items("acme", timeout_seconds=0.001),
            Told(QUICK, code="DEADLINE_TOO_SHORT"),
            tenant_told=False,  # it is refused before anybody asks whose it is
        ),
        Case("Redis refuses connections", unary(), Told(QUICK, own, "Redis"), RESET),
        Case("… for tests", select(), Told(QUICK, tests, "Redis"), RESET),
        Case("Redis hangs", unary(), Told(READ, own, given_up), HANGING_REDIS),
        Case("… for a batch", batch(), Told(READ, own, given_up), HANGING_REDIS),
        Case("… for an item", items("acme"), Told(READ, own, given_up), HANGING_REDIS, tenant_id="acme"),
    )


def read_off(trace: Trace, case: Case) -> Told:
    found = told(trace)
    return replace(found, slow=QUICK) if case.expected.slow == QUICK else found


@pytest.mark.timeout(300)
async def test_the_trace_alone_tells_why_and_which_model(tmp_path: Path) -> None:
    async with platform(tmp_path) as one:
        for case in cases(one):
            for _ in tries(3):  # where the machine stood still, that is what took long
                await one.calm()
                await asyncio.sleep(0.1)  # a stall that ended just before a call is told with it: not the last case's
                with one.proxy.suffering(case.fault):
                    trace = await one.trace(case.ask, sampled=not case.kept, tenant_id=case.tenant_id, tries=case.tries)
                if read_off(trace, case) == case.expected:
                    break
            assert read_off(trace, case) == case.expected, f"{case.name}\n{trace}"
            assert (names.TENANT_ID in trace.call.attributes) == case.tenant_told, f"{case.name}\n{trace}"


async def test_a_slow_shadow_is_told_to_whom_it_runs_beside(tmp_path: Path) -> None:
    """Nobody waits for it, but it takes the processor: where there is none to spare, everything takes longer."""
    async with platform(tmp_path) as one, asyncio.timeout(60):
        found: list[Span] = []
        while not found:  # it is loaded after the champion
            await one.unary("shadowed")(())
            trace = await one.trace(one.unary(), sampled=True)
            found = [stage for stage in trace.stages if stage.name == names.MODEL_COMPARE]
        shadow = found[0]
    name, _, version = one.models["shadow"].partition("@")
    assert shadow.attributes[names.MODEL_NAME] == f"models/{name}"
    assert shadow.attributes[names.MODEL_VERSION] == version
    assert shadow.attributes[names.VARIANT] == "shadow"
    assert (told(trace).model, told(trace).lacked) == (one.models["acme"], "")
    assert told(trace).slow != names.MODEL_COMPARE, trace


async def test_keys_that_are_slow_to_come_are_told(redis_url: str, store: Path, tmp_path: Path) -> None:
    publish(store)
    write_features(redis_url)
    authority, keys = Authority(tmp_path), Keys()
    pair = authority.issue("server")
    with collecting() as (collector, environment), key_server(keys.jwks()) as (address, state):
        arguments = (
            *("--redis-url", redis_url, "--model-store", str(store), "--allow-unsigned-models", "--grace", "0"),
            *("--tls-cert", str(pair.certificate), "--tls-key", str(pair.key)),
            *("--jwks", address, "--issuer", ISSUER, "--audience", AUDIENCE),
        )
        async with (
            command(*arguments, environment=environment) as process,
            grpc.aio.secure_channel(process.address, authority.credentials()) as channel,
        ):
            await asyncio.sleep(0.1)  # as above: its start is no part of the call
            state["held"].clear()
            trace_id, metadata = new_trace()
            call = PredictionServiceStub(channel).PredictBuildDuration(
                request(), metadata=(*metadata, *bearer(keys.token())), timeout=60
            )
            async with asyncio.timeout(60):
                while not state["fetches"]:  # noqa: ASYNC110 - another thread is asked
                    await asyncio.sleep(0.02)
            await asyncio.sleep(LATE_SECONDS)
            state["held"].set()
            await call
            trace = await collector.trace(trace_id)
    assert told(trace).slow == names.AUTH, trace
    assert trace.call.attributes[names.TENANT_ID] == "acme"
