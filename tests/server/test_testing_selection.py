"""Which tests are run: what must be, what a promise or a budget asks for, and what is drawn beside it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import hypothesis.strategies as st
import numpy as np
import pytest
import redis
from hypothesis import example, given, settings

from changes.graphs import linked
from conductor_features.changes.changed_file import Change, ChangedFile
from conductor_features.keys import entity_key
from conductor_features.views import TEST_HISTORY
from conductor_model_store import CANARY, Pointer
from conductor_model_store.promise import PastCycle, Replay
from conductor_rpc.call import NO_DEADLINE, Deadline
from conductor_rpc.exceptions import DeadlineTooShort
from conductor_server.prediction.answers import Method
from conductor_server.testing import selecting
from conductor_server.testing.answers import Choice, Ground, Impact, Reason, Selected
from conductor_server.testing.must_run import must_run
from conductor_server.testing.promises import WINDOW, promise_at
from conductor_server.testing.questions import ChangeTold, MissRate, SelectionRules, TimeShare
from conductor_training.test_failure.frame import Run
from server.intelligence_scene import (
    REPOSITORY,
    Cycle,
    answered,
    model,
    run_at,
    serving,
    trained,
    write_graph,
    write_past,
)

HOUR = 3_600.0
ALL = SelectionRules(audit_share=0.0)
MOMENT = 61 * 6 * HOUR
"""Six hours after the last of the scene's runs."""


def past_cycles(count: int, failed: int = 3, seed: int = 1) -> list[Cycle]:
    """Runs with failures of any probability, hour by hour until two hours before MOMENT."""
    generator = np.random.default_rng(seed)
    ends = MOMENT - HOUR * np.arange(count + 1, 1, -1)
    return [(end - 1800, end, generator.beta(2, 8, failed).astype(np.float32).tolist()) for end in ends]


def promised(cycles: Sequence[Cycle], alpha: float, moment: float) -> tuple[float | None, list[float]]:
    """The threshold and what was missed, by the definition: every score is tried, from the greatest down."""
    missed: list[float] = []

    def threshold(moment: float) -> float | None:
        before = [at for at in range(len(missed)) if cycles[at][1] < moment][-200:]
        count, level = len(before), alpha
        for at in before:
            level = min(level + 0.2 * (alpha - missed[at]), alpha)
        failed = np.array([cycles[at][2] for at in before])
        for score in np.sort(failed, axis=None)[::-1].tolist():
            if (failed < score).mean(axis=1).sum() + 1 <= level * (count + 1) + 1e-9:
                return score
        return None

    for started, _, scores in cycles:
        score = threshold(started)
        missed.append(0.0 if score is None else sum(one < score for one in scores) / len(scores))
    return threshold(moment), missed


async def selected(
    redis_url: str, cycles: Sequence[Cycle] | None, alpha: float = 0.1, rules: SelectionRules = ALL, **more: object
) -> Selected:
    write_past(redis_url, trained().runs)
    ids = trained().runs[0].tests
    tenant_id = str(more.pop("of", "acme"))
    async with serving(redis_url, model(trained(), tenant_id, cycles)) as server:
        asked = run_at(**{"moment": MOMENT, "test_ids": ids, **more})  # type: ignore[arg-type]
        return await server.intelligence.select(asked, MissRate(alpha), rules, NO_DEADLINE)


