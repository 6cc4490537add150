"""Which tests an answer is about where a request names none, from the list in Redis to the caller."""

from __future__ import annotations

from typing import Any

import redis

from conductor.testing.v1.test_failure_pb2 import PredictTestFailuresRequest
from conductor.testing.v1.test_order_pb2 import PrioritizeTestsRequest
from conductor.testing.v1.test_selection_pb2 import SelectTestsRequest
from conductor_features.filling import position_key, replaying_mark
from conductor_features.listings import Listings
from conductor_features.views import TEST_HISTORY
from server.intelligence_scene import REPOSITORY, model, serving, trained, write_past
from server.testing_calls import of_run
from server.testing_fakes import asking

TESTS = trained().runs[0].tests


async def bases(redis_url: str, **run: object) -> list[tuple[bool, bool, int]]:
    """Whether the list was cut, and being filled in, and how many tests there are, by each method that takes a run."""
    run = {"repository": REPOSITORY, **run}

    def told(basis: Any, count: int) -> tuple[bool, bool, int]:
        return basis.known_tests_cut, basis.known_tests_filling, count

    async with serving(redis_url, model(trained())) as served, asking(served.intelligence) as (stub, _):
        predicted = await stub.PredictTestFailures(of_run(PredictTestFailuresRequest, run=run))
        selected = await stub.SelectTests(of_run(SelectTestsRequest, run=run, miss_rate=0.05))
        order = [part async for part in stub.PrioritizeTests(of_run(PrioritizeTestsRequest, run=run))]
    return [
        told(predicted.basis, len(predicted.test_ids)),
        told(selected.basis, len(selected.test_ids)),
        told(order[0].basis, order[0].total_count),
    ]


async def test_a_list_that_was_cut_is_told(redis_url: str, monkeypatch) -> None:
    write_past(redis_url, trained().runs)
    count = len(TESTS)
    assert await bases(redis_url) == [(False, False, count)] * 3
    monkeypatch.setitem(Listings.__init__.__kwdefaults__, "most_members", count - 1)
    assert await bases(redis_url) == [(True, False, count - 1)] * 3
    assert await bases(redis_url, test_ids=TESTS) == [(False, False, count)] * 3


async def test_a_list_that_is_being_filled_in_is_told(redis_url: str) -> None:
    write_past(redis_url, trained().runs)
    with redis.Redis.from_url(redis_url) as client:
        client.set(position_key(TEST_HISTORY.key), replaying_mark())
    assert await bases(redis_url) == [(False, True, len(TESTS))] * 3
    assert await bases(redis_url, test_ids=TESTS) == [(False, False, len(TESTS))] * 3
