"""A service whose answers about tests a test decides, beside the others of ``conftest.py``."""

# ruff: noqa: N802 - the contract's method names

import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from conductor.testing.v1.failure_verdict_pb2 import ClassifyFailureResponse
from conductor.testing.v1.flaky_test_pb2 import FlakyTest, ListFlakyTestsResponse
from conductor.testing.v1.test_failure_pb2 import PredictTestFailuresResponse
from conductor.testing.v1.test_intelligence_service_pb2_grpc import (
    TestIntelligenceServiceServicer,
    add_TestIntelligenceServiceServicer_to_server,
)
from conductor.testing.v1.test_order_pb2 import PrioritizeTestsResponse
from conductor.testing.v1.test_selection_pb2 import SelectTestsResponse

ROUNDED_UP = 1.02
"""The header that carries a deadline holds three digits of it, rounded up."""
PROVENANCE = {
    "method": 1,
    "model_name": "models/test-failure/tenants/acme",
    "model_version": "0123456789abcdef",
    "prediction_id": "p1",
    "prediction_time": {"seconds": 1_700_000_000},
    "oldest_feature_age": {"seconds": 12},
    "variant": 1,
}
BASIS = {"change": 2, "impact": 4, "graph_commit_sha": "abc", "never_run_count": 1}
EVIDENCE = {
    "run_count": 100,
    "failure_count": 12,
    "flip_count": 9,
    "rerun_flip_count": 4,
    "flip_rate": 0.25,
    "outcome_entropy": 0.75,
    "last_flip_time": {"seconds": 1_700_000_000},
    "runs_since_flip": 3,
}
PROMISE = {
    "miss_rate": 0.05,
    "level": 0.04,
    "basis": 1,
    "threshold": 0.125,
    "calibration_run_count": 250,
    "calibration_end_time": {"seconds": 1_700_000_000},
    "realised": {
        "miss_rate": 0.03,
        "run_count": 120,
        "start_time": {"seconds": 1_690_000_000},
        "end_time": {"seconds": 1_700_000_000},
    },
}
IDS = ["t/test_a.py::test_1", "t/test_b.py::test_2", "t/test_c.py::test_3[x y]"]


def predicted() -> PredictTestFailuresResponse:
    way = {"distance": 2, "nodes": ["src/a.py:f", "src/b.py", "t/test_b.py"]}
    told = [{"feature": "failure_rate", "value": 0.5, "effect": 0.1}, {"feature": "age", "effect": -0.02}]
    return PredictTestFailuresResponse(
        test_ids=IDS,
        failure_probabilities=[0.125, 0.5, 0.0625],
        reasons=[2, 77, 8],
        explanations=[{"index": 1, "contributions": told, "impact": way}, {"index": 0}],
        basis=BASIS,
        provenance=PROVENANCE,
    )


def selected() -> SelectTestsResponse:
    return SelectTestsResponse(
        test_ids=IDS,
        reasons=[100, 5, 3],
        failure_probabilities=[0.125, 0.5, 0.0625],
        selected=[2, 1],
        time={"selected_duration": {"seconds": 90}, "total_duration": {"seconds": 600}, "unknown_count": 1},
        promise=PROMISE,
        audit_share=0.02,
        expected_missed_failures=0.125,
        basis=BASIS,
        provenance=PROVENANCE,
    )


def parts() -> list[PrioritizeTestsResponse]:
    first = PrioritizeTestsResponse(
        test_ids=IDS[:2], failure_probabilities=[0.5, 0.25], expected_seconds=[1.5, 2], total_count=3
    )
    first.MergeFrom(PrioritizeTestsResponse(basis=BASIS, provenance=PROVENANCE))
    return [first, PrioritizeTestsResponse(test_ids=IDS[2:], failure_probabilities=[0.125], expected_seconds=[60])]


def flaky(name: str) -> FlakyTest:
    history = [{"state": 1, "time": {"seconds": 1_600_000_000}}, {"state": 2, "time": {"seconds": 1_650_000_000}}]
    return FlakyTest(test_id=name, state=2, flaky_probability=0.75, evidence=EVIDENCE, history=history)


def classified() -> ClassifyFailureResponse:
    return ClassifyFailureResponse(
        verdict=2,
        probabilities={"real": 0.25, "flaky": 0.625, "infrastructure": 0.125},
        evidence=["it passed when it was tried again", "it flipped 9 times in 100 runs"],
        history=EVIDENCE,
        next_step=1,
        basis=BASIS,
        provenance=PROVENANCE,
    )


@dataclass
class TestAnswers(TestIntelligenceServiceServicer):
    """Answers, after refusing as often as told. Pages are of two."""

    __test__ = False

    refusals: list[Any] = field(default_factory=list)
    refuse_after_first_part: Any = None
    requests: list[Any] = field(default_factory=list)
    times_left: list[float] = field(default_factory=list)
    metadata: list[dict[str, Any]] = field(default_factory=list)
    prediction: PredictTestFailuresResponse = field(default_factory=predicted)
    selection: SelectTestsResponse = field(default_factory=selected)
    order: list[PrioritizeTestsResponse] = field(default_factory=parts)
    flaky: list[FlakyTest] = field(default_factory=lambda: [flaky(name) for name in IDS])
    classification: ClassifyFailureResponse = field(default_factory=classified)
    target: str = ""
    order_ended: threading.Event = field(default_factory=threading.Event)

    def _receive(self, request: Any, context: grpc.ServicerContext) -> None:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        self.times_left.append(context.time_remaining())
        if self.refusals:
            self.refusals.pop(0).abort(context)

    def PredictTestFailures(self, request, context):
        self._receive(request, context)
        return self.prediction

    def SelectTests(self, request, context):
        self._receive(request, context)
        return self.selection

    def PrioritizeTests(self, request, context):
        self._receive(request, context)
        context.add_callback(self.order_ended.set)
        for part in self.order:
            yield part
            if self.refuse_after_first_part is not None:
                self.refuse_after_first_part.abort(context)

    def ListFlakyTests(self, request, context):
        self._receive(request, context)
        first = int(request.page_token or 0)
        return ListFlakyTestsResponse(
            tests=self.flaky[first : first + 2],
            next_page_token=str(first + 2) if first + 2 < len(self.flaky) else "",
            total_count=len(self.flaky),
            provenance=PROVENANCE,
        )

    def ClassifyFailure(self, request, context):
        self._receive(request, context)
        return self.classification


@contextmanager
def serving() -> Iterator[TestAnswers]:
    """A server without TLS."""
    servicer = TestAnswers()
    options = [("grpc.so_reuseport", 0)]
    server = grpc.server(futures.ThreadPoolExecutor(4), options=options)
    add_TestIntelligenceServiceServicer_to_server(servicer, server)
    servicer.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield servicer
    server.stop(1).wait(5)
