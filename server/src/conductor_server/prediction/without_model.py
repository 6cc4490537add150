"""Answers below the models: recent builds, then what was known of the pipeline's and of all builds at training time."""

from __future__ import annotations

from collections.abc import Iterator

from conductor_features.tables import RowTable
from conductor_server.prediction.answers import Method, Origin, Prediction
from conductor_server.prediction.asked import Asked
from conductor_server.prediction.history import HISTORY_VIEWS, recent_history
from conductor_server.prediction.ports import Route


def without_model(
    asked: Asked, route: Route, table: RowTable, line: int, missing: tuple[str, ...]
) -> Iterator[Prediction]:
    """Answers, best first.

    Args:
        asked: the question.
        route: the models whose statistics may answer.
        table: feature rows, the history views first.
        line: the question's.
        missing: what the first model could not have.
    """
    question = asked.question
    rows = [table.row(line, view_at) for view_at in range(len(HISTORY_VIEWS))]
    for estimate, event_time_us in recent_history(question, rows):
        origin = Origin(Method.HISTORY, missing_features=missing)
        yield Prediction(estimate, origin, question.seconds_since(event_time_us))
    pipeline = (asked.tenant_id, question.build.repository, question.build.pipeline)
    for model in route.models:
        known = model.statistics.pipelines.get(pipeline)
        if known is not None:
            yield Prediction(known, Origin(Method.HISTORY, model.label, missing))
    for model in route.models:
        if model.statistics.overall is not None:
            yield Prediction(model.statistics.overall, Origin(Method.DEFAULT, model.label, missing))
