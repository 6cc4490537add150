"""What is wrong with an answer about tests: each is worked out again (`O1`, `O3`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta

import numpy as np

from conductor_client import FallbackReason, PredictionMethod
from conductor_client.testing.enums import FailureReason, PromiseBasis, SelectionReason
from conductor_client.testing.selections import Selection
from conductor_features.views import PATH_CHANGES, TEST_HISTORY, TEST_PATH_AFFINITY
from conductor_workbench.faults import tests_model as planted
from conductor_workbench.faults.oracle import tenant_id
from conductor_workbench.faults.tests_asked import TIME_SHARE, Method, TestsAsked, TestsTold
from conductor_workbench.faults.tests_model import Array, Mask, Numbers, Tests

_ROW = f"{TEST_HISTORY.key}.last_duration"
_PATHS = {f"{PATH_CHANGES.key}.{name}" for name in ("change_count", "failed_run_rate_10")}
_PAIRS = {f"{TEST_PATH_AFFINITY.key}.failure_count"}
_OVERHEAD = 0.01
"""What a test takes beside its own time, where an order is judged."""
_CLOSE = 1e-6
_LEFT_OUT = (SelectionReason.UNLIKELY, SelectionReason.OUT_OF_TIME)
_OF_EVERY_GOAL = {SelectionReason.HISTORY_UNREADABLE, SelectionReason.NEVER_RAN, SelectionReason.AUDIT}


class Wrong(Exception):
    """What is wrong."""


def _require(holds: object, reason: str) -> None:
    if not holds:
        raise Wrong(reason)


class TestsOracle:
    """Tells what is wrong with an answer about tests."""

    __test__ = False

    def __init__(self, versions: Mapping[str, Mapping[str, int]]) -> None:
        """``versions``: by owner, empty for the global model, the code of each version by its name."""
        self._versions = versions

    def wrong(self, asked: TestsAsked, told: TestsTold) -> str:
        """What is wrong; empty if nothing is."""
        try:
            self._judge(asked, told)
        except Wrong as reason:
            return str(reason)
        return ""

    def _judge(self, asked: TestsAsked, told: TestsTold) -> None:
        tests, probabilities = asked.tests, np.array(told.probabilities)
        ids = planted.test_ids(tests.numbers.tolist())
        if asked.method is Method.PRIORITIZE:
            _require(told.total_count == len(ids), f"{told.total_count} tests in all")
            place = {test_id: at for at, test_id in enumerate(ids)}
            _require(sorted(told.test_ids) == sorted(ids), "not the tests that were asked for, each once")
            tests = Tests(asked.tenant, tests.numbers[[place[test_id] for test_id in told.test_ids]])
        else:
            _require(list(told.test_ids) == ids, "not the tests that were asked for, in their order")
        _require(len(probabilities) == len(ids), f"{len(probabilities)} probabilities for {len(ids)} tests")
        self._judge_label(asked, told)
        unreadable = self._judge_probabilities(asked, tests, told, probabilities)
        seconds = _times(np.where(unreadable, np.nan, tests.seconds))
        if asked.method is Method.PREDICT:
            _judge_prediction(tests, told, probabilities, unreadable)
        elif asked.method is Method.PRIORITIZE:
            _require(np.allclose(told.seconds, seconds, rtol=_CLOSE), "another test's time")
            _judge_order(probabilities, seconds)
        elif told.selection is not None:
            _judge_selection(told.selection, tests, probabilities, seconds, unreadable)
            (self._judge_promise if asked.promised else _judge_budget)(asked, told, told.selection, seconds)

    def _judge_label(self, asked: TestsAsked, told: TestsTold) -> None:
        method, provenance = told.method, told.provenance
        lacks, falls_back = provenance.missing_features, provenance.fallback_reason is not FallbackReason.UNSPECIFIED
        _require(set(lacks) <= {_ROW} | _PATHS | _PAIRS, f"lacks {lacks}")
        if method is PredictionMethod.MODEL:
            _require(not lacks and not told.basis.unreadable_count, "claims to be full, and says what it lacks")
        elif method is PredictionMethod.MODEL_DEGRADED:
            _require(lacks, "degraded, and does not say what it lacks")
        elif method is PredictionMethod.HISTORY:
            _require(falls_back, "of history, and does not say why")
        else:
            _require(method is PredictionMethod.DEFAULT, f"by {method.name}")
            _require(falls_back and lacks, "of the whole, and does not say why")
        by_model = method in (PredictionMethod.MODEL, PredictionMethod.MODEL_DEGRADED)
        own = tenant_id(asked.tenant) in self._versions
        if by_model and own and provenance.model_name.endswith("/global"):
            _require(falls_back, "by the global model, and does not say why")

    def _codes(self, asked: TestsAsked, told: TestsTold) -> list[int]:
        """Codes of the version that an answer names, if that may answer; of all that may, if it names none."""
        name = tenant_id(asked.tenant)
        owners = {f"models/{planted.PREDICTOR}/global": "", f"models/{planted.PREDICTOR}/tenants/{name}": name}
        if not told.provenance.model_name:
            return [code for owner in owners.values() for code in self._versions.get(owner, {}).values()]
        versions = self._versions.get(owners.get(told.provenance.model_name, "nobody"), {})
        return [code for version, code in versions.items() if version == told.provenance.model_version]

    def _judge_probabilities(self, asked: TestsAsked, tests: Tests, told: TestsTold, probabilities: Array) -> Mask:
        """Returns whose history counted as unreadable."""
        basis, codes, lacks = told.basis, self._codes(asked, told), told.provenance.missing_features
        _require(codes, f"by {told.provenance.model_name} {told.provenance.model_version}, which may not answer")
        unreadable = np.zeros(len(tests.numbers), bool)
        if told.method is PredictionMethod.DEFAULT:
            unreadable[:] = True
            _require((probabilities == planted.overall_rate(codes[0])).all(), "not how often tests fail at all")
        elif told.method is PredictionMethod.HISTORY:
            _require(asked.changes_test, "of history, though a model could answer")
            expected = [_by_history(tests, planted.overall_rate(code)) for code in codes]
            _require(any(np.allclose(probabilities, one, rtol=_CLOSE) for one in expected), "not of their history")
        else:
            _require(not asked.changes_test, "by a model that can't answer")
            failed_with = tests.failed_with(asked.path) & (not (_PATHS | _PAIRS).intersection(lacks))
            given = (codes[0], asked.paths, failed_with)
            expected_full = planted.probabilities(tests.codes, *given)
            if _ROW in lacks:
                without = planted.probabilities(np.zeros(len(tests.numbers)), *given)
                unreadable = (probabilities != expected_full) & (probabilities == without)
                expected_full = np.where(unreadable, without, expected_full)
            others = np.flatnonzero(probabilities != expected_full)
            if len(others):
                raise Wrong(_difference(probabilities, expected_full, others))
        news = ~tests.known & ~unreadable
        counts = basis.unreadable_count, basis.never_run_count
        _require(sum(counts) == unreadable.sum() + news.sum(), f"{counts} tests unreadable and new")
        return unreadable

    def _judge_promise(self, asked: TestsAsked, told: TestsTold, selection: Selection, seconds: Array) -> None:
        promise, own = selection.promise, told.provenance.model_name.endswith(f"/tenants/{tenant_id(asked.tenant)}")
        _require(promise is not None, "no promise")
        assert promise is not None  # noqa: S101 - for the type checker
        reasons = set(map(SelectionReason, selection.reason_numbers))
        if told.method is PredictionMethod.MODEL and own:
            [code] = self._codes(asked, told)
            expected = planted.threshold(asked.tenant, code)
            _require(promise.basis is PromiseBasis.CALIBRATED, f"promises by {promise.basis.name}")
            _require(promise.threshold == expected, f"promises from {promise.threshold}, not from {expected}")
            likely = np.array(selection.probabilities) >= expected
            named = np.array(selection.reason_numbers)
            _require(likely[named == SelectionReason.LIKELY_ENOUGH].all(), "run though unlikely")
            _require(not likely[named == SelectionReason.UNLIKELY].any(), "left out though likely")
            _require(
                reasons <= _OF_EVERY_GOAL | {SelectionReason.LIKELY_ENOUGH, SelectionReason.UNLIKELY}, f"{reasons}"
            )
        else:
            _require(promise.basis is PromiseBasis.NO_CALIBRATION, f"promises by {promise.basis.name}")
            _require(reasons <= _OF_EVERY_GOAL | {SelectionReason.EVERYTHING, SelectionReason.REACHED}, f"{reasons}")


def _difference(probabilities: Array, expected: Array, others: Numbers) -> str:
    """The first of those that differ, as codes."""
    first = others[0]
    told, right = (_read(float(of[first])) for of in (probabilities, expected))
    return f"{len(others)} of {len(expected)} probabilities differ, the first is {told} instead of {right}"


def _read(probability: float) -> str:
    whole = round(probability * (1 << 24))
    return f"(row {whole >> 10}; version {whole >> 5 & 31}; paths {whole >> 1 & 15}; failed with {whole & 1})"


def _by_history(tests: Tests, overall: float) -> Array:
    """The middle of a test's latest results and of all of them; for a new one what tests do at all."""
    runs = np.where(tests.known, planted.RUN_COUNT, 0)
    of_all = (tests.failures + overall / 2) / (runs + 0.5)
    return (np.where(tests.known, tests.latest_rates, overall) + of_all) / 2


