"""From the domain's answers about tests to the contract's messages.

Columns are handed over whole: a call is about thousands of tests, and to touch each of them in Python would take longer
than to judge them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice

from conductor.prediction.v1.provenance_pb2 import Provenance
from conductor.testing.v1 import flaky_test_pb2
from conductor.testing.v1.failure_verdict_pb2 import (
    ClassifyFailureResponse,
    FailureProbabilities,
    FailureVerdict,
    NextStep,
)
from conductor.testing.v1.flaky_test_pb2 import FlakyEvidence, FlakyState, ListFlakyTestsResponse
from conductor.testing.v1.test_failure_pb2 import PredictTestFailuresResponse, TestExplanation
from conductor.testing.v1.test_order_pb2 import PrioritizeTestsResponse
from conductor.testing.v1.test_run_pb2 import ChangeBasis, ImpactBasis, TestBasis
from conductor.testing.v1.test_selection_pb2 import PromiseBasis, SelectionPromise, SelectTestsResponse
from conductor_server.prediction.answers import Origin
from conductor_server.servicers.provenance import common_provenance, set_seconds, stamp
from conductor_server.testing.answers import (
    Basis,
    Classified,
    Explanation,
    FlakyFacts,
    FlakyOne,
    FlakyPage,
    Ordered,
    Predicted,
    Promise,
    Selected,
)
from conductor_server.testing.questions import ChangeTold, TestRun

_FIRST_PART, _PART = 100, 1_000
"""Tests in the first message of an order, and in each further one."""
_MOST_PROBLEMS = 100
_CHANGES = {
    ChangeTold.NOTHING: ChangeBasis.CHANGE_BASIS_UNSPECIFIED,
    ChangeTold.FILES: ChangeBasis.CHANGE_BASIS_FILES,
    ChangeTold.DIFF: ChangeBasis.CHANGE_BASIS_DIFF,
}


def to_predicted(answer: Predicted, run: TestRun) -> PredictTestFailuresResponse:
    """How likely each test is to fail."""
    return PredictTestFailuresResponse(
        test_ids=answer.test_ids,
        failure_probabilities=answer.probabilities.tolist(),
        reasons=answer.reasons.tolist(),
        explanations=map(_explanation, answer.explanations),
        basis=_basis(answer.basis, run),
        provenance=_provenance(answer.origin, answer.oldest_age_seconds),
    )


def to_selected(answer: Selected, run: TestRun) -> SelectTestsResponse:
    """Which tests to run."""
    predicted, times = answer.ordered.predicted, answer.ordered.times
    response = SelectTestsResponse(
        test_ids=predicted.test_ids,
        reasons=answer.choices.tolist(),
        failure_probabilities=predicted.probabilities.tolist(),
        selected=answer.chosen.tolist(),
        audit_share=answer.audit_share,
        expected_missed_failures=answer.expected_missed_failures,
        basis=_basis(predicted.basis, run),
        provenance=_provenance(predicted.origin, predicted.oldest_age_seconds),
    )
    set_seconds(response.time.selected_duration, float(times.expected[answer.chosen].sum()))
    set_seconds(response.time.total_duration, float(times.expected.sum()))
    response.time.unknown_count = times.unknown_count
    if answer.promise is not None:
        _fill_promise(response.promise, answer.promise)
    return response


def to_parts(answer: Ordered, run: TestRun) -> Iterator[PrioritizeTestsResponse]:
    """The tests in their order: the first few at once with what all have in common, then the others by and by."""
    predicted, order = answer.predicted, answer.order
    for begin in (0, *range(_FIRST_PART, len(order), _PART)):
        numbers = order[begin : begin + _PART if begin else _FIRST_PART]
        part = PrioritizeTestsResponse(
            test_ids=map(predicted.test_ids.__getitem__, numbers.tolist()),
            failure_probabilities=predicted.probabilities[numbers].tolist(),
            expected_seconds=answer.times.expected[numbers].tolist(),
        )
        if not begin:
            part.total_count = len(order)
            part.basis.CopyFrom(_basis(predicted.basis, run))
            part.provenance.CopyFrom(_provenance(predicted.origin, predicted.oldest_age_seconds))
        yield part


def to_page(answer: FlakyPage, next_page_token: str) -> ListFlakyTestsResponse:
    """Some flaky tests."""
    return ListFlakyTestsResponse(
        tests=map(_flaky_test, answer.tests),
        next_page_token=next_page_token,
        total_count=answer.total_count,
        provenance=_provenance(answer.origin, answer.oldest_age_seconds),
    )


def to_classified(answer: Classified, run: TestRun) -> ClassifyFailureResponse:
    """What a failure was."""
    return ClassifyFailureResponse(
        verdict=FailureVerdict.ValueType(answer.verdict),
        probabilities=FailureProbabilities(real=answer.real, flaky=answer.flaky, infrastructure=answer.infrastructure),
        evidence=answer.evidence,
        history=None if answer.facts is None else _evidence(answer.facts),
        next_step=NextStep.ValueType(answer.next_step),
        basis=_basis(answer.basis, run),
        provenance=_provenance(answer.origin, answer.oldest_age_seconds),
    )


def _provenance(origin: Origin, oldest_age_seconds: float | None) -> Provenance:
    provenance = Provenance()
    provenance.CopyFrom(common_provenance(origin))
    stamp(provenance, oldest_age_seconds)
    return provenance


def _basis(basis: Basis, run: TestRun) -> TestBasis:
    problems = (f"{file.path}: {file.problem}" for file in run.files if file.problem)
    return TestBasis(
        change=_CHANGES[run.told],
        impact=ImpactBasis.ValueType(basis.impact),
        graph_commit_sha=basis.graph_commit_sha,
        never_run_count=basis.never_run_count,
        unreadable_count=basis.unreadable_count,
        unplaced_paths=basis.unplaced_paths,
        diff_problems=islice(problems, _MOST_PROBLEMS),
        known_tests_cut=basis.known_tests_cut,
        known_tests_filling=basis.known_tests_filling,
    )


def _explanation(explanation: Explanation) -> TestExplanation:
    told = TestExplanation(index=explanation.index)
    for feature, value, effect in explanation.contributions:
        told.contributions.add(feature=feature, value=value if math.isfinite(value) else None, effect=effect)
    if explanation.impact is not None:
        told.impact.distance = explanation.impact.distance
        told.impact.nodes.extend(explanation.impact.nodes)
    return told


def _fill_promise(told: SelectionPromise, promise: Promise) -> None:
    told.miss_rate = promise.alpha
    told.basis = PromiseBasis.ValueType(promise.ground)
    if (threshold := promise.threshold) is not None:
        told.level = threshold.level
        told.calibration_run_count = threshold.cycle_count
        if not threshold.selects_everything:
            told.threshold = threshold.score
    if promise.calibrated_until_seconds is not None:
        set_seconds(told.calibration_end_time, promise.calibrated_until_seconds)
    if (realised := promise.realised) is not None:
        told.realised.miss_rate, told.realised.run_count = realised.miss_rate, realised.run_count
        set_seconds(told.realised.start_time, realised.start_seconds)
        set_seconds(told.realised.end_time, realised.end_seconds)


def _flaky_test(one: FlakyOne) -> flaky_test_pb2.FlakyTest:
    told = flaky_test_pb2.FlakyTest(
        test_id=one.test_id,
        state=FlakyState.ValueType(one.status),
        flaky_probability=one.probability,
        evidence=_evidence(one.facts),
    )
    for status, seconds in one.history:
        set_seconds(told.history.add(state=FlakyState.ValueType(status)).time, seconds)
    return told


def _evidence(facts: FlakyFacts) -> FlakyEvidence:
    told = FlakyEvidence(
        run_count=facts.run_count,
        failure_count=facts.failure_count,
        flip_count=facts.flip_count,
        rerun_flip_count=facts.rerun_flip_count,
        flip_rate=facts.flip_rate,
        outcome_entropy=facts.outcome_entropy,
        runs_since_flip=facts.runs_since_flip,
    )
    if facts.last_flip_seconds is not None:
        set_seconds(told.last_flip_time, facts.last_flip_seconds)
    return told
