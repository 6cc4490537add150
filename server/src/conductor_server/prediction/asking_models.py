"""Asks models about many builds at once, one run each; checks what they say, and explains it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from conductor_rpc import names
from conductor_rpc.exceptions import DeadlineTooShort
from conductor_rpc.telemetry import Telemetry
from conductor_server.prediction.answers import Estimate, Method, Origin, Prediction
from conductor_server.prediction.asked import Asked, calls_of
from conductor_server.prediction.columns import Question
from conductor_server.prediction.gathering import FeaturesUsed, Inputs
from conductor_server.prediction.model_failures import LACKS_REQUIRED, ModelFailures, tell
from conductor_server.prediction.model_rows import ModelRows, Outputs, Part
from conductor_server.prediction.ports import MOST_ROWS_AT_ONCE, Model, ModelFailed
from conductor_server.prediction.run_notes import notes_of_run
from conductor_server.prediction.side_by_side import side_by_side

_Outcome = Outputs | ModelFailed | DeadlineTooShort


class AskingModels:
    """Asks the models of one predictor."""

    def __init__(self, predictor: str, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._failures = ModelFailures(predictor, telemetry)

    async def ask(
        self, models: Sequence[Model], asked: Sequence[Asked], inputs: Inputs
    ) -> list[Prediction | DeadlineTooShort | None]:
        """What each question's model answers; None where it can't answer, or says what can't be one.

        Args:
            models: that of each of n questions; they have one plan in common.
            asked: the questions. A model is not run any more once nobody waits who asks it.
            inputs: the input row of each.
        """
        answers: list[Prediction | DeadlineTooShort | None] = [None] * len(asked)
        _tell_lacking(models, asked, inputs)
        if not inputs.answerable.any():
            return answers
        rows = ModelRows(models, asked, inputs)
        with self._telemetry.shared_stage(names.MODEL_RUN, ()), self._together(rows.parts, asked):
            outcomes = await self._run_all(rows.parts, asked)
        outputs: list[tuple[Part, Outputs]] = []
        alone: list[int] = []
        for part, outcome in outcomes:
            match outcome:
                case DeadlineTooShort():
                    for at in part.asking:
                        answers[at] = DeadlineTooShort()
                case ModelFailed() if len(part.asking) > 1:
                    alone += part.asking
                case ModelFailed():
                    self._failures.note(part.model, str(outcome), asked[part.asking[0]].call)
                case _:
                    outputs.append((part, outcome))
                    for at, output in zip(part.asking, outcome[part.lines].tolist(), strict=True):
                        answers[at] = _interpret(part.model, asked[at].question, inputs.used[at], output)
                        if answers[at] is None:
                            self._failures.note(part.model, f"it answered {output}", asked[at].call)
        for at, told in rows.contributions(outputs):
            answer = answers[at]
            if isinstance(answer, Prediction):
                answer.contributions = told
        for at in alone:  # one's row must not cost the others their answers
            [answers[at]] = await self.ask([models[at]], [asked[at]], inputs.take(at))
        return answers

    def _together(self, parts: Sequence[Part], asked: Sequence[Asked]) -> AbstractContextManager[None]:
        """Around the runs of several models: whoever asks one of them waits for all."""
        if len(parts) == 1:
            return nullcontext()
        calls = calls_of(asked[at] for part in parts for at in part.asking)
        return self._telemetry.span(names.MODEL_RUN_TOGETHER, {names.MODEL_COUNT: len(parts)}, calls)

    async def _run_all(self, parts: Sequence[Part], asked: Sequence[Asked]) -> list[tuple[Part, _Outcome]]:
        """Run each model. What goes to a thread is on its way while the others have their turn on the event loop."""
        lanes = [[part] for part in parts if len(part.inputs) > MOST_ROWS_AT_ONCE]
        lanes.append([part for part in parts if len(part.inputs) <= MOST_ROWS_AT_ONCE])
        found = await side_by_side([self._run_in_turn(lane, asked) for lane in lanes])
        return [one for of_lane in found for one in of_lane]

    async def _run_in_turn(self, parts: Sequence[Part], asked: Sequence[Asked]) -> list[tuple[Part, _Outcome]]:
        """What each model says, or why it says nothing: that is nothing to the other models."""
        found: list[tuple[Part, _Outcome]] = []
        for part in parts:
            asking = [asked[at] for at in part.asking]
            nobody_waits = max((one.deadline for one in asking), key=lambda deadline: deadline.time)
            told = notes_of_run(part.model.label, len(part.inputs), part.variants.stop - part.variants.start)
            try:
                with self._telemetry.span(names.MODEL_RUN, told, calls_of(asking)):
                    found.append((part, await part.model.run(part.inputs, nobody_waits)))
            except (ModelFailed, DeadlineTooShort) as error:
                found.append((part, error))
        return found


def _tell_lacking(models: Sequence[Model], asked: Sequence[Asked], inputs: Inputs) -> None:
    for at in (~inputs.answerable).nonzero()[0].tolist():
        tell(models[at], LACKS_REQUIRED, asked[at].call)


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
