"""Calls about tests, up to 2,000 in one, drawn at random: part of the callers' traffic."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

from conductor_client import ConductorClient
from conductor_client.testing.requests import RunFields
from conductor_workbench.faults.oracle import tenant_id
from conductor_workbench.faults.tests_asked import MISS_RATE, TIME_SHARE, Method, TestsAsked, TestsTold
from conductor_workbench.faults.tests_model import MOST_CHANGED_PATHS, PATHS, REPOSITORY, TENANTS, TESTS, test_ids

_NEW_TESTS = 20
_METHODS = {
    "predict_tests": Method.PREDICT,
    "select_tests": Method.SELECT,
    "prioritize_tests": Method.PRIORITIZE,
}
NO_MODEL = "tests_without_model"
KINDS = frozenset({*_METHODS, NO_MODEL})
"""Kinds of calls; of the last one the graph can't answer."""


def draw(chance: random.Random, kind: str, whole_share: float) -> TestsAsked:
    """A question: of all tests of a tenant in ``whole_share`` of the cases, else of some of them and of new ones."""
    no_model = kind == NO_MODEL
    method = chance.choice(list(Method)) if no_model else _METHODS[kind]
    whole = chance.random() < whole_share
    if whole and not no_model and chance.random() < 1 / 4:
        numbers = []  # all known ones
    elif whole:
        numbers = chance.sample(range(TESTS), TESTS)
    else:
        most = TESTS if no_model else TESTS + _NEW_TESTS
        numbers = chance.sample(range(most), int(TESTS ** chance.random()))
    return TestsAsked(
        tenant=chance.randrange(TENANTS),
        method=method,
        numbers=tuple(numbers),
        paths=chance.randint(1, MOST_CHANGED_PATHS),
        path=chance.randrange(PATHS),
        changes_test=no_model,
        promised=chance.random() < 1 / 2,
    )


async def ask(clients: Mapping[str, ConductorClient], asked: TestsAsked, moment: datetime) -> TestsTold:
    """Ask it. Raises ConductorError."""
    name = tenant_id(asked.tenant)
    run = RunFields(
        repository=REPOSITORY,
        test_ids=test_ids(asked.numbers),
        changed_files=asked.changed_files,
        start_time=moment,
    )
    return await _ASKING[asked.method](clients[name], name, run, asked)


async def _predict(client: ConductorClient, tenant: str, run: RunFields, _: TestsAsked) -> TestsTold:
    found = await client.predict_test_failures(tenant, **run)
    return TestsTold(
        found.test_ids, found.probabilities, found.basis, found.provenance, found.reason_numbers, found.explanations
    )


async def _select(client: ConductorClient, tenant: str, run: RunFields, asked: TestsAsked) -> TestsTold:
    goal: dict[str, Any] = {"miss_rate": MISS_RATE} if asked.promised else {"time_share": TIME_SHARE}
    found = await client.select_tests(tenant, **goal, **run)
    return TestsTold(found.test_ids, found.probabilities, found.basis, found.provenance, selection=found)


async def _prioritize(client: ConductorClient, tenant: str, run: RunFields, _: TestsAsked) -> TestsTold:
    async with await client.prioritize_tests(tenant, **run) as order:
        tests = [test async for test in order]
    return TestsTold(
        [test.test_id for test in tests],
        [test.probability for test in tests],
        order.head.basis,
        order.head.provenance,
        seconds=[test.expected_duration.total_seconds() for test in tests],
        total_count=order.head.total_count,
    )


_ASKING: Mapping[Method, Callable[[ConductorClient, str, RunFields, TestsAsked], Awaitable[TestsTold]]] = {
    Method.PREDICT: _predict,
    Method.SELECT: _select,
    Method.PRIORITIZE: _prioritize,
}
