"""A model as the serving process holds it: session, columns, labels, statistics."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from conductor.model.v1.model_manifest_pb2 import DurationStatistics, ModelManifest
from conductor_features.request_columns.builds import REQUEST_COLUMNS
from conductor_features.views import VIEWS
from conductor_model_store import LoadedModel
from conductor_server.models.sessions import (
    ModelRefused,
    check_golden_requests,
    check_signature,
    open_session,
    output_names,
    run_session,
)
from conductor_server.prediction.answers import Estimate, ModelLabel
from conductor_server.prediction.columns import ColumnPlan, ManifestUnfit
from conductor_server.prediction.ports import FallbackStatistics, ModelFailed

_INLINE_ROWS = 128
"""More rows than this are run beside the event loop: other calls must not wait for them."""
_CHUNK_ROWS = 4096


@dataclass(frozen=True)
class ServedModel:
    """Ready to answer."""

    label: ModelLabel
    manifest_digest: str
    plan: ColumnPlan
    coverage: float
    statistics: FallbackStatistics
    session: Any
    input_name: str
    output_names: tuple[str, str, str]

    @classmethod
    def of(cls, model: LoadedModel) -> Self:
        """Load and warm a model that was verified.

        Raises:
            ModelRefused: it does not load here, or asks for features that this release does not have.
        """
        manifest = model.manifest
        try:
            plan = ColumnPlan.of(manifest.inputs, VIEWS, REQUEST_COLUMNS)
        except ManifestUnfit as error:
            raise ModelRefused(str(error)) from error
        session = open_session(model.graph)
        check_signature(session, manifest)
        check_golden_requests(session, manifest)
        coverage = manifest.calibration.coverage
        return cls(
            label=ModelLabel(model.scope.resource_name, model.version, manifest.graph.digest),
            manifest_digest=model.manifest_digest,
            plan=plan,
            coverage=coverage if 0 < coverage < 1 else 0.0,
            statistics=_statistics(manifest),
            session=session,
            input_name=manifest.input_name,
            output_names=output_names(manifest),
        )

    async def run(self, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
        """Lower bound, median and upper bound in seconds, ``[n, 3]``, of rows ``[n, columns]``.

        Raises:
            ModelFailed: the graph fails on them.
        """
        try:
            if len(inputs) <= _INLINE_ROWS:
                return run_session(self.session, self.input_name, self.output_names, inputs)
            # By chunks, so that a cancelled call stops soon.
            outputs = [
                await asyncio.to_thread(
                    run_session, self.session, self.input_name, self.output_names, inputs[at : at + _CHUNK_ROWS]
                )
                for at in range(0, len(inputs), _CHUNK_ROWS)
            ]
        except ModelRefused as error:
            raise ModelFailed(str(error)) from error
        return np.concatenate(outputs)


def _statistics(manifest: ModelManifest) -> FallbackStatistics:
    pipelines = {}
    for pipeline in manifest.fallback.pipelines:
        estimate = _estimate(pipeline.statistics)
        if estimate is not None:
            pipelines[pipeline.tenant_id, pipeline.repository, pipeline.pipeline] = estimate
    return FallbackStatistics(pipelines, _estimate(manifest.fallback.overall))


def _estimate(statistics: DurationStatistics) -> Estimate | None:
    if not statistics.row_count:
        return None
    return Estimate.checked(statistics.lower_seconds, statistics.median_seconds, statistics.upper_seconds)