@pytest.mark.parametrize(("alpha", "count"), [(0.1, 60), (0.3, 40), (0.2, 202)])
async def test_the_promise_can_be_computed_from_the_manifest(redis_url: str, alpha: float, count: int) -> None:
    cycles = past_cycles(count)
    answer = await selected(redis_url, cycles, alpha)
    score, missed = promised(cycles, alpha, MOMENT)
    promise = answer.promise
    assert promise is not None and promise.threshold is not None and promise.realised is not None
    assert (promise.alpha, promise.ground, promise.threshold.score) == (alpha, Ground.CALIBRATED, score)
    used = cycles[-200:]
    assert (promise.threshold.cycle_count, promise.realised.run_count) == (len(used), len(used))
    assert promise.realised.miss_rate == pytest.approx(np.mean(missed[-200:]))
    assert (promise.realised.start_seconds, promise.realised.end_seconds) == (used[0][0], used[-1][1])
    assert promise.calibrated_until_seconds == used[-1][1]
    probabilities = answer.ordered.predicted.probabilities
    assert score is not None
    expected = np.where(probabilities >= score, Choice.LIKELY_ENOUGH, Choice.UNLIKELY)
    np.testing.assert_array_equal(answer.choices, expected)
    assert 0 < (expected == Choice.UNLIKELY).sum() < len(expected)
    assert set(answer.chosen) == set(np.flatnonzero(expected == Choice.LIKELY_ENOUGH))
    assert answer.expected_missed_failures == pytest.approx(probabilities[expected == Choice.UNLIKELY].sum())
    worth = probabilities / (answer.ordered.times.expected + 0.01)
    assert (np.diff(worth[answer.chosen]) <= 0).all() and (np.diff(worth[answer.ordered.order]) <= 0).all()


async def test_runs_that_ended_later_than_the_question_are_not_known(redis_url: str) -> None:
    cycles = past_cycles(60)
    write_past(redis_url, trained().runs[:20])
    moment = cycles[-15][1]
    async with serving(redis_url, model(trained(), cycles=cycles)) as server:
        asked = run_at(moment, test_ids=trained().runs[0].tests)
        answer = await server.intelligence.select(asked, MissRate(0.3), ALL, NO_DEADLINE)
    assert answer.promise is not None and answer.promise.threshold is not None
    assert answer.promise.threshold.cycle_count == 45
    assert answer.promise.threshold.score == promised(cycles, 0.3, moment)[0]


@pytest.mark.parametrize(
    ("ground", "cycles", "more"),
    [
        (Ground.TOO_FEW_RUNS, past_cycles(8), {}),
        (Ground.TOO_FEW_RUNS, [], {}),
        (Ground.BROKEN_LATELY, [*past_cycles(40)[:-1], (*past_cycles(40)[-1][:2], [0.0])], {}),
        (Ground.TOO_OLD, past_cycles(60), {"moment": MOMENT + 31 * 24 * HOUR}),
        (Ground.NO_CALIBRATION, None, {}),
        (Ground.NO_CALIBRATION, past_cycles(60), {"of": ""}),
    ],
)
async def test_without_ground_everything_is_run(redis_url: str, ground: Ground, cycles, more: dict) -> None:
    answer = await selected(redis_url, cycles, **more)
    assert answer.promise is not None and answer.promise.ground is ground
    assert set(answer.choices) == {Choice.EVERYTHING}
    assert sorted(answer.chosen) == list(range(len(answer.choices)))
    assert answer.expected_missed_failures == 0
    if ground is Ground.NO_CALIBRATION:
        assert answer.promise.threshold is None
    else:
        assert answer.promise.threshold is not None and answer.promise.threshold.selects_everything
        assert answer.promise.threshold.cycle_count == len(cycles)


async def test_a_canary_and_a_degraded_answer_promise_nothing(redis_url: str) -> None:
    write_past(redis_url, trained().runs)
    own, ids = model(trained(), cycles=past_cycles(60)), trained().runs[0].tests
    asked = run_at(MOMENT, test_ids=ids)
    async with serving(redis_url, own) as server:
        pointer = Pointer(own.scope, CANARY, 1, own.version, "", datetime.now(UTC), "publish", weight=1.0)
        server.registry.set_variant((own.scope, CANARY), pointer)
        server.put(own, CANARY)
        answer = await server.intelligence.select(asked, MissRate(0.1), ALL, NO_DEADLINE)
        assert answer.promise is not None and answer.promise.ground is Ground.NO_CALIBRATION
        server.registry.set_variant((own.scope, CANARY), None)
        with redis.Redis.from_url(redis_url) as client:
            client.set(entity_key(TEST_HISTORY.key, ("acme", REPOSITORY, ids[5])), b"broken")
        answer = await server.intelligence.select(asked, MissRate(0.1), ALL, NO_DEADLINE)
        assert answer.ordered.predicted.origin.method is Method.MODEL_DEGRADED
        assert answer.promise is not None and answer.promise.ground is Ground.NO_CALIBRATION
        assert answer.choices.tolist() == [
            Choice.HISTORY_UNREADABLE if at == 5 else Choice.EVERYTHING for at in range(20)
        ]


