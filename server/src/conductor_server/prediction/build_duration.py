"""How long a build will take: gather columns, run the model, check what it says, else fall back rung by rung.

Rungs: the tenant's model, the global model, recent builds (``history.py``), the pipeline's builds at training time, all
builds at training time. Each answer says which rung it stands on. One request is a batch of one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from conductor_features.rows import FeatureRow, Missing
from conductor_features.views import View
from conductor_rpc import names
from conductor_rpc.call import Deadline
from conductor_rpc.exceptions import NoPrediction
from conductor_rpc.telemetry import Telemetry
from conductor_server.prediction.answers import Estimate, Method, Prediction
from conductor_server.prediction.columns import FeaturesUsed, Inputs, Question, entity
from conductor_server.prediction.contributions import contributions, variants
from conductor_server.prediction.history import HISTORY_VIEWS, recent_history
from conductor_server.prediction.ports import FeatureReader, ModelFailed, Models, QuantileModel, Route

PREDICTOR = "build-duration"
_LOG = logging.getLogger(__name__)

_Rows = Sequence[FeatureRow | Missing]


class BuildDurationPredictor:
    """Answers questions about builds of one tenant."""

    def __init__(self, models: Models, features: FeatureReader, telemetry: Telemetry) -> None:
        self._models, self._features, self._telemetry = models, features, telemetry
        self._complained_of: set[str] = set()

    async def predict(
        self, tenant_id: str, questions: Sequence[Question], deadline: Deadline
    ) -> list[Prediction | NoPrediction]:
        """Answers in the order of the questions: one read of features and one run per model for all of them.

        Raises:
            DeadlineTooShort: the time is up before a model is run.
        """
        route = self._models.route(PREDICTOR, tenant_id)
        rows = await self._rows(route.views, tenant_id, questions)
        answers: list[Prediction | None] = [None] * len(questions)
        missing: tuple[tuple[str, ...], ...] = ((),) * len(questions)
        for rung, model in enumerate(route.models):
            pending = [at for at, answer in enumerate(answers) if answer is None]
            if not pending:
                break
            deadline.require(0)
            asked = [questions[at] for at in pending]
            inputs = model.plan.gather(asked, [rows[at] for at in pending], route.positions(model))
            if rung == 0:
                missing = tuple(used.missing for used in inputs.used)
            for at, answer in zip(pending, await self._run(model, asked, inputs), strict=True):
                answers[at] = answer
        return [
            self._counted(answer or _fall_back(route, tenant_id, question, of_question, absent))
            for answer, question, of_question, absent in zip(answers, questions, rows, missing, strict=True)
        ]

    async def _rows(self, views: Sequence[View], tenant_id: str, questions: Sequence[Question]) -> list[_Rows]:
        """Each question's rows, in the order of the views."""
        asked = [(view, entity(view, tenant_id, question.build)) for question in questions for view in views]
        with self._telemetry.stage(names.FEATURES_READ):
            rows = await self._features.read(asked)
        return [rows[at : at + len(views)] for at in range(0, len(rows), len(views))]

    async def _run(
        self, model: QuantileModel, questions: Sequence[Question], inputs: Inputs
    ) -> list[Prediction | None]:
        """The model's answers; None where it can't answer, or says what can't be one."""
        answers: list[Prediction | None] = [None] * len(questions)
        able: list[int] = np.flatnonzero(inputs.answerable).tolist()
        if not able:
            return answers
        # The rows, then the variants that explain them: it is one run.
        explained = [
            variants(model.plan, inputs.inputs[at]) if questions[at].contribution_count else None for at in able
        ]
        stacked = np.concatenate([inputs.inputs[able], *(found[1] for found in explained if found is not None)])
        try:
            with self._telemetry.stage(names.MODEL_RUN):
                outputs = await model.run(stacked)
        except ModelFailed as error:
            self._complain(model, str(error))
            return answers
        next_variant = len(able)
        for at, output, found in zip(able, outputs.tolist(), explained, strict=False):
            answer = _interpret(model, questions[at], inputs.used[at], output)
            if answer is None:
                self._complain(model, f"it answered {output}")
            if found is not None:
                columns, rows = found
                medians = outputs[next_variant : next_variant + len(rows), 1]
                next_variant += len(rows)
                if answer is not None:
                    count = questions[at].contribution_count
                    told = contributions(
                        model.plan,
                        inputs.values[at],
                        columns,
                        median_seconds=output[1],
                        variant_medians_seconds=medians,
                        count=count,
                    )
                    answer = replace(answer, contributions=told)
            answers[at] = answer
        return answers

    def _complain(self, model: QuantileModel, text: str) -> None:
        """Count each failure, log a version's first one: a log that grows with each request hides the rest."""
        self._telemetry.count(names.MODEL_FAILURES, {names.PREDICTOR: PREDICTOR})
        if model.label.version not in self._complained_of:
            self._complained_of.add(model.label.version)
            _LOG.error("%s %s failed, the next rung answers: %s", model.label.name, model.label.version, text)

    def _counted(self, answer: Prediction | NoPrediction) -> Prediction | NoPrediction:
        method = answer.method.value if isinstance(answer, Prediction) else "none"
        self._telemetry.count(names.PREDICTIONS, {names.PREDICTOR: PREDICTOR, names.PREDICTION_METHOD: method})
        return answer


def _interpret(
    model: QuantileModel, question: Question, used: FeaturesUsed, output: Sequence[float]
) -> Prediction | None:
    """What the model said, labelled; None if that can't be an answer."""
    # What an entity never had was never there in training either, and the calibration holds over that. What could not
    # be read is another matter: then the interval is given, and nothing is claimed for it.
    coverage = 0.0 if used.uncalibrated else model.coverage
    lower, median, upper = output
    estimate = Estimate.checked(lower, median, upper, coverage)
    if estimate is None:
        return None
    return Prediction(
        estimate=estimate,
        method=Method.MODEL_DEGRADED if used.degraded else Method.MODEL,
        model=model.label,
        oldest_feature_age_seconds=_age_seconds(question, used.oldest_us),
        missing_features=used.missing,
    )


def _fall_back(
    route: Route, tenant_id: str, question: Question, rows: _Rows, missing: tuple[str, ...]
) -> Prediction | NoPrediction:
    """The best answer without a model."""
    return next(_rungs(route, tenant_id, question, rows, missing), None) or NoPrediction()


def _rungs(
    route: Route, tenant_id: str, question: Question, rows: _Rows, missing: tuple[str, ...]
) -> Iterator[Prediction]:
    # The history views are the first of every route.
    for estimate, event_time_us in recent_history(question, rows[: len(HISTORY_VIEWS)]):
        age = _age_seconds(question, event_time_us)
        yield Prediction(estimate, Method.HISTORY, oldest_feature_age_seconds=age, missing_features=missing)
    pipeline = (tenant_id, question.build.repository, question.build.pipeline)
    for model in route.models:
        known = model.statistics.pipelines.get(pipeline)
        if known is not None:
            yield Prediction(known, Method.HISTORY, model.label, missing_features=missing)
    for model in route.models:
        if model.statistics.overall is not None:
            yield Prediction(model.statistics.overall, Method.DEFAULT, model.label, missing_features=missing)


def _age_seconds(question: Question, event_time_us: int | None) -> float | None:
    return None if event_time_us is None else max(0.0, (question.moment_us - event_time_us) / 1e6)
