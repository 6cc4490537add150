"""A model as the serving process holds it: session, columns, labels, statistics."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from conductor.model.v1.model_manifest_pb2 import DurationStatistics, ModelManifest
from conductor_model_store import LoadedModel
from conductor_model_store.promise import PastCycle
from conductor_rpc.call import NO_DEADLINE, Deadline
from conductor_server.models.sessions import (
    ModelRefused,
    answer_kind,
    check_golden_requests,
    check_signature,
    run_session,
)
from conductor_server.models.shared_graphs import SharedGraph, SharedParts
from conductor_server.prediction.answers import Estimate, ModelLabel
from conductor_server.prediction.columns import ColumnPlan
from conductor_server.prediction.ports import MOST_ROWS_AT_ONCE, FallbackStatistics, ModelFailed

_CHUNK_ROWS = 4096
# Measured over hundreds of loads (ADR 20): a model's memory beside its session.
_MODEL_BYTES = 2_000
_MODEL_BYTES_PER_MANIFEST_BYTE = 5.0


@dataclass(frozen=True)
class ServedModel:
    """Ready to answer."""

    label: ModelLabel
    tenant_id: str
    manifest_digest: str
    plan: ColumnPlan
    coverage: float
    statistics: FallbackStatistics
    graph: SharedGraph
    memory_bytes: int
    """What it is reckoned to take beside its graph."""
    input_name: str
    output_names: tuple[str, ...]
    past_cycles: tuple[PastCycle, ...] | None = None
    signed_by: frozenset[str] = frozenset()
    """Ids of the trusted keys that signed it; none where signatures are not checked."""

    @classmethod
    def of(cls, model: LoadedModel, parts: SharedParts) -> Self:
        """Load and warm a model that was verified; what others have in common with it is shared.

        Raises:
            ModelRefused: it does not load here, or asks for features that this release does not have.
        """
        manifest = model.manifest
        plan = parts.plan(manifest)
        graph = parts.graph(model)
        check_signature(graph.session, manifest)
        check_golden_requests(graph.session, manifest)
        coverage = manifest.calibration.coverage
        return cls(
            label=ModelLabel(model.scope.resource_name, model.version, manifest.graph.digest),
            tenant_id=model.scope.tenant_id,
            manifest_digest=model.manifest_digest,
            plan=plan,
            coverage=coverage if 0 < coverage < 1 else 0.0,
            statistics=_statistics(manifest),
            graph=graph,
            memory_bytes=round(_MODEL_BYTES + _MODEL_BYTES_PER_MANIFEST_BYTE * manifest.ByteSize()),
            input_name=manifest.input_name,
            output_names=answer_kind(manifest).output_names,
            past_cycles=_past_cycles(manifest),
            signed_by=model.signed_by,
        )

    @property
    def session(self) -> Any:
        """The ONNX Runtime session."""
        return self.graph.session

    def score(self, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
        """As ``run``, at once: not on the event loop.

        Raises:
            ModelFailed: the graph fails on them.
        """
        try:
            return run_session(self.session, self.input_name, self.output_names, inputs)
        except ModelRefused as error:
            raise ModelFailed(str(error)) from error

    async def run(self, inputs: NDArray[np.float32], until: Deadline = NO_DEADLINE) -> NDArray[np.float64]:
        """What the graph says of rows ``[n, columns]``: ``[n, outputs]``.

        Raises:
            ModelFailed: the graph fails on them.
            DeadlineTooShort: it could not be run before ``until``.
        """
        if len(inputs) <= MOST_ROWS_AT_ONCE:
            return self._score_before(until, inputs)
        # By chunks, so that a cancelled call, or one that is too late, stops soon.
        outputs = [
            await asyncio.to_thread(self._score_before, until, inputs[at : at + _CHUNK_ROWS])
            for at in range(0, len(inputs), _CHUNK_ROWS)
        ]
        return np.concatenate(outputs)

    def _score_before(self, until: Deadline, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
        until.require(0)  # a thread may have been long in coming
        return self.score(inputs)


def _statistics(manifest: ModelManifest) -> FallbackStatistics:
    pipelines = {}
    for pipeline in manifest.fallback.pipelines:
        estimate = _estimate(pipeline.statistics)
        if estimate is not None:
            pipelines[pipeline.tenant_id, pipeline.repository, pipeline.pipeline] = estimate
    rate = manifest.fallback.overall_rate
    known = rate.row_count > 0 and 0 <= rate.rate <= 1
    return FallbackStatistics(pipelines, _estimate(manifest.fallback.overall), rate.rate if known else None)


def _past_cycles(manifest: ModelManifest) -> tuple[PastCycle, ...] | None:
    if not manifest.HasField("selection_calibration"):
        return None
    return tuple(
        PastCycle(
            run.start_time.ToMicroseconds() / 1e6,
            run.completed_time.ToMicroseconds() / 1e6,
            np.array(run.failed_probabilities, np.float64),
        )
        for run in manifest.selection_calibration.runs
        if run.failed_probabilities
    )


def _estimate(statistics: DurationStatistics) -> Estimate | None:
    if not statistics.row_count:
        return None
    return Estimate.checked(statistics.lower_seconds, statistics.median_seconds, statistics.upper_seconds)
