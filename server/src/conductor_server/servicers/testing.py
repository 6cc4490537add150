"""``conductor.testing.v1.TestIntelligenceService``."""

# ruff: noqa: N802 - the contract's method names

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol

import grpc.aio

from conductor.prediction.v1.provenance_pb2 import Provenance
from conductor.testing.v1 import test_intelligence_service_pb2_grpc as stubs
from conductor.testing.v1.failure_verdict_pb2 import ClassifyFailureRequest, ClassifyFailureResponse
from conductor.testing.v1.flaky_test_pb2 import ListFlakyTestsRequest, ListFlakyTestsResponse
from conductor.testing.v1.test_failure_pb2 import PredictTestFailuresRequest, PredictTestFailuresResponse
from conductor.testing.v1.test_intelligence_service_pb2 import DESCRIPTOR
from conductor.testing.v1.test_order_pb2 import PrioritizeTestsRequest, PrioritizeTestsResponse
from conductor.testing.v1.test_run_pb2 import TestRunContext
from conductor.testing.v1.test_selection_pb2 import SelectTestsRequest, SelectTestsResponse
from conductor_rpc import names
from conductor_rpc.call import current_deadline
from conductor_rpc.server import Service
from conductor_rpc.telemetry import Telemetry
from conductor_rpc.work import Work
from conductor_server.prediction.answers import Origin
from conductor_server.servicers import testing_answers, testing_questions, trace_notes
from conductor_server.servicers.page_tokens import page_after, page_token
from conductor_server.testing.ports import Flakiness, Intelligence
from conductor_server.testing.questions import TestRun

SERVICE_NAME = DESCRIPTOR.services_by_name["TestIntelligenceService"].full_name
_DEFAULT_EXPLANATIONS, _DEFAULT_PAGE = 10, 100
_TESTS_PER_QUESTION = 32
_DIFF_BYTES_PER_QUESTION = 1024
"""What takes as long as a question of a batch."""
_ALL_KNOWN = 2_000
"""For so many tests a request counts that names none: how many the repository has is known only once they are read."""
_Context = grpc.aio.ServicerContext[Any, Any]


class _OfRun(Protocol):
    """A request about a run."""

    @property
    def tenant_id(self) -> str:
        """Whose it is."""
        ...

    @property
    def run(self) -> TestRunContext:
        """The run."""
        ...


def _question_count(request: _OfRun) -> int:
    """A call of many tests takes places as a batch does."""
    run = request.run
    test_count = len(run.test_ids) or _ALL_KNOWN
    return 1 + test_count // _TESTS_PER_QUESTION + len(run.diff) // _DIFF_BYTES_PER_QUESTION


def _one_test(request: ClassifyFailureRequest) -> int:
    return 1 + len(request.run.diff) // _DIFF_BYTES_PER_QUESTION


# Interactive, though as large as batches: a CI job waits for the answer before it runs its first test, and a job that
# is refused runs all of them. ``batch`` in the metadata says otherwise.
_MANY_TESTS = Work(question_count=_question_count, frequent=True)
_WORK = {
    "PredictTestFailures": _MANY_TESTS,
    "SelectTests": _MANY_TESTS,
    "PrioritizeTests": _MANY_TESTS,
    "ClassifyFailure": Work(question_count=_one_test),
}


class TestIntelligenceServicer(stubs.TestIntelligenceServiceServicer):
    """Translates and delegates. Credentials, tenant and rules were checked on the way in."""

    __test__ = False

    def __init__(self, intelligence: Intelligence, flakiness: Flakiness, telemetry: Telemetry) -> None:
        self._intelligence, self._flakiness, self._telemetry = intelligence, flakiness, telemetry

    async def PredictTestFailures(
        self, request: PredictTestFailuresRequest, context: _Context
    ) -> PredictTestFailuresResponse:
        """Tell of each test how likely it is to fail."""
        run = await self._run(request)
        count = request.explanation_count if request.HasField("explanation_count") else _DEFAULT_EXPLANATIONS
        answer = await self._intelligence.predict(run, count, current_deadline())
        with self._telemetry.span(names.TESTS_ANSWER):
            response = testing_answers.to_predicted(answer, run)
        self._note(answer.origin, response.provenance, len(answer.test_ids))
        return response

    async def SelectTests(self, request: SelectTestsRequest, context: _Context) -> SelectTestsResponse:
        """Select the tests that meet a goal."""
        run = await self._run(request)
        goal, rules = testing_questions.to_goal(request), testing_questions.to_rules(request)
        answer = await self._intelligence.select(run, goal, rules, current_deadline())
        with self._telemetry.span(names.TESTS_ANSWER):
            response = testing_answers.to_selected(answer, run)
        self._note(answer.ordered.predicted.origin, response.provenance, len(answer.choices))
        return response

    async def PrioritizeTests(
        self, request: PrioritizeTestsRequest, context: _Context
    ) -> AsyncIterator[PrioritizeTestsResponse]:
        """Order tests. Who went away, or whose time is over, ends the stream between two messages: gRPC cancels it."""
        run = await self._run(request)
        answer = await self._intelligence.order(run, current_deadline())
        for part in testing_answers.to_parts(answer, run):
            if part.HasField("provenance"):
                self._note(answer.predicted.origin, part.provenance, len(answer.order))
            yield part

    async def ListFlakyTests(self, request: ListFlakyTestsRequest, context: _Context) -> ListFlakyTestsResponse:
        """List a page of flaky tests."""
        states = testing_questions.to_states(request)
        asked = (request.tenant_id, request.repository, sorted(states))
        answer = await self._flakiness.list(
            request.tenant_id,
            request.repository,
            states,
            request.page_size or _DEFAULT_PAGE,
            page_after(asked, request.page_token),
            current_deadline(),
        )
        with self._telemetry.span(names.TESTS_ANSWER):
            response = testing_answers.to_page(answer, page_token(asked, answer.next_after))
        self._note(answer.origin, response.provenance, len(answer.tests))
        return response

    async def ClassifyFailure(self, request: ClassifyFailureRequest, context: _Context) -> ClassifyFailureResponse:
        """Tell what one failure was."""
        with self._telemetry.span(names.DIFF_READ):
            failure = await testing_questions.to_failure(request)
        answer = await self._flakiness.classify(failure, current_deadline())
        response = testing_answers.to_classified(answer, failure.run)
        self._note(answer.origin, response.provenance, 1)
        return response

    async def _run(self, request: _OfRun) -> TestRun:
        """The run that is asked about."""
        with self._telemetry.span(names.DIFF_READ):
            return await testing_questions.to_run(request.tenant_id, request.run)

    def _note(self, origin: Origin, provenance: Provenance, test_count: int) -> None:
        """Tell the call's trace what answered."""
        notes = trace_notes.of_answer(origin, provenance.prediction_id) | {names.ANSWERED_TOGETHER: str(test_count)}
        self._telemetry.annotate(notes, fell_back=trace_notes.fell_back(origin))


def testing_service(intelligence: Intelligence, flakiness: Flakiness, telemetry: Telemetry) -> Service:
    """The service, ready to be served."""
    servicer = TestIntelligenceServicer(intelligence, flakiness, telemetry)
    return Service(
        SERVICE_NAME, lambda server: stubs.add_TestIntelligenceServiceServicer_to_server(servicer, server), work=_WORK
    )
