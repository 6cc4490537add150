"""Which tests are flaky, and what one failure was."""

from __future__ import annotations

import asyncio
import math
import time
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime

import numpy as np

from conductor_features.changes.impact_graph import FAR
from conductor_features.keyed import Keyed
from conductor_features.request_columns.tests import REQUEST_COLUMN_NAMES
from conductor_features.views import TEST_FLAKINESS as FLAKINESS_VIEW
from conductor_features.views import TEST_HISTORY
from conductor_rpc import names
from conductor_rpc.call import Deadline
from conductor_rpc.exceptions import InvalidRequest, NoPrediction, Violation
from conductor_rpc.telemetry import Telemetry
from conductor_server.prediction.answers import Method, Origin
from conductor_server.prediction.ports import Models, Route
from conductor_server.testing.answers import Basis, Classified, FlakyFacts, FlakyOne, FlakyPage, FlakyStatus
from conductor_server.testing.asking import Asking, Known, Scored
from conductor_server.testing.flaky_facts import Known as KnownFlaky
from conductor_server.testing.flaky_facts import facts_of, timeline
from conductor_server.testing.history import UNKNOWN_FLAKY, flaky_rates, never_ran
from conductor_server.testing.ports import Features, FlakyTests
from conductor_server.testing.questions import TEST_FLAKINESS, Failure, TestRun
from conductor_server.testing.reach import Reach, Reaching
from conductor_server.testing.rows import Array, Rows
from conductor_server.testing.verdicts import Past, judge, next_step

VIEWS = (TEST_HISTORY, FLAKINESS_VIEW)
"""Read for every question, whatever its model takes."""
_Place = tuple[int, float, str]
"""Where a test stands in the list: its state, its probability of being flaky, negative, and its id."""
_NO_FACTS = FlakyFacts(0, 0, 0, 0, 0.0, 0.0, None, 0)