def test_no_more_than_promised_is_missed_of_runs_like_those_before() -> None:
    """Of exchangeable runs: 20 histories of 40 runs, and what would be missed of 300 more of each."""
    generator = np.random.default_rng(7)

    def drawn() -> np.ndarray:
        # Runs differ: what fails in one is likely, in the next unlikely to.
        return generator.beta(generator.choice([0.5, 2.0, 8.0]), 6, generator.integers(1, 9))

    for alpha in (0.1, 0.2):
        missed = []
        for _ in range(20):
            cycles = [PastCycle(at, at + 0.5, drawn()) for at in range(40)]
            promise = promise_at(Replay(alpha, WINDOW, cycles), alpha, 41.0, HOUR)
            assert promise.threshold is not None
            missed.append(np.mean([(drawn() < promise.threshold.score).mean() for _ in range(300)]))
        error = 3 * np.std(missed) / np.sqrt(len(missed))
        assert 0.1 * alpha < np.mean(missed) <= alpha + error
        assert error < alpha / 2


IDS = st.lists(st.text("ab.*/", min_size=1, max_size=6).filter(lambda one: "*" not in one), unique=True, max_size=8)


@settings(max_examples=60)
@example(["aa", "a", "ab.a"], ["*a*a"])
@given(IDS, st.lists(st.text("ab.*/", min_size=1, max_size=6), max_size=5))
def test_patterns_mean_what_a_naive_matcher_says(ids: list[str], patterns: list[str]) -> None:
    expected = [
        any(re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), one, re.DOTALL) for pattern in patterns)
        for one in ids
    ]
    assert must_run(patterns, ids, NO_DEADLINE).tolist() == expected


def test_patterns_made_to_be_slow_are_not() -> None:
    ids = ["a" * 512] * 200
    assert not must_run(["*a" * 200 + "*b"], ids, Deadline.after(20)).any()
    with pytest.raises(DeadlineTooShort):
        must_run(["x*"], ids, Deadline.after(-1))


@pytest.mark.parametrize(
    "pattern", ["a" * 250 + "%d*" + "c" * 200, "*".join("a" * 80) + "%d*", "a*" + "a" * 99 + "%d*"]
)
def test_patterns_made_to_be_slow_together_are_not(pattern: str) -> None:
    """All of them as one expression took a tenth of a second for each test, in which nobody else had a turn."""
    patterns = ["*" + pattern % number for number in range(500)]
    ids = ["a" * 500 + str(number) for number in range(100)]

    def seconds(work: Callable[[], object]) -> float:
        began = time.process_time()
        work()
        return time.process_time() - began

    # What it takes to look at each pair a few times.
    plain = min(seconds(lambda: [one.find("b", at) for one in ids for _ in patterns for at in range(5)]) for _ in "123")
    assert seconds(lambda: must_run(patterns, ids, NO_DEADLINE)) < 5 * plain + 0.1


def ran_with(ids: Sequence[str]) -> list[Run]:
    """The scene's runs, and these tests in each, that always passed."""
    zeros, ones = np.zeros(len(ids)), np.ones(len(ids))
    return [
        replace(
            run,
            tests=[*run.tests, *ids],
            outcomes=np.append(run.outcomes, zeros),
            durations=np.append(run.durations, ones),
        )
        for run in trained().runs
    ]


