"""What models have in common is held once: the session of equal graphs, the plan of equal columns."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

from conductor.model.v1.model_manifest_pb2 import ModelManifest
from conductor_model_store import LoadedModel
from conductor_server.models.predictors import PREDICTORS
from conductor_server.models.sessions import ModelRefused, open_session
from conductor_server.prediction.columns import ColumnPlan, ManifestUnfit

# Measured over hundreds of loads (ADR 20): resident memory of a session by the size of its graph.
_SESSION_BYTES = 95_000
_SESSION_BYTES_PER_GRAPH_BYTE = 8.0


@dataclass(frozen=True)
class SharedGraph:
    """A session, for all models whose graph has the same digest."""

    digest: str
    """SHA-256 of the graph, in hexadecimal."""
    session: Any
    memory_bytes: int
    """What it is reckoned to take."""


class SharedParts:
    """Finds what is already held. Nothing is held by this: what no model uses any more is gone."""

    def __init__(self) -> None:
        self._graphs: weakref.WeakValueDictionary[str, SharedGraph] = weakref.WeakValueDictionary()
        self._plans: weakref.WeakValueDictionary[bytes, ColumnPlan] = weakref.WeakValueDictionary()

    def graph(self, model: LoadedModel) -> SharedGraph:
        """The session of a model's graph, opened if nobody holds it.

        Raises:
            ModelRefused: ONNX Runtime does not take the graph.
        """
        digest = model.manifest.graph.digest
        found = self._graphs.get(digest)
        if found is None:
            memory_bytes = round(_SESSION_BYTES + _SESSION_BYTES_PER_GRAPH_BYTE * len(model.graph))
            found = self._graphs[digest] = SharedGraph(digest, open_session(model.graph), memory_bytes)
        return found

    def plan(self, manifest: ModelManifest) -> ColumnPlan:
        """The plan of a manifest's columns.

        Raises:
            ModelRefused: this release does not have its predictor, or features that it asks for.
        """
        predictor = PREDICTORS.get(manifest.predictor)
        if predictor is None or not manifest.HasField(predictor.answer):
            raise ModelRefused(f"no predictor {manifest.predictor!r} here takes such a model")
        columns = [column.SerializeToString(deterministic=True) for column in manifest.inputs]
        key = b"\0".join([manifest.predictor.encode(), *columns])
        found = self._plans.get(key)
        if found is None:
            try:
                found = self._plans[key] = ColumnPlan.of(manifest.inputs, predictor.views, predictor.request_columns)
            except ManifestUnfit as error:
                raise ModelRefused(str(error)) from error
        return found
