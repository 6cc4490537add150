"""Questions about tests whose judging takes no time: their traces tell that writing the answer does."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import pytest

from conductor.testing.v1.test_failure_pb2 import PredictTestFailuresRequest
from conductor.testing.v1.test_selection_pb2 import SelectTestsRequest
from conductor_rpc import names
from machine import tries
from rpc.traced import Traced
from server.testing_calls import of_run
from server.testing_fakes import Minds, asking
from server.traces import in_memory, told

ALL: Any = {"repository": "shop/web"}


@pytest.fixture
def no_garbage() -> Iterator[None]:
    """Garbage of all the tests before would be collected while the answer is written."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize(
    ("method", "asked"),
    [
        ("PredictTestFailures", of_run(PredictTestFailuresRequest, run=ALL)),
        ("SelectTests", of_run(SelectTestsRequest, run=ALL, miss_rate=0.1)),
    ],
)
@pytest.mark.usefixtures("no_garbage")
async def test_an_answer_that_takes_long_to_be_written_is_told(method: str, asked: Any) -> None:
    known = [f"tests/{'ä' * 400}::test_{number}" for number in range(20_000)]
    for _ in tries(5):  # where the machine stood still, that took longer
        traced = Traced(slow_seconds=0)
        async with asking(Minds(known=known), traced.telemetry) as (stub, _):
            await asyncio.sleep(0.1)  # a stall that ended just before a call is told with it
            await getattr(stub, method)(asked)
        trace = in_memory([*traced.all_spans, *traced.stalls])
        if told(trace).slow == names.TESTS_ANSWER:
            break
    assert told(trace).slow == names.TESTS_ANSWER, trace