async def test_what_must_run_does(redis_url: str) -> None:
    shop = {
        "shop/tax.py": "def rate():\n    return 1\n",
        "tests/test_tax.py": "from shop import tax\n\ndef test_rate():\n    assert tax.rate()\n",
        "tests/test_it.py": "def test_it():\n    pass\n",
    }
    known = trained().runs[0].tests
    ids = [*known, "never/seen", "tests/test_tax.py::test_rate", "tests/test_it.py::test_it"]
    write_past(redis_url, ran_with(ids[-2:]))
    write_graph(redis_url, linked(shop).graph)
    with redis.Redis.from_url(redis_url) as client:
        client.delete(entity_key(TEST_HISTORY.key, ("acme", REPOSITORY, known[4])))
    files = [ChangedFile(path, path, Change.MODIFIED) for path in ("shop/tax.py", "tests/test_it.py")]
    asked = run_at(MOMENT, test_ids=ids, told=ChangeTold.FILES, files=files)
    nothing_likely = [(start, end, [0.999] * 3) for start, end, _ in past_cycles(60)]
    async with serving(redis_url, model(trained(), cycles=nothing_likely)) as server:
        await answered(server, asked, Impact.GRAPH)
        rules = SelectionRules(must_run=[known[1], "*never*", "t1*3"], audit_share=0.0)
        answer = await server.intelligence.select(asked, MissRate(0.1), rules, NO_DEADLINE)
        further = replace(rules, must_run_distance=1)
        more = await server.intelligence.select(asked, MissRate(0.1), further, NO_DEADLINE)
    expected = np.full(len(ids), Choice.UNLIKELY)
    expected[[1, 13, 20]] = Choice.MUST_RUN
    expected[4] = Choice.NEVER_RAN
    expected[22] = Choice.REACHED
    np.testing.assert_array_equal(answer.choices, expected)
    expected[21] = Choice.REACHED
    np.testing.assert_array_equal(more.choices, expected)


async def test_tests_in_changed_files_are_run_without_a_graph(redis_url: str) -> None:
    own = ["tests/test_it.py::test_it", "com.acme.ItTest#it", "src/it.test.ts > it", "github.com/acme/shop/it.TestIt"]
    others = ["other/test_it.py::test_it", "com.acme.other.ItTest#it", "it.test.ts > it", "github.com/acme/shop.TestIt"]
    write_past(redis_url, ran_with([*own, *others]))
    paths = ["tests/test_it.py", "mod/src/test/java/com/acme/ItTest.java", "web/src/it.test.ts", "it/it_test.go"]
    files = [ChangedFile(path, path, Change.MODIFIED) for path in paths]
    asked = run_at(MOMENT, test_ids=[*own, *others], told=ChangeTold.FILES, files=files)
    nothing_likely = [(start, end, [0.999] * 3) for start, end, _ in past_cycles(60)]
    async with serving(redis_url, model(trained(), cycles=nothing_likely)) as server:
        answer = await server.intelligence.select(asked, MissRate(0.1), ALL, NO_DEADLINE)
    assert answer.ordered.predicted.basis.impact is Impact.NO_GRAPH
    assert answer.choices.tolist() == [Choice.REACHED] * 4 + [Choice.UNLIKELY] * 4
    assert answer.ordered.predicted.reasons.tolist() == [Reason.TEST_CHANGED] * 4 + [Reason.NONE] * 4


def test_a_probability_at_the_threshold_is_run() -> None:
    probabilities = np.array([0.1, 0.2, 0.3], np.float32).astype(np.float64)
    choices = selecting.above(np.zeros(3, np.int64), probabilities, float(np.float32(0.2)))
    assert choices.tolist() == [Choice.UNLIKELY, Choice.LIKELY_ENOUGH, Choice.LIKELY_ENOUGH]


