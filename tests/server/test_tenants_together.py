"""Questions of many tenants are worked on together, and each is answered as if it had been alone."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from conductor_features.reader import OnlineReader
from conductor_features.tables import RowTable, TableLayout
from conductor_model_store import CANARY, CHALLENGER, SHADOW, ModelScope
from conductor_rpc import names
from conductor_rpc.call import NO_DEADLINE, Call, Deadline
from conductor_rpc.exceptions import DeadlineTooShort
from conductor_server.features.online import OnlineFeatures
from conductor_server.models.served_model import ServedModel
from conductor_server.prediction.answers import Fallback, Method, Prediction, Variant
from conductor_server.prediction.gathering import Gatherer
from conductor_server.prediction.ports import MOST_ROWS_AT_ONCE, Route
from server.harness import PREDICTOR, QUEUED, expected_median, write_features
from server.many import Fleet, measured
from server.together import MOST_LINES, Tenants, ask, one_by_one, picky_graph

BATCHES = 30
HURRIED_SECONDS = 1000.0
OWN = [f"own-{number}" for number in range(6)]
OTHERS = ["columns", "view", "canary", "challenger", "shadow", "picky", "negative", "required", "loading", "global"]
LINES = 1
"""The column of the lines."""
COUNTED = (names.PREDICTIONS, names.MODEL_FAILURES, names.INPUT_ROWS, names.INPUT_MISSING)


class Offered:
    """What a comparison was told, whatever it was told together with."""

    def __init__(self) -> None:
        self.told: Counter[Any] = Counter()

    def offer(self, route: Route, questions: Sequence[Any], rows: RowTable, medians: Sequence[Any]) -> None:
        assert route.beside is not None
        assert len(questions) == len(rows) == len(medians)
        labels = (route.models[0].label, route.beside.label)
        for line, (question, median) in enumerate(zip(questions, medians, strict=True)):
            of_views = [repr(rows.row(line, view_at)) for view_at in range(len(route.views))]
            self.told[labels, str(question), *of_views, median] += 1


@pytest.fixture
async def reader(redis_url):
    async with OnlineReader(redis_url, 60.0) as found:
        yield found


@pytest.fixture
def tenants(fleet: Fleet) -> Tenants:
    return Tenants(fleet)


def _everyone(tenants: Tenants) -> None:
    """Tenants of every kind."""

    def other_view(result: Any) -> None:
        result.inputs[3].feature.view, result.inputs[3].feature.field = "branch_builds_v1", "median_duration_7"

    tenants.load(10)
    for number, tenant in enumerate(OWN):
        tenants.load(100 + number, tenant)
    tenants.load(200, "columns", change=lambda m: setattr(m.inputs[1], "typical_value", 3))
    tenants.load(210, "view", change=other_view)
    for number, (tenant, channel) in enumerate({"canary": CANARY, "challenger": CHALLENGER, "shadow": SHADOW}.items()):
        tenants.load(300 + number, tenant)
        tenants.load(400 + number, tenant, channel, weight=None if channel == SHADOW else 0.5)
    tenants.load(500, "picky", content=picky_graph(500))
    tenants.load(-260, "negative", change=lambda m: m.golden_requests.pop())
    tenants.load(600, "required", change=lambda m: setattr(m.inputs[3], "required", True))
    tenants.registry.know([ModelScope(PREDICTOR, "loading")])
    tenants.registry.on_miss(lambda _: True)


def _drawn(chance: np.random.Generator) -> Any:
    draw = chance.random()
    deadline = Deadline.after(HURRIED_SECONDS + int(chance.integers(2))) if draw < 0.2 else NO_DEADLINE
    picky_lines = [0, 5, 10, MOST_LINES + 1]
    return ask(
        str(chance.choice([*OWN, *OTHERS])),
        contribution_count=int(chance.integers(0, 5)) if chance.random() < 0.5 else 0,
        deadline=deadline if chance.random() < 0.95 else Deadline(time.monotonic() - 1),
        lines=int(chance.choice(picky_lines)) if chance.random() < 0.9 else None,
        repository=f"r{chance.integers(5)}",
        branch=f"b{chance.integers(8)}",
        queued_time=QUEUED - timedelta(days=2) if chance.random() < 0.1 else QUEUED,
    )


async def test_together_each_is_answered_as_alone(redis_url, reader, tenants):
    """To the bit, for batches of any size and order; and the same is counted, noted and compared."""
    _everyone(tenants)
    for number, tenant in enumerate([*OWN, *OTHERS]):
        for repository in range(4):  # of the fifth there is nothing
            age = timedelta(days=400) if repository == 3 else timedelta(seconds=60)
            recent = 16.0 * number + repository
            write_features(redis_url, tenant, repository=f"r{repository}", recent=recent, age=age, load=number % 4 > 0)
    chance = np.random.default_rng(31)
    (telemetry, counts), (telemetry_alone, counts_alone) = measured(), measured()
    offered, offered_alone = Offered(), Offered()
    together = tenants.predictor(reader, telemetry, offered)
    alone = tenants.predictor(reader, telemetry_alone, offered_alone)
    seen: list[Any] = []
    for _ in range(BATCHES):
        asked = [_drawn(chance) for _ in range(int(chance.integers(1, 65)))]
        answers = await together.predict(asked)
        assert [*map(repr, answers)] == [*map(repr, await one_by_one(alone, asked))]
        seen += zip([one.tenant_id for one in asked], answers, strict=True)
    assert offered.told == offered_alone.told
    assert sum(offered.told.values()) > BATCHES
    found, found_alone = counts(), counts_alone()
    assert {name: found[name] for name in COUNTED} == {name: found_alone[name] for name in COUNTED}
    _assert_all_kinds(seen)


def _assert_all_kinds(seen: Sequence[tuple[str, Any]]) -> None:
    """Nothing that there is was left out by chance."""
    predicted = [(tenant, answer) for tenant, answer in seen if isinstance(answer, Prediction)]
    assert {type(answer) for _, answer in seen} == {Prediction, DeadlineTooShort}
    assert {answer.origin.method for _, answer in predicted} >= {Method.MODEL, Method.MODEL_DEGRADED}
    assert {answer.origin.fallback for _, answer in predicted} == {
        Fallback.NONE,
        Fallback.MODEL_FAILED,
        Fallback.MODEL_LOADING,
    }
    variants = {Variant.CHAMPION, Variant.CANARY, Variant.CHALLENGER}
    assert {answer.origin.variant for _, answer in predicted} == variants
    for tenant in ("picky", "negative", "required"):
        own = {answer.origin.model.name.endswith(tenant) for of, answer in predicted if of == tenant}
        assert own == {True, False}, tenant
    for tenant, answer in predicted:
        assert answer.origin.model.name in (f"models/{PREDICTOR}/global", f"models/{PREDICTOR}/tenants/{tenant}", "")
    assert any(answer.contributions for _, answer in predicted)


class Noted:
    """What is read, gathered and run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reads: list[int] = []
        self.gathered: list[int] = []
        self.runs: dict[str, list[np.ndarray]] = {}
        self.untils: dict[str, Deadline] = {}
        read, gather, run = OnlineFeatures.read, Gatherer.gather, ServedModel.run

        async def noted_read(features: Any, layout: TableLayout, entities: Any, until: Deadline) -> RowTable:
            self.reads.append(len(entities))
            return await read(features, layout, entities, until)

        def noted_gather(gatherer: Gatherer, questions: Any, table: RowTable) -> Any:
            self.gathered.append(len(questions))
            return gather(gatherer, questions, table)

        async def noted_run(model: ServedModel, inputs: np.ndarray, until: Deadline) -> np.ndarray:
            self.runs.setdefault(model.tenant_id, []).append(inputs)
            self.untils[model.tenant_id] = until
            return await run(model, inputs, until)

        monkeypatch.setattr(OnlineFeatures, "read", noted_read)
        monkeypatch.setattr(Gatherer, "gather", noted_gather)
        monkeypatch.setattr(ServedModel, "run", noted_run)


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> Noted:
    return Noted(monkeypatch)