class Flakiness:
    """Answers questions about flaky tests."""

    def __init__(
        self,
        models: Models,
        features: Features,
        flaky: FlakyTests,
        reaching: Reaching,
        telemetry: Telemetry,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._models, self._features, self._flaky, self._reaching = models, features, flaky, reaching
        self._telemetry, self._clock = telemetry, clock
        self._asking = Asking(telemetry, TEST_FLAKINESS, flaky_rates)

    async def list(
        self, tenant_id: str, repository: str, states: Collection[FlakyStatus], count: int, after: str, until: Deadline
    ) -> FlakyPage:
        """A page of a repository's flaky tests, as of now: by state, then the likeliest to be flaky, then by id.

        Where a test's probability changes from page to page it may stand on two of them, or on none. Raises
        InvalidRequest where no page ended at ``after``.
        """
        begin = _place_of(after) if after else None
        run = TestRun(tenant_id, repository, round(self._clock() * 1e6), past_only=False)
        route = self._route(run)
        with self._telemetry.stage(names.FEATURES_READ):
            tests = await self._flaky.listed(tenant_id, repository, until)
            rows = await self._rows(route, run, tests, until)
        if len(tests) and rows[FLAKINESS_VIEW.key].unreadable.all():
            raise NoPrediction
        with self._telemetry.span(names.TESTS_JUDGE):
            return await asyncio.to_thread(self._page, run, route, tests, rows, states, count, begin)

    def _page(
        self,
        run: TestRun,
        route: Route,
        tests: Keyed,
        rows: Mapping[str, Rows],
        states: Collection[FlakyStatus],
        count: int,
        after: _Place | None,
    ) -> FlakyPage:
        known = KnownFlaky(rows[FLAKINESS_VIEW.key], rows[TEST_HISTORY.key], run.moment_us / 1e6)
        scored = self._scored(route, Known(run.moment_us, rows, {}))
        wanted = np.flatnonzero(np.isin(known.states, [int(state) for state in states if state]))
        # Members are in the order of their ids.
        order = wanted[np.lexsort((wanted, -scored.probabilities[wanted], known.states[wanted]))]

        def place(index: int) -> _Place:
            return int(known.states[index]), -float(scored.probabilities[index]), tests.members[index]

        begin = bisect_right(order, after, key=place) if after is not None else 0
        shown = order[begin : begin + count]
        return FlakyPage(
            [self._one(tests, known, scored.probabilities, int(index)) for index in shown],
            len(order),
            _token_of(place(int(shown[-1]))) if begin + count < len(order) else "",
            scored.origin,
            _age_seconds(run, rows.values()),
        )

    def _one(self, tests: Keyed, known: KnownFlaky, probabilities: Array, index: int) -> FlakyOne:
        return FlakyOne(
            tests.members[index],
            FlakyStatus(int(known.states[index])),
            float(probabilities[index]),
            facts_of(known, index) or _NO_FACTS,
            timeline(known, index),
        )

    async def classify(self, failure: Failure, until: Deadline) -> Classified:
        """What one failure was."""
        run = failure.run
        route = self._route(run)
        with self._telemetry.stage(names.FEATURES_READ):
            tests = await self._features.candidates(run, until)
            change, graph, rows = await asyncio.gather(
                self._features.change_columns(run, tests, until),
                self._reaching.graph(run),
                self._rows(route, run, tests, until),
            )
        requested = dict(zip(REQUEST_COLUMN_NAMES, change.values.T, strict=True))
        known = Known(run.moment_us, rows, requested, change.unreadable)

        def classified() -> Classified:
            return self._classified(
                failure, self._scored(route, known), known, self._reaching.reach(run, graph, tests.members)
            )

        # A graph takes a while to be walked, and a message to be looked through.
        with self._telemetry.span(names.TESTS_JUDGE):
            return await asyncio.to_thread(classified)

    def _classified(self, failure: Failure, scored: Scored, known: Known, reach: Reach) -> Classified:
        run, history = failure.run, known.history
        flaky = KnownFlaky(known.rows[FLAKINESS_VIEW.key], history, run.moment_us / 1e6)
        way = reach.way(run.test_ids[0])
        past = Past(
            float(scored.probabilities[0]),
            FlakyStatus(int(flaky.states[0])),
            float(history.field("mean_duration_10")[0]),
            bool(history.field("last_failed")[0] == 1),
            float(history.field("failure_rate_10")[0]),
            reach.distance is not None and bool(reach.distance[0] < FAR),
        )
        judgement = judge(failure, past)
        facts = facts_of(flaky, 0)
        told = [*judgement.evidence, *_of_the_past(past, facts, flaky, scored, history)]
        if reach.distance is not None:
            told.append((0.0, _reached(past, None if way is None else way.distance)))
        return Classified(
            judgement.verdict,
            judgement.real,
            judgement.flaky,
            judgement.infrastructure,
            [says for _, says in sorted(told, key=lambda one: -one[0])],
            facts,
            next_step(failure, past, judgement),
            Basis(
                reach.known,
                reach.commit_sha,
                int(never_ran(history).sum()),
                int(history.unreadable.sum()),
                reach.unplaced_paths,
            ),
            scored.origin,
            _age_seconds(run, known.rows.values()),
        )

    def _route(self, run: TestRun) -> Route:
        return self._models.route(TEST_FLAKINESS, run.tenant_id, (run.repository,))

    async def _rows(self, route: Route, run: TestRun, tests: Keyed, until: Deadline) -> Mapping[str, Rows]:
        found = await asyncio.gather(*(self._features.rows(view, run, tests, until) for view in route.views))
        return {rows.view.key: rows.known_at(run.moment_us, past_only=run.past_only) for rows in found}

    def _scored(self, route: Route, known: Known) -> Scored:
        try:
            return self._asking.ask(route, known)
        except NoPrediction:
            # What happened in the run, and what people said of the test, is worth telling all the same.
            return Scored(np.full(len(known.history), UNKNOWN_FLAKY), Origin(Method.DEFAULT))


def _of_the_past(
    past: Past, facts: FlakyFacts | None, flaky: KnownFlaky, scored: Scored, history: Rows
) -> Iterator[tuple[float, str]]:
    """What the test's past says, and how telling that is."""
    if scored.origin.method is not Method.DEFAULT:
        by = "its history" if scored.origin.method is Method.HISTORY else "the model"
        p = min(max(past.flaky_probability, 1e-6), 1 - 1e-6)
        yield abs(math.log(p / (1 - p))), f"By {by}, a failure of this test is flaky with probability {p:.0%}."
    if facts is None:
        yield 0.0, "Its history could not be read." if history.unreadable[0] else "It never ran before."
        return
    if facts.rerun_flip_count:
        yield (
            0.5,
            f"It went to and fro {facts.rerun_flip_count} times within a run, and {facts.flip_count} times in all,"
            f" in {facts.run_count} results of which {facts.failure_count} failed.",
        )
    if past.state:
        since = dict(timeline(flaky, 0)).get(past.state)
        if since is not None:
            yield 0.4, f"It is {past.state.name.lower()} since {datetime.fromtimestamp(since, UTC):%Y-%m-%d}."
    if past.failed_before:
        in_a_row = flaky.flaky.field("failed_runs_in_a_row")[0]
        yield 0.6, f"It failed in the last {in_a_row:.0f} runs too." if in_a_row > 1 else "It failed when it ran last."


def _reached(past: Past, distance: int | None) -> str:
    if not past.is_reached:
        return "The change does not reach it, as far as the graph of the code tells."
    return "The change reaches it." if not distance else f"The change reaches it over {distance} files."


def _age_seconds(run: TestRun, rows: Collection[Rows]) -> float | None:
    oldest = [of_view.oldest_us for of_view in rows if of_view.oldest_us is not None]
    return max(0.0, (run.moment_us - min(oldest)) / 1e6) if oldest else None


def _token_of(place: Sequence[object]) -> str:
    return " ".join(map(str, place))


def _place_of(token: str) -> _Place:
    try:
        state, probability, test_id = token.split(" ", 2)
        return int(state), float(probability), test_id
    except ValueError as error:  # a token's checksum is no secret: whoever likes can make one
        raise InvalidRequest([Violation("page_token", "must be the next_page_token of an answer")]) from error
