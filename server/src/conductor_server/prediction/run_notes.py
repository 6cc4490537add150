"""What a trace tells of one run of a model."""

from __future__ import annotations

from conductor_rpc import names
from conductor_rpc.call import Attributes
from conductor_server.prediction.answers import ModelLabel


def notes_of_run(model: ModelLabel, row_count: int, explaining_count: int = 0) -> Attributes:
    """Which model, on how many rows; ``explaining_count`` of them only tell what moved the answers."""
    return {
        names.MODEL_NAME: model.name,
        names.MODEL_VERSION: model.version,
        names.MODEL_ROWS: row_count,
        names.EXPLAINING_ROWS: explaining_count,
    }
