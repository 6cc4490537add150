"""Answers about tests, as a person would say them."""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta

from conductor_client.origin_words import origin_words
from conductor_client.output import readable_duration
from conductor_client.testing.enums import (
    ChangeBasis,
    FailureReason,
    FlakyState,
    ImpactBasis,
    NextStep,
    PromiseBasis,
    SelectionReason,
)
from conductor_client.testing.flaky import FailureClassification, FlakyEvidence
from conductor_client.testing.labels import Basis, Provenance
from conductor_client.testing.selections import Selection, SelectionPromise

FAILURES = {
    FailureReason.UNSPECIFIED: "nothing in particular",
    FailureReason.FAILED_LAST: "failed when it last ran",
    FailureReason.FAILED_RECENTLY: "failed not long ago",
    FailureReason.FAILS_OFTEN: "has often failed",
    FailureReason.FLAKY: "goes to and fro on equal code",
    FailureReason.TEST_CHANGED: "is changed itself, or new",
    FailureReason.FAILED_WITH_FILES: "failed before when these files were changed",
    FailureReason.REACHED: "changed code reaches it",
    FailureReason.NEVER_RAN: "never ran",
    FailureReason.HISTORY_UNREADABLE: "its history could not be read",
}
CHOICES = {
    SelectionReason.UNSPECIFIED: "for a reason that this client doesn't know",
    SelectionReason.MUST_RUN: "must run",
    SelectionReason.REACHED: "changed, or reached by the change",
    SelectionReason.NEVER_RAN: "never ran",
    SelectionReason.HISTORY_UNREADABLE: "its history could not be read",
    SelectionReason.LIKELY_ENOUGH: "likely enough to fail",
    SelectionReason.WORTH_ITS_TIME: "worth its time",
    SelectionReason.EVERYTHING: "everything is run",
    SelectionReason.AUDIT: "drawn at random, to measure what is missed",
    SelectionReason.UNLIKELY: "unlikely to fail",
    SelectionReason.OUT_OF_TIME: "no time left for it",
}
_PROMISES = {
    PromiseBasis.UNSPECIFIED: "on a ground that this client doesn't know",
    PromiseBasis.TOO_FEW_RUNS: "everything is run: too few past runs with a failure",
    PromiseBasis.BROKEN_LATELY: "everything is run: more was missed lately than promised",
    PromiseBasis.TOO_OLD: "everything is run: the calibration is too old",
    PromiseBasis.NO_CALIBRATION: "everything is run: no model answered that was calibrated for the tenant",
}
_IMPACTS = {
    ImpactBasis.NO_GRAPH: "no graph of the code: `conductor repo index` makes one",
    ImpactBasis.LOADING: "the graph of the code is being loaded; later answers have it",
    ImpactBasis.UNAVAILABLE: "the graph of the code could not be read",
}
STATES = {
    FlakyState.UNSPECIFIED: "not flaky",
    FlakyState.ACTIVE: "active",
    FlakyState.QUARANTINED: "quarantined",
    FlakyState.FIXED: "fixed",
}
_STEPS = {
    NextStep.UNSPECIFIED: "nothing in particular",
    NextStep.RERUN_TEST: "try the test again: that tells flaky from real",
    NextStep.RERUN_JOB: "try the whole job again, on another machine",
    NextStep.INSPECT_CHANGE: "look at the change: it reaches the test",
    NextStep.QUARANTINE: "quarantine the test and have it mended",
    NextStep.BISECT: "look for the change that broke it: it has failed since before this run",
}
_MOST_PATHS = 5


def share(value: float) -> str:
    """A share in per cent."""
    return f"{value * 100:.3g} %"


def origin(provenance: Provenance) -> str:
    """Where an answer comes from."""
    return origin_words(
        provenance,
        history="no model: from the tests' own histories",
        default="no model and no history: typical of all tests",
    )


