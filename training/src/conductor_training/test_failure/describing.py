"""What the manifests of all models of this package have in common: the graph, checked against the estimator, its
columns, golden requests, and what it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from conductor.model.v1.model_manifest_pb2 import (
    CandidateMetrics,
    FallbackStatistics,
    ModelManifest,
    ProbabilityCalibration,
    ProbabilityOutput,
    RateStatistics,
    TrainingData,
)
from conductor_training import bundles
from conductor_training.bundles import Bundle, ExportDiffers
from conductor_training.test_failure.arithmetic import Array
from conductor_training.test_failure.columns import COLUMNS
from conductor_training.test_failure.frame import TestFrame
from conductor_training.test_failure.trees import INPUT_NAME, SEED

LARGEST_DIFFERENCE = 1e-4
"""Between graph (float32) and estimator (float64), of any row's probability."""


@dataclass(frozen=True)
class Origin:
    """What a model's training knew, and where from."""

    until: datetime | None = None
    """When what was known ended; None: with the last run."""
    lake_version: str = ""
    """Version of the lake that it was read from; empty where it came from elsewhere."""


@dataclass(frozen=True)
class Exported:
    """A graph, and what its estimator says."""

    content: bytes
    output: str
    """Name of the graph's output."""
    frame: TestFrame
    """The rows that it was fitted to."""
    expected: Array
    """The estimator's probabilities of them."""

    def run(self) -> NDArray[np.float32]:
        """The graph's probabilities of them."""
        return bundles.run(self.content, INPUT_NAME, [self.output], self.frame.inputs)[:, 0]


def probability_bundle(
    predictor: str,
    tenant_id: str,
    algorithm: str,
    exported: Exported,
    origin: Origin,
    *,
    rate: float,
    calibration: ProbabilityCalibration,
    candidates: Sequence[CandidateMetrics],
) -> Bundle:
    """A bundle; ``rate`` is what to answer when the graph can't be run. Raises ExportDiffers."""
    inputs, said = exported.frame.inputs, exported.run()
    manifest = ModelManifest(
        predictor=predictor,
        tenant_id=tenant_id,
        algorithm=algorithm,
        graph=bundles.blob(exported.content),
        inputs=bundles.input_columns(COLUMNS, inputs),
        input_name=INPUT_NAME,
        probability=ProbabilityOutput(probability=exported.output),
        probability_calibration=calibration,
        fallback=FallbackStatistics(overall_rate=RateStatistics(rate=rate, row_count=len(inputs))),
        training_data=_training_data(exported.frame, origin),
        candidates=candidates,
        golden_requests=bundles.golden_requests(inputs, said[:, None]),
        export_difference_probability=_check_equal(exported.expected, said),
    )
    return Bundle(manifest, exported.content)


def _check_equal(expected: Array, exported: NDArray[np.float32]) -> float:
    difference = np.abs(exported - expected)
    if not np.isfinite(exported).all() or (difference > LARGEST_DIFFERENCE).any():
        raise ExportDiffers(f"graph and estimator differ by up to {np.nanmax(difference):g}")
    return float(difference.max(initial=0.0))


def _training_data(frame: TestFrame, origin: Origin) -> TrainingData:
    data = TrainingData(
        row_count=len(frame.run), dataset_digest=frame.digest(), seed=SEED, lake_version=origin.lake_version
    )
    data.start_time.FromDatetime(datetime.fromtimestamp(float(frame.started.min()), UTC))
    data.end_time.FromDatetime(origin.until or datetime.fromtimestamp(float(frame.completed.max()), UTC))
    return data