def _times(known: Array) -> Array:
    """What each takes; where it is unknown the median of the others, a second where none is known."""
    typical = 1.0 if np.isnan(known).all() else np.nanmedian(known)
    return np.where(np.isnan(known), typical, known)


def _judge_prediction(tests: Tests, told: TestsTold, probabilities: Array, unreadable: Mask) -> None:
    reasons = np.array(told.reasons)
    _require(len(reasons) == len(probabilities), f"{len(reasons)} reasons")
    _require(((reasons == FailureReason.HISTORY_UNREADABLE) == unreadable).all(), "others unreadable than it counts")
    codes = dict(zip(told.test_ids, tests.codes.tolist(), strict=True))
    chances = dict(zip(told.test_ids, probabilities.tolist(), strict=True))
    explained = [chances[one.test_id] for one in told.explanations]
    _require(
        explained == sorted(chances.values(), reverse=True)[: len(explained)], "explains others than the likeliest"
    )
    for one in told.explanations:
        rows = [part.value for part in one.contributions if part.feature == "row" and part.value is not None]
        _require(all(row == codes[one.test_id] for row in rows), f"explains {one.test_id} by row {rows}")


def _judge_order(probabilities: Array, seconds: Array) -> None:
    worth = np.maximum(probabilities, 1e-12) / (seconds + _OVERHEAD)
    _require((worth[1:] <= worth[:-1] * (1 + _CLOSE)).all(), "not in order of what they are worth")