async def test_only_the_run_is_each_models_own(redis_url, reader, tenants, noted):
    """One read and one gathering for all tenants; and no model sees another tenant's rows."""
    tenants.load(10)
    for number, tenant in enumerate(OWN):
        tenants.load(100 + number, tenant)
        write_features(redis_url, tenant, recent=1000.0 * (number + 1))
    calls = [Call("method", {}, NO_DEADLINE, stages=[]) for _ in OWN]
    asked = [
        ask(tenant, lines=lines, contribution_count=count, call=call)
        for lines, count in ((7, 5), (9, 0), (8, 5), (7, 5))
        for tenant, call in zip(OWN, calls, strict=True)
    ]
    answers = await tenants.predictor(reader).predict(asked)
    assert noted.reads == [len(OWN)]
    assert noted.gathered == [len(asked)]
    assert {*noted.runs} == {*OWN}
    for number, tenant in enumerate(OWN):
        [rows] = noted.runs[tenant]
        assert {*rows[:, 0].tolist()} == {1000.0 * (number + 1), 60.0}  # its own, and the typical value
        assert len(rows) == 2 * (1 + 3) + 1  # two that differ, with three variants each, and one that none explain
    for one, answer in zip(asked, answers, strict=True):
        number = OWN.index(one.tenant_id)
        lines = one.question.build.change.added_line_count
        median = expected_median(100 + number, recent=1000.0 * (number + 1), lines=lines)
        assert answer.estimate.median_seconds == median
        assert len(answer.contributions) == (0 if lines == 9 else 3)
    for tenant, call in zip(OWN, calls, strict=True):
        assert [stage.name for stage in call.stages] == [names.FEATURES_READ, names.MODEL_RUN_TOGETHER, names.MODEL_RUN]
        _, together, run = call.stages
        assert together.began <= run.began < run.ended <= together.ended
        assert run.attributes[names.MODEL_NAME].endswith(f"/tenants/{tenant}")
        assert (run.attributes[names.MODEL_ROWS], run.attributes[names.EXPLAINING_ROWS]) == (9, 6)