def rests_on(basis: Basis) -> Iterator[str]:
    """What should be known of an answer's ground, a line each."""
    if basis.change is ChangeBasis.UNSPECIFIED:
        yield "no change was told: by the tests' histories alone"
    elif basis.impact in _IMPACTS:
        yield _IMPACTS[basis.impact]
    elif basis.impact is ImpactBasis.GRAPH:
        yield f"by the graph of the code at {basis.graph_commit_sha[:12]}"
    if basis.known_tests_cut:
        yield "the repository has more tests than a server holds: nothing is said of the others; name the tests"
    if basis.known_tests_filling:
        yield "the list of tests is being filled in: nothing is said of those that are missing yet; name the tests"
    if basis.never_run_count:
        yield f"tests that never ran: {basis.never_run_count:,}"
    if basis.unreadable_count:
        yield f"tests whose history could not be read, and that are not left out: {basis.unreadable_count:,}"
    if basis.unplaced_paths:
        more = len(basis.unplaced_paths) - _MOST_PATHS
        named = ", ".join(basis.unplaced_paths[:_MOST_PATHS]) + (f" and {more:,} more" if more > 0 else "")
        yield f"may reach anything: {named}"
    for problem in basis.diff_problems[:_MOST_PATHS]:
        yield f"not read of the diff: {problem}"


def selection_words(selection: Selection) -> Iterator[str]:
    """A selection without its tests, a line each."""
    part, whole = selection.selected_duration, selection.total_duration
    cost = f", {share(part / whole)} of the time" if whole > timedelta() else ""
    yield (
        f"{len(selection.selected):,} of {len(selection):,} tests: about {readable_duration(part)} of "
        f"{readable_duration(whole)}{cost} — {origin(selection.provenance)}"
    )
    if selection.promise is not None:
        yield promise_words(selection.promise)
    yield f"expected failures among the tests left out: {selection.expected_missed_failures:.3g}"
    reasons = Counter(map(SelectionReason, selection.reason_numbers))
    for reason, count in reasons.most_common():
        kept = "left out" if reason >= SelectionReason.UNLIKELY else "run"
        yield f"  {count:>7,} {kept}: {CHOICES[reason]}"
    yield from rests_on(selection.basis)


def promise_words(promise: SelectionPromise) -> str:
    """What is promised, and what the same promise came to."""
    goal = f"at most {share(promise.miss_rate)} of a run's failures missed"
    if promise.basis is not PromiseBasis.CALIBRATED:
        return f"promise: {goal}; {_PROMISES[promise.basis]}"
    words = f"promise: {goal}, calibrated on {promise.calibration_run_count:,} runs with a failure"
    if promise.calibration_end is not None:
        words += f" up to {_day(promise.calibration_end)}"
    if (realised := promise.realised) is not None:
        words += (
            f"; on {realised.run_count:,} runs from {_day(realised.start)} to {_day(realised.end)} "
            f"{share(realised.miss_rate)} were missed"
        )
    return words


def classification_words(answer: FailureClassification) -> Iterator[str]:
    """What a failure was, a line each."""
    verdict = answer.verdict.name.lower() if answer.verdict else "it can't be told"
    chances = f"real {share(answer.real)}, flaky {share(answer.flaky)}, infrastructure {share(answer.infrastructure)}"
    yield f"{verdict.capitalize()} ({chances}) — {origin(answer.provenance)}"
    for line in answer.evidence:
        yield f"  {line}"
    if answer.history is not None:
        yield f"  {evidence_words(answer.history)}"
    yield f"next: {_STEPS[answer.next_step]}"
    yield from rests_on(answer.basis)


def evidence_words(evidence: FlakyEvidence) -> str:
    """A test's history in one line."""
    flips = f"{evidence.flip_count:,} flips, {evidence.rerun_flip_count:,} of them on equal code"
    return f"{evidence.failure_count:,} of {evidence.run_count:,} results failed; {flips}"


def _day(moment: datetime) -> str:
    return moment.date().isoformat()
