"""Which tests will fail, in which order to run them, which to run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from conductor_features.changes.impact_graph import ImpactGraph
from conductor_features.keyed import Keyed
from conductor_features.listings import Listed
from conductor_features.request_columns.tests import REQUEST_COLUMN_NAMES
from conductor_features.rows import Missing
from conductor_features.views import TEST_HISTORY
from conductor_model_store.test_order import known_or_typical, per_second
from conductor_rpc import names
from conductor_rpc.call import NO_DEADLINE, Deadline
from conductor_rpc.telemetry import Telemetry
from conductor_server.prediction.ports import Models, Route
from conductor_server.testing import selecting
from conductor_server.testing.answers import Basis, Ordered, Predicted, Promise, Selected, Times
from conductor_server.testing.asking import Asking, Known, Scored
from conductor_server.testing.explaining import explanations
from conductor_server.testing.history import never_ran
from conductor_server.testing.must_run import must_run
from conductor_server.testing.ports import Features
from conductor_server.testing.promises import Promises
from conductor_server.testing.questions import TEST_FAILURE, MissRate, SelectionRules, TestRun, TimeShare
from conductor_server.testing.reach import Reach, Reaching
from conductor_server.testing.reasons import reasons
from conductor_server.testing.rows import Mask

VIEWS = (TEST_HISTORY,)
"""Read for every run, whatever its model takes."""
_INLINE_TESTS = 128
"""More tests than this are worked out beside the event loop: other calls must not wait for them."""
_INLINE_PATTERNS = 16
"""Nor are more patterns than this matched on it."""

T = TypeVar("T")


@dataclass(frozen=True)
class _Judged:
    """What is known of the tests of a run, and what follows of it."""

    tests: Keyed
    known: Known
    reach: Reach
    scored: Scored
    route: Route
    predicted: Predicted

    def ordered(self) -> Ordered:
        seconds = self.known.history.field("mean_duration_10")
        times = Times(known_or_typical(seconds), int(np.isnan(seconds).sum()))
        worth = per_second(self.predicted.probabilities, times.expected)
        return Ordered(self.predicted, times, np.argsort(-worth, kind="stable"))

    def reached(self, distance: int) -> Mask:
        """Tests that the change reaches by so many files or fewer, and those that it changes."""
        changed: Mask = self.known.requested["is_test_changed_v2"] > 0
        return changed if self.reach.distance is None else changed | (self.reach.distance <= distance)


class TestIntelligence:
    """Answers questions about the tests of a run to come."""

    __test__ = False

    def __init__(
        self, models: Models, features: Features, reaching: Reaching, promises: Promises, telemetry: Telemetry
    ) -> None:
        self._models, self._features, self._reaching, self._promises = models, features, reaching, promises
        self._telemetry = telemetry
        self._asking = Asking(telemetry)

    async def predict(self, run: TestRun, explanation_count: int, until: Deadline) -> Predicted:
        """How likely each test is to fail; the likeliest ``explanation_count`` are explained."""

        def explained(judged: _Judged) -> Predicted:
            told = explanations(judged.scored, judged.reach, judged.tests.members, explanation_count)
            return replace(judged.predicted, explanations=told)

        return await self._judged(run, until, explained)

    async def order(self, run: TestRun, until: Deadline) -> Ordered:
        """In which order to run them."""
        return await self._judged(run, until, _Judged.ordered)

    async def select(
        self, run: TestRun, goal: TimeShare | MissRate, rules: SelectionRules, until: Deadline
    ) -> Selected:
        """Which of them to run."""

        def ruled(judged: _Judged) -> tuple[_Judged, Ordered, selecting.Choices]:
            history = judged.known.history
            named = must_run(rules.must_run, judged.tests.members, until)
            reached = judged.reached(rules.must_run_distance)
            return judged, judged.ordered(), selecting.ruled(named, reached, never_ran(history), history.unreadable)

        few = len(rules.must_run) <= _INLINE_PATTERNS
        judged, ordered, choices = await self._judged(run, until, ruled, inline=few)
        seconds, probabilities = ordered.times.expected, ordered.predicted.probabilities
        promise: Promise | None = None
        if isinstance(goal, TimeShare):
            budget = goal.share * float(seconds.sum())
            choices = selecting.within(choices, seconds, ordered.order, budget)
            choices = selecting.audited(choices, rules.audit_share, run, goal.share)
        else:
            origin = ordered.predicted.origin
            promise = await self._promises.promise(judged.route, origin, run.tenant_id, goal.alpha, run.moment_us)
            if promise.threshold is None or promise.threshold.selects_everything:
                choices = selecting.everything(choices)
            else:
                choices = selecting.above(choices, probabilities, promise.threshold.score)
            choices = selecting.audited(choices, rules.audit_share, run, goal.alpha)
        runs = selecting.is_run(choices)
        return Selected(
            ordered,
            choices,
            ordered.order[runs[ordered.order]],
            rules.audit_share,
            float(probabilities[~runs].sum()),
            promise,
        )

    async def _judged(self, run: TestRun, until: Deadline, then: Callable[[_Judged], T], *, inline: bool = True) -> T:
        """Read, judge, and go on with ``then``, beside the event loop where that takes long. ``inline``: ``then`` does
        not, where there are few tests."""
        route = self._models.route(TEST_FAILURE, run.tenant_id, (run.repository,))
        with self._telemetry.stage(names.FEATURES_READ):
            tests, known, graph = await self._read(run, route, _half_of(until))

        def judged() -> T:
            until.require(0)  # a thread may have been long in coming
            return then(self._judge(run, route, tests, known, graph))

        with self._telemetry.span(names.TESTS_JUDGE):
            quick = inline and len(tests) <= _INLINE_TESTS and graph is None
            return judged() if quick else await asyncio.to_thread(judged)

    async def _read(
        self, run: TestRun, route: Route, until: Deadline
    ) -> tuple[Keyed, Known, ImpactGraph | Missing | None]:
        tests = await self._features.candidates(run, until)
        blocks, change, graph = await asyncio.gather(
            asyncio.gather(*(self._features.rows(view, run, tests, until) for view in route.views)),
            self._features.change_columns(run, tests, until),
            self._reaching.graph(run),
        )
        rows = {rows.view.key: rows.known_at(run.moment_us, past_only=run.past_only) for rows in blocks}
        requested = dict(zip(REQUEST_COLUMN_NAMES, change.values.T, strict=True))
        some = isinstance(tests, Listed) and (tests.cut or not tests.whole)
        return tests, Known(run.moment_us, rows, requested, change.unreadable, complete=not some), graph

    def _judge(
        self, run: TestRun, route: Route, tests: Keyed, known: Known, graph: ImpactGraph | Missing | None
    ) -> _Judged:
        scored = self._asking.ask(route, known)
        reach = self._reaching.reach(run, graph, tests.members)
        history = known.history
        oldest_us = history.oldest_us
        predicted = Predicted(
            tests.members,
            scored.probabilities,
            reasons(history, known.requested, reach.distance, run.moment_us),
            Basis(
                reach.known,
                reach.commit_sha,
                int(never_ran(history).sum()),
                int(history.unreadable.sum()),
                reach.unplaced_paths,
                known_tests_cut=isinstance(tests, Listed) and tests.cut,
                known_tests_filling=isinstance(tests, Listed) and not tests.whole,
            ),
            scored.origin,
            None if oldest_us is None else max(0.0, (run.moment_us - oldest_us) / 1e6),
        )
        return _Judged(tests, known, reach, scored, route, predicted)


def _half_of(until: Deadline) -> Deadline:
    """What reading may take: the rest is the model's."""
    return until if until is NO_DEADLINE else Deadline.after(until.remaining_seconds() / 2)