async def test_what_is_alike_is_one_object(tenants):
    own, columns, view = "own-0", "columns", "view"
    _everyone(tenants)
    routes = [tenants.registry.route(PREDICTOR, tenant) for tenant in (own, "own-1", columns, view)]
    assert routes[0] is not routes[1]
    assert routes[0].gatherers[0] is routes[1].gatherers[0] is routes[0].gatherers[1]
    assert routes[0].layout is routes[1].layout is routes[2].layout is not routes[3].layout
    assert routes[2].gatherers[0] is not routes[0].gatherers[0]
    assert routes[2].gatherers[1] is routes[0].gatherers[1]


async def test_who_is_late_is_not_worked_for_and_holds_nobody_up(redis_url, reader, tenants, noted):
    """A model is run until the last one who asks that very model waits no more, whoever waits for another."""
    tenants.load(10)
    for number, tenant in enumerate(OWN):
        tenants.load(100 + number, tenant)
        write_features(redis_url, tenant)
    late, soon, later = Deadline(time.monotonic() - 1), Deadline.after(2000), Deadline.after(4000)
    deadlines = {"own-0": [late, late], "own-1": [late, soon], "own-2": [soon, later], "own-3": [soon, soon]}
    # All are read for at once: the read has no deadline of its own here.
    predictor = tenants.predictor(reader)
    predictor._read_until = lambda deadline, now: NO_DEADLINE  # type: ignore[method-assign]
    asked = [
        ask(tenant, lines=lines, deadline=deadline)
        for tenant, its_deadlines in deadlines.items()
        for lines, deadline in enumerate(its_deadlines)
    ]
    answers = await predictor.predict(asked)
    assert [isinstance(answer, DeadlineTooShort) for answer in answers] == [one.deadline is late for one in asked]
    assert noted.untils == {"own-1": soon, "own-2": later, "own-3": soon}
    assert [rows[:, LINES].tolist() for [rows] in noted.runs.values()] == [[1.0], [0.0, 1.0], [0.0, 1.0]]


