"""Asks a model about many builds in one run, checks what it says, and explains it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from conductor_rpc import names
from conductor_rpc.call import Call, Deadline
from conductor_rpc.exceptions import DeadlineTooShort
from conductor_rpc.telemetry import Telemetry
from conductor_server.prediction.answers import Estimate, Method, Origin, Prediction
from conductor_server.prediction.columns import Question
from conductor_server.prediction.contributions import contributions, effects, variants
from conductor_server.prediction.gathering import FeaturesUsed, Inputs
from conductor_server.prediction.model_failures import ModelFailures
from conductor_server.prediction.ports import Model, ModelFailed


class AskingModels:
    """Asks the models of one predictor."""

    def __init__(self, predictor: str, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._failures = ModelFailures(predictor, telemetry)

    async def ask(
        self,
        model: Model,
        questions: Sequence[Question],
        inputs: Inputs,
        calls: Sequence[Call | None],
        until: Deadline,
    ) -> list[Prediction | DeadlineTooShort | None]:
        """The model's answers; None where it can't answer, or says what can't be one.

        Args:
            model: who is asked.
            questions: n questions.
            inputs: the input row of each.
            calls: the call of each, which is told of the time that it takes.
            until: when nobody waits any more; the model is not run after that.
        """
        answers: list[Prediction | DeadlineTooShort | None] = [None] * len(questions)
        able: list[int] = np.flatnonzero(inputs.answerable).tolist()
        if not able:
            return answers
        # Equal rows are run once, and with them the variants that explain them.
        rows, places = _distinct(inputs.inputs[able])
        explained = [(at, place) for at, place in zip(able, places, strict=True) if questions[at].contribution_count]
        explained_rows = sorted({place for _, place in explained})
        made = variants(model.plan, rows[explained_rows])
        try:
            with self._telemetry.shared_stage(names.MODEL_RUN, each_once(calls)):
                outputs = await model.run(np.concatenate([rows, made.rows]), until)
        except DeadlineTooShort:
            return [DeadlineTooShort() for _ in questions]
        except ModelFailed as error:
            if len(questions) > 1:  # one's row must not cost the others their answers
                alone = [
                    await self.ask(model, [question], inputs.take(at), [call], until)
                    for at, (question, call) in enumerate(zip(questions, calls, strict=True))
                ]
                return [answer for [answer] in alone]
            self._failures.note(model, str(error))
            return answers
        for at, output in zip(able, outputs[places].tolist(), strict=True):
            answers[at] = _interpret(model, questions[at], inputs.used[at], output)
            if answers[at] is None:
                self._failures.note(model, f"it answered {output}")
        if explained:
            found = np.zeros((len(rows), len(model.plan.names)))
            found[explained_rows] = effects(model.plan, made, outputs[explained_rows, 1], outputs[len(rows) :, 1])
            told = contributions(
                model.plan,
                inputs.values[[at for at, _ in explained]],
                found[[place for _, place in explained]],
                [questions[at].contribution_count for at, _ in explained],
            )
            for (at, _), of_one in zip(explained, told, strict=True):
                answer = answers[at]
                if isinstance(answer, Prediction):
                    answer.contributions = of_one
        return answers


def each_once(calls: Sequence[Call | None]) -> list[Call]:
    """The calls that there are, each once."""
    return list({id(call): call for call in calls if call is not None}.values())


def _interpret(model: Model, question: Question, used: FeaturesUsed, output: Sequence[float]) -> Prediction | None:
    """What the model said, labelled; None if that can't be an answer."""
    # What an entity never had was never there in training either, and the calibration holds over that. What could not
    # be read is another matter: then the interval is given, and nothing is claimed for it.
    coverage = 0.0 if used.uncalibrated else model.coverage
    lower, median, upper = output
    estimate = Estimate.checked(lower, median, upper, coverage)
    if estimate is None:
        return None
    method = Method.MODEL_DEGRADED if used.degraded else Method.MODEL
    origin = Origin(method, model.label, used.missing)
    return Prediction(estimate, origin, question.seconds_since(used.oldest_us))


def _distinct(rows: NDArray[np.float32]) -> tuple[NDArray[np.float32], list[int]]:
    """The rows, each once, and where each of those given stands among them. Rows are equal where their bytes are."""
    contents: list[bytes] = rows.view(f"V{rows.shape[1] * rows.itemsize}").ravel().tolist()
    places = {content: place for place, content in enumerate(dict.fromkeys(contents))}
    distinct = np.frombuffer(b"".join(places), rows.dtype).reshape(-1, rows.shape[1])
    return distinct, [places[content] for content in contents]
