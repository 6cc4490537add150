"""Questions about tests, from asyncio: methods of `ConductorClient`."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

import grpc
import grpc.aio

from conductor.testing.v1.test_failure_pb2 import PredictTestFailuresRequest
from conductor.testing.v1.test_order_pb2 import PrioritizeTestsRequest, PrioritizeTestsResponse
from conductor_client.asking import ask
from conductor_client.connection import Attempts, ConnectionSettings
from conductor_client.errors import error_from_rpc
from conductor_client.testing.enums import FlakyState
from conductor_client.testing.failures import (
    FailurePredictions,
    OrderedTest,
    OrderHead,
    failure_predictions,
    order_head,
    ordered_tests,
)
from conductor_client.testing.flaky import FailureClassification, FlakyTest, failure_classification, flaky_tests
from conductor_client.testing.requests import (
    FailureFields,
    RunFields,
    failure_request,
    flaky_request,
    goal_fields,
    run_context,
    selection_request,
)
from conductor_client.testing.selections import Selection, selection

if TYPE_CHECKING:  # it is a type only: the stub of an async channel
    from conductor.testing.v1.test_intelligence_service_pb2_grpc import TestIntelligenceServiceAsyncStub

Answer = TypeVar("Answer")


class AsyncTestCalls:
    """What `ConductorClient` can be asked about tests. ``timeout_seconds``: instead of the settings'."""

    _settings: ConnectionSettings
    _tests: "TestIntelligenceServiceAsyncStub"

    async def predict_test_failures(
        self,
        tenant_id: str,
        *,
        explanation_count: int | None = None,
        timeout_seconds: float | None = None,
        **run: Unpack[RunFields],
    ) -> FailurePredictions:
        """Predict of each test how likely it is to fail.

        ``explanation_count``: how many of the likeliest to explain, 0 to 100, 10 if absent. Raises ConductorError.
        """
        request = PredictTestFailuresRequest(
            tenant_id=tenant_id, run=run_context(run), explanation_count=explanation_count
        )
        return failure_predictions(
            await ask(self._settings, self._tests.PredictTestFailures, request, self._seconds(timeout_seconds))
        )

    async def select_tests(
        self,
        tenant_id: str,
        *,
        miss_rate: float | None = None,
        time_share: float | None = None,
        must_run: Iterable[str] = (),
        must_run_distance: int | None = None,
        audit_share: float | None = None,
        timeout_seconds: float | None = None,
        **run: Unpack[RunFields],
    ) -> Selection:
        """Select the tests that meet a goal: ``miss_rate`` or ``time_share``, one of the two.

        ``must_run``: ids, and patterns with "*", to run in any case; ``must_run_distance``: run what the change reaches
        by so many files or fewer; ``audit_share``: of the others, the share that is run all the same. Raises
        ConductorError.
        """
        goal = goal_fields(miss_rate, time_share)
        request = selection_request(tenant_id, run, goal, must_run, must_run_distance, audit_share)
        return selection(await ask(self._settings, self._tests.SelectTests, request, self._seconds(timeout_seconds)))

    async def prioritize_tests(
        self, tenant_id: str, *, timeout_seconds: float | None = None, **run: Unpack[RunFields]
    ) -> "AsyncTestOrder":
        """Order tests so that failures are found early for the time spent; the first come before the last are sent.

        ::

            async with await conductor.prioritize_tests("acme", repository="octocat/hello") as order:
                async for test in order:
                    print(test.test_id, test.expected_duration)

        Raises ConductorError, while the order is read, too.
        """
        request = PrioritizeTestsRequest(tenant_id=tenant_id, run=run_context(run))
        attempts = Attempts(self._seconds(timeout_seconds))
        while True:
            call = self._tests.PrioritizeTests(request, timeout=attempts.timeout(), metadata=self._settings.metadata())
            try:
                first: Any = await call.read()
                return AsyncTestOrder(call, first)
            except grpc.RpcError as error:
                wait = attempts.wait_after(error)
            await asyncio.sleep(wait)

    async def list_flaky_tests(
        self,
        tenant_id: str,
        repository: str,
        *,
        states: Iterable[FlakyState | str] = (),
        page_size: int | None = None,
        timeout_seconds: float | None = None,
    ) -> AsyncIterator[FlakyTest]:
        """Every flaky test of a repository, those that are flaky now first; pages are asked for as they are needed.

        ``states``: "active", "quarantined" or "fixed"; none for the first two. Raises ConductorError.
        """
        request = flaky_request(tenant_id, repository, states, page_size)
        while True:
            page = await ask(self._settings, self._tests.ListFlakyTests, request, self._seconds(timeout_seconds))
            for test in flaky_tests(page):
                yield test
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    async def classify_failure(
        self,
        tenant_id: str,
        test_id: str,
        *,
        timeout_seconds: float | None = None,
        **failure: Unpack[FailureFields],
    ) -> FailureClassification:
        """Tell whether a failure is the code's, the test's or the infrastructure's, and what to do. Raises
        ConductorError."""
        request = failure_request(tenant_id, test_id, failure)
        return failure_classification(
            await ask(self._settings, self._tests.ClassifyFailure, request, self._seconds(timeout_seconds))
        )

    def _seconds(self, told: float | None) -> float:
        return self._settings.tests_timeout_seconds if told is None else told


class AsyncTestOrder:
    """Tests in the order in which to run them, read once. Leaving its context before the end ends the call."""

    def __init__(self, call: Any, first: PrioritizeTestsResponse) -> None:
        self._call, self._first = call, first
        self.head: OrderHead = order_head(first)
        """How many there are, and where the order comes from."""

    async def __aiter__(self) -> AsyncIterator[OrderedTest]:
        part: Any = self._first
        while part is not grpc.aio.EOF:
            for test in ordered_tests(part):
                yield test
            try:
                part = await self._call.read()
            except grpc.RpcError as error:
                raise error_from_rpc(error) from error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._call.cancel()