async def test_a_model_that_comes_too_late_costs_only_those_who_ask_it(redis_url, reader, tenants, monkeypatch):
    tenants.load(10)
    slow = tenants.load(100, "own-0")
    tenants.load(101, "own-1")
    run = ServedModel.run

    async def too_late(model: ServedModel, inputs: np.ndarray, until: Deadline) -> np.ndarray:
        return await run(model, inputs, Deadline(0.0) if model is slow else until)

    monkeypatch.setattr(ServedModel, "run", too_late)
    write_features(redis_url, "own-1")
    answers = await tenants.predictor(reader).predict([ask("own-0"), ask("own-1"), ask("own-0", lines=3)])
    assert [type(answer) for answer in answers] == [DeadlineTooShort, Prediction, DeadlineTooShort]


async def test_a_large_run_holds_no_other_up(redis_url, reader, tenants, monkeypatch):
    """It goes on in a thread, where it can wait for a small one that is answered with it."""
    for number, tenant in enumerate(OWN):
        tenants.load(100 + number, tenant)
        write_features(redis_url, tenant)
    small_ran = threading.Event()
    score = ServedModel.score

    def waiting(model: ServedModel, inputs: np.ndarray) -> np.ndarray:
        if len(inputs) > MOST_ROWS_AT_ONCE:
            assert small_ran.wait(60)
        elif model.tenant_id == OWN[-1]:
            small_ran.set()
        return score(model, inputs)

    monkeypatch.setattr(ServedModel, "score", waiting)
    large = [ask(OWN[0], lines=lines) for lines in range(MOST_ROWS_AT_ONCE + 1)]
    asked = [*large, *(ask(tenant, lines=1) for tenant in OWN[1:])]
    answers = await asyncio.wait_for(tenants.predictor(reader).predict(asked), 120)
    assert small_ran.is_set()
    assert [answer.origin.model.name.rpartition("/")[2] for answer in answers] == [one.tenant_id for one in asked]


async def test_one_bad_row_costs_one_answer_by_its_own_model(redis_url, reader, tenants):
    """Of the failing model the others are answered by it; other models notice nothing."""
    tenants.load(10)
    tenants.load(500, "picky", content=picky_graph(500))
    tenants.load(101, "own-1")
    for tenant in ("picky", "own-1"):
        write_features(redis_url, tenant)
    telemetry, counts = measured()
    lines = [1, MOST_LINES + 1, 2, 3]
    asked = [ask(tenant, lines=number, contribution_count=2) for number in lines for tenant in ("picky", "own-1")]
    answers = await tenants.predictor(reader, telemetry).predict(asked)
    for one, answer in zip(asked, answers, strict=True):
        number = one.question.build.change.added_line_count
        bad = one.tenant_id == "picky" and number > MOST_LINES
        assert answer.origin.fallback is (Fallback.MODEL_FAILED if bad else Fallback.NONE)
        bias = 10 if bad else {"picky": 500, "own-1": 101}[one.tenant_id]
        assert answer.estimate.median_seconds == expected_median(bias, lines=number)
        assert len(answer.contributions) == 2
    assert counts()[names.MODEL_FAILURES] == 1
    assert counts()[names.INPUT_ROWS] == len(asked)  # not once more on the rung below
