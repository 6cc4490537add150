"""Questions about tests, for who waits for the answer: methods of `SyncConductorClient`.

Each is described at `AsyncTestCalls`.
"""

import time
from collections.abc import Iterable, Iterator
from typing import Any, Self, TypeVar, Unpack

import grpc

from conductor.testing.v1.test_failure_pb2 import PredictTestFailuresRequest
from conductor.testing.v1.test_intelligence_service_pb2_grpc import TestIntelligenceServiceStub
from conductor.testing.v1.test_order_pb2 import PrioritizeTestsRequest, PrioritizeTestsResponse
from conductor_client.asking import ask_sync
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

Answer = TypeVar("Answer")


class SyncTestCalls:
    """What `SyncConductorClient` can be asked about tests."""

    _settings: ConnectionSettings
    _tests: TestIntelligenceServiceStub

    def predict_test_failures(
        self,
        tenant_id: str,
        *,
        explanation_count: int | None = None,
        timeout_seconds: float | None = None,
        **run: Unpack[RunFields],
    ) -> FailurePredictions:
        """Predict of each test how likely it is to fail. Raises ConductorError."""
        request = PredictTestFailuresRequest(
            tenant_id=tenant_id, run=run_context(run), explanation_count=explanation_count
        )
        return failure_predictions(
            ask_sync(self._settings, self._tests.PredictTestFailures, request, self._seconds(timeout_seconds))
        )

    def select_tests(
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
        """Select the tests that meet a goal: ``miss_rate`` or ``time_share``, one of the two. Raises ConductorError."""
        goal = goal_fields(miss_rate, time_share)
        request = selection_request(tenant_id, run, goal, must_run, must_run_distance, audit_share)
        return selection(ask_sync(self._settings, self._tests.SelectTests, request, self._seconds(timeout_seconds)))

    def prioritize_tests(
        self, tenant_id: str, *, timeout_seconds: float | None = None, **run: Unpack[RunFields]
    ) -> "SyncTestOrder":
        """Order tests so that failures are found early for the time spent. Raises ConductorError, while the order is
        read, too."""
        request = PrioritizeTestsRequest(tenant_id=tenant_id, run=run_context(run))
        attempts = Attempts(self._seconds(timeout_seconds))
        while True:
            call = self._tests.PrioritizeTests(request, timeout=attempts.timeout(), metadata=self._settings.metadata())
            try:
                return SyncTestOrder(call, next(call))
            except grpc.RpcError as error:
                wait = attempts.wait_after(error)
            time.sleep(wait)

    def list_flaky_tests(
        self,
        tenant_id: str,
        repository: str,
        *,
        states: Iterable[FlakyState | str] = (),
        page_size: int | None = None,
        timeout_seconds: float | None = None,
    ) -> Iterator[FlakyTest]:
        """Every flaky test of a repository, those that are flaky now first. Raises ConductorError."""
        request = flaky_request(tenant_id, repository, states, page_size)
        while True:
            page = ask_sync(self._settings, self._tests.ListFlakyTests, request, self._seconds(timeout_seconds))
            yield from flaky_tests(page)
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    def classify_failure(
        self,
        tenant_id: str,
        test_id: str,
        *,
        timeout_seconds: float | None = None,
        **failure: Unpack[FailureFields],
    ) -> FailureClassification:
        """Tell whether a failure is the code's, the test's or the infrastructure's. Raises ConductorError."""
        request = failure_request(tenant_id, test_id, failure)
        return failure_classification(
            ask_sync(self._settings, self._tests.ClassifyFailure, request, self._seconds(timeout_seconds))
        )

    def _seconds(self, told: float | None) -> float:
        return self._settings.tests_timeout_seconds if told is None else told


class SyncTestOrder:
    """Tests in the order in which to run them, read once. Leaving its context before the end ends the call."""

    def __init__(self, call: Any, first: PrioritizeTestsResponse) -> None:
        self._call, self._first = call, first
        self.head: OrderHead = order_head(first)
        """How many there are, and where the order comes from."""

    def __iter__(self) -> Iterator[OrderedTest]:
        yield from ordered_tests(self._first)
        try:
            for part in self._call:
                yield from ordered_tests(part)
        except grpc.RpcError as error:
            raise error_from_rpc(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._call.cancel()