def test_the_audit_draws_its_share_of_what_is_left_out_and_the_same_again() -> None:
    choices = np.where(np.arange(20_000) % 4 == 0, Choice.LIKELY_ENOUGH, Choice.UNLIKELY)
    run = run_at(MOMENT, commit_sha="c0ffee")
    drawn = selecting.audited(choices, 0.1, run, 0.05)
    np.testing.assert_array_equal(drawn, selecting.audited(choices, 0.1, run, 0.05))
    assert (drawn[::4] == Choice.LIKELY_ENOUGH).all()
    count = (drawn == Choice.AUDIT).sum()
    assert abs(count - 1_500) < 4 * np.sqrt(15_000 * 0.1 * 0.9)
    assert count + (drawn == Choice.UNLIKELY).sum() == 15_000
    for other in (replace(run, commit_sha="beef"), replace(run, tenant_id="globex"), replace(run, moment_us=1)):
        assert (selecting.audited(choices, 0.1, other, 0.05) != drawn).any()
    assert (selecting.audited(choices, 0.1, run, 0.1) != drawn).any()
    np.testing.assert_array_equal(selecting.audited(choices, 0.0, run, 0.05), choices)


async def test_what_is_drawn_is_run_and_not_missed(redis_url: str) -> None:
    write_past(redis_url, trained().runs)
    asked = run_at(MOMENT, test_ids=trained().runs[0].tests)
    async with serving(redis_url, model(trained(), cycles=past_cycles(60))) as server:
        plain = await server.intelligence.select(asked, TimeShare(0.3), ALL, NO_DEADLINE)
        half = SelectionRules(audit_share=0.5)
        answer, again = [await server.intelligence.select(asked, TimeShare(0.3), half, NO_DEADLINE) for _ in range(2)]
    assert plain.promise is None
    np.testing.assert_array_equal(answer.choices, again.choices)
    drawn = answer.choices == Choice.AUDIT
    assert drawn.any() and set(plain.choices[drawn]) == {Choice.OUT_OF_TIME}
    np.testing.assert_array_equal(answer.choices[~drawn], plain.choices[~drawn])
    assert set(np.flatnonzero(drawn)) <= set(answer.chosen)
    assert answer.expected_missed_failures < plain.expected_missed_failures
    times = plain.ordered.times.expected
    assert 0 < times[plain.chosen].sum() <= 0.3 * times.sum() * (1 + 1e-9)


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.floats(0, 100), st.sampled_from([0, Choice.MUST_RUN, Choice.NEVER_RAN])), min_size=1, max_size=12
    ),
    st.floats(0.01, 1),
    st.randoms(use_true_random=False),
)
def test_a_budget_is_kept_and_used(tests, share: float, random) -> None:
    seconds = np.array([one for one, _ in tests])
    before = np.array([int(choice) for _, choice in tests])
    order = np.array(random.sample(range(len(tests)), len(tests)))
    choices = selecting.within(before, seconds, order, share * float(seconds.sum()))
    np.testing.assert_array_equal(choices[before != 0], before[before != 0])
    assert set(choices[before == 0]) <= {Choice.WORTH_ITS_TIME, Choice.OUT_OF_TIME}
    budget = share * seconds.sum() * (1 + 1e-9)
    spent = seconds[choices < Choice.UNLIKELY].sum()
    free = before == 0
    if (choices[free] == Choice.WORTH_ITS_TIME).any():
        assert spent <= budget + 1e-6
    # None that was left out would have fitted; and what comes first and fits is taken.
    assert (seconds[choices == Choice.OUT_OF_TIME] + spent > budget - 1e-6).all()
    first = [at for at in order if free[at]][:1]
    for at in first:
        if seconds[~free].sum() + seconds[at] <= budget - 1e-6:
            assert choices[at] == Choice.WORTH_ITS_TIME
    if share == 1.0:
        assert (choices < Choice.UNLIKELY).all()
