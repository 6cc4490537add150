"""A predictor of builds in this process, with models of many tenants: tests choose what a batch is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import helper

from conductor.model.v1.model_manifest_pb2 import ModelManifest
from conductor_features.reader import OnlineReader
from conductor_model_store import CHAMPION, ModelScope
from conductor_rpc.call import NO_DEADLINE, Deadline
from conductor_rpc.telemetry import OFF, Telemetry
from conductor_server.features.online import OnlineFeatures
from conductor_server.models.registry import Registry
from conductor_server.models.served_model import ServedModel
from conductor_server.models.shared_graphs import SharedParts
from conductor_server.prediction.asked import Asked
from conductor_server.prediction.build_duration import BuildDurationPredictor
from conductor_server.prediction.history import HISTORY_VIEWS
from conductor_server.servicers.translation import to_question
from server.harness import PREDICTOR, graph, manifest, request, with_golden
from server.many import Fleet

MOST_LINES = 1000
"""More of them a picky graph can't be run on."""


class Tenants:
    """Models of several tenants, loaded."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.parts = fleet, SharedParts()
        self.registry = Registry({PREDICTOR: HISTORY_VIEWS}, memory_budget_bytes=1 << 30)

    def load(
        self,
        bias: float,
        tenant_id: str = "",
        channel: str = CHAMPION,
        *,
        weight: float | None = None,
        content: bytes | None = None,
        change: Callable[[ModelManifest], None] = lambda _: None,
    ) -> ServedModel:
        """Publish a model and let it serve."""
        store, place = self.fleet.store, (ModelScope(PREDICTOR, tenant_id), channel)
        content = content or graph(bias)
        result = with_golden(manifest(content, tenant_id), content)
        change(result)
        version = store.publish(result, content, channel).version
        if weight is not None:
            store.promote(PREDICTOR, tenant_id, version, channel, weight=weight)
        if channel != CHAMPION:
            self.registry.set_variant(place, store.resolve(PREDICTOR, tenant_id, channel))
        model = ServedModel.of(store.load(PREDICTOR, tenant_id, version), self.parts)
        self.registry.put(place, model)
        return model

    def predictor(
        self, reader: OnlineReader, telemetry: Telemetry = OFF, comparing: Any = None
    ) -> BuildDurationPredictor:
        """One that asks them."""
        return BuildDurationPredictor(self.registry, Patient(reader, telemetry), telemetry, comparing)


class Patient(OnlineFeatures):
    """Says that a read may take very long: whoever has a deadline is in a hurry, and is in time for all that."""

    @property
    def longest_seconds(self) -> float:
        return 10_000.0


def picky_graph(bias: float) -> bytes:
    """As ``graph``; it fails on a row with more lines than there may be, and with it on all that are run beside it."""
    constants = {"second": np.array(1, np.int64), "nothing": np.zeros(MOST_LINES + 1, np.float32)}
    nodes = [
        helper.make_node("Gather", ["filled", "second"], ["lines"], axis=1),
        helper.make_node("Cast", ["lines"], ["number"], to=7),
        helper.make_node("Gather", ["nothing", "number"], ["extra"]),
    ]
    return graph(bias, extra=nodes, constants=constants)


def ask(
    tenant_id: str, *, contribution_count: int = 0, deadline: Deadline = NO_DEADLINE, call: Any = None, **fields: Any
) -> Asked:
    """A question of a tenant; the fields are those of ``request``."""
    message = request(tenant_id, **fields)
    message.contribution_count = contribution_count
    return Asked(tenant_id, to_question(message), deadline, call)


async def one_by_one(predictor: BuildDurationPredictor, asked: Sequence[Asked]) -> list[Any]:
    """The answers where nobody is answered together."""
    return [answer for one in asked for answer in await predictor.predict([one])]
