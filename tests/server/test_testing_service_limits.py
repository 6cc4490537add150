"""``TestIntelligenceService`` over real gRPC: what is refused, what ends in time, what fits, what the trace tells."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from conductor.testing.v1 import failure_verdict_pb2, flaky_test_pb2, test_run_pb2, test_selection_pb2
from conductor.testing.v1 import test_intelligence_service_pb2_grpc as stubs
from conductor.testing.v1.failure_verdict_pb2 import ClassifyFailureRequest
from conductor.testing.v1.flaky_test_pb2 import ListFlakyTestsRequest
from conductor.testing.v1.test_failure_pb2 import PredictTestFailuresRequest
from conductor.testing.v1.test_order_pb2 import PrioritizeTestsRequest
from conductor.testing.v1.test_selection_pb2 import SelectTestsRequest
from conductor_rpc import names
from conductor_rpc.exceptions import NoPrediction
from conductor_rpc.settings import RpcSettings
from conductor_server.servicers.testing import SERVICE_NAME
from conductor_server.testing import answers
from rpc.harness import wait_for_calls
from rpc.traced import Traced
from server.testing_calls import of_run, refused
from server.testing_fakes import ORIGIN, Minds, asking


async def test_what_breaks_a_rule_reaches_nobody():
    minds = Minds()
    bad = {"repository": "r", "test_ids": ["a", "b", "a"]}
    async with asking(minds) as (stub, _):
        for method, request in (
            (stub.PredictTestFailures, of_run(PredictTestFailuresRequest, run=bad)),
            (stub.SelectTests, of_run(SelectTestsRequest, run=bad, miss_rate=0.05)),
        ):
            found = await refused(method(request))
            assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
            assert found.fields == {"run.test_ids[2]": "stands there twice: 'a'"}
        stream = stub.PrioritizeTests(of_run(PrioritizeTestsRequest, run=bad))
        found = await refused(stream.read())
        assert found.fields == {"run.test_ids[2]": "stands there twice: 'a'"}
    assert not minds.asked


async def test_jobs_that_ask_at_the_same_moment_are_all_answered():
    """More of them than gRPC lets wait for methods whose calls come one by one."""
    jobs = 2 * RpcSettings(insecure=True).max_pending_count
    async with asking(Minds()) as (_, server):
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        with grpc.insecure_channel(f"127.0.0.1:{server.port}", options=options) as channel:
            stub = stubs.TestIntelligenceServiceStub(channel)
            question = of_run(SelectTestsRequest, miss_rate=0.05)
            await asyncio.to_thread(stub.SelectTests, question)
            calls = [stub.SelectTests.future(question, timeout=30) for _ in range(jobs)]
            wait_for_calls(server, 1 + jobs)
            codes = await asyncio.to_thread(lambda: [call.code() for call in calls])
    assert codes == [grpc.StatusCode.OK] * jobs


async def test_nothing_to_answer_from_is_told():
    async def nothing() -> None:
        raise NoPrediction

    async with asking(Minds(before=nothing)) as (stub, _):
        for call in (
            stub.PredictTestFailures(of_run(PredictTestFailuresRequest)),
            stub.SelectTests(of_run(SelectTestsRequest, miss_rate=0.05)),
            stub.PrioritizeTests(of_run(PrioritizeTestsRequest)).read(),
            stub.ListFlakyTests(ListFlakyTestsRequest(tenant_id="acme", repository="r")),
            stub.ClassifyFailure(of_run(ClassifyFailureRequest, run={"repository": "r"}, test_id="t")),
        ):
            found = await refused(call)
            assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "NO_PREDICTION")


async def test_the_deadline_ends_the_work():
    begun, given_up = asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        begun.set()
        try:
            await asyncio.sleep(600)
        finally:
            given_up.set()

    async with asking(Minds(before=hang)) as (stub, _):
        for seconds in (0.2, 0.8, 3.2):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.SelectTests(of_run(SelectTestsRequest, miss_rate=0.05), timeout=seconds)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            if begun.is_set():  # a busy machine begins nothing in time: it gets longer
                break
        async with asyncio.timeout(60):
            await given_up.wait()


async def test_large_calls_take_more_places_and_one_alone_gets_in():
    begun, let_go = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        begun.set()
        await let_go.wait()

    limits = {"max_in_flight_count": 40, "min_in_flight_count": 40, "concurrency_limit": "fixed"}
    many = {"repository": "r", "test_ids": [f"t{number}" for number in range(20_000)]}
    few = {"repository": "r", "test_ids": ["a"]}
    async with asking(Minds(before=wait), **limits) as (stub, _):
        large = asyncio.ensure_future(stub.SelectTests(of_run(SelectTestsRequest, run=many, miss_rate=0.05)))
        await begun.wait()
        found = await refused(stub.SelectTests(of_run(SelectTestsRequest, run=few, miss_rate=0.05)))
        assert found.reason == "TENANT_OVERLOADED"
        other = SelectTestsRequest(tenant_id="zeta", run=few, miss_rate=0.05)
        others = asyncio.ensure_future(stub.SelectTests(other))
        await asyncio.sleep(0)
        let_go.set()
        assert len((await large).test_ids) == 20_000
        assert len((await others).test_ids) == 1


@pytest.mark.parametrize("length", [206, 210])
async def test_what_fits_in_a_message(length):
    """20,000 tests of 206 bytes do, and a stock client would not take the answer: the contract tells of both."""
    ids = [f"{number:05d}".ljust(length, "x") for number in range(20_000)]
    async with asking(Minds()) as (stub, _):
        call = stub.SelectTests(of_run(SelectTestsRequest, run={"repository": "r", "test_ids": ids}, miss_rate=0.05))
        if length == 206:
            response = await call
            assert list(response.test_ids) == ids
            assert response.ByteSize() > 4 << 20
            return
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_the_trace_tells_what_answered():
    traced = Traced(head=ALWAYS_ON)
    async with asking(Minds(), traced.telemetry) as (stub, _):
        response = await stub.PredictTestFailures(of_run(PredictTestFailuresRequest))
        [part] = [part async for part in stub.PrioritizeTests(of_run(PrioritizeTestsRequest))]
    by_name = {span.name: span.attributes for span in traced.all_spans}
    told, streamed = by_name[f"{SERVICE_NAME}/PredictTestFailures"], by_name[f"{SERVICE_NAME}/PrioritizeTests"]
    assert told[names.PREDICTION_ID] == response.provenance.prediction_id
    assert (told[names.MODEL_VERSION], told[names.ANSWERED_TOGETHER]) == (ORIGIN.model.version, "3")
    assert told[names.FEATURES_MISSING] == "1: test_history_v2.failure_rate"
    assert streamed[names.PREDICTION_ID] == part.provenance.prediction_id


@pytest.mark.parametrize(
    ("ours", "theirs", "prefix"),
    [
        (answers.Impact, test_run_pb2.ImpactBasis, "IMPACT_BASIS_"),
        (answers.Reason, test_run_pb2.FailureReason, "FAILURE_REASON_"),
        (answers.Choice, test_selection_pb2.SelectionReason, "SELECTION_REASON_"),
        (answers.Ground, test_selection_pb2.PromiseBasis, "PROMISE_BASIS_"),
        (answers.FlakyStatus, flaky_test_pb2.FlakyState, "FLAKY_STATE_"),
        (answers.Verdict, failure_verdict_pb2.FailureVerdict, "FAILURE_VERDICT_"),
        (answers.NextStep, failure_verdict_pb2.NextStep, "NEXT_STEP_"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_values_are_the_contracts(ours: Any, theirs: Any, prefix: str) -> None:
    told = {value.value: value.name for value in ours if value.value}
    assert told == {number: name.removeprefix(prefix) for name, number in theirs.items() if number}