def _judge_selection(
    selection: Selection,
    tests: Tests,
    probabilities: Array,
    seconds: Array,
    unreadable: Mask,
) -> None:
    reasons, chosen = np.array(selection.reason_numbers), np.array(selection.selected, np.intp)
    _require(len(reasons) == len(tests.numbers), f"{len(reasons)} reasons")
    runs = ~np.isin(reasons, _LEFT_OUT)
    _require(np.array_equal(np.sort(chosen), np.flatnonzero(runs)), "selects others than those it has reasons for")
    _judge_order(probabilities[chosen], seconds[chosen])
    _require((runs | (tests.known & ~unreadable)).all(), "leaves out of what nothing is known")
    for told, right in ((selection.selected_duration, seconds[chosen]), (selection.total_duration, seconds)):
        _require(math.isclose(told / timedelta(seconds=1), right.sum(), rel_tol=_CLOSE), f"takes {told}")
    missed = float(probabilities[~runs].sum())
    _require(math.isclose(selection.expected_missed_failures, missed, rel_tol=_CLOSE), "misses another number")


def _judge_budget(asked: TestsAsked, told: TestsTold, selection: Selection, seconds: Array) -> None:
    """What is run for its worth stays within the share of the time."""
    reasons = np.array(selection.reason_numbers)
    _require(selection.promise is None, "a promise that nobody asked for")
    spent = seconds[~np.isin(reasons, (*_LEFT_OUT, SelectionReason.AUDIT))].sum()
    worth = seconds[reasons == SelectionReason.WORTH_ITS_TIME].sum()
    _require(not worth or spent <= TIME_SHARE * seconds.sum() * (1 + _CLOSE), f"{spent} s of {seconds.sum()} s")
