"""Many tenants' models and features, made from one tenant's."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import onnx
import redis

from conductor.build.v1.build_context_pb2 import BuildContext
from conductor.model.v1.model_manifest_pb2 import ModelManifest
from conductor_features.reader import OnlineReader
from conductor_features.rows import FeatureRow
from conductor_features.views import VIEWS
from conductor_features.writer import write_rows
from conductor_model_store import LoadedModel, ModelStore, ModelStoreUnavailable
from conductor_server.prediction.columns import Subject, entity
from conductor_storage import ObstoreObjects

SECOND_VERSION_OF = 1
"""The tenant with another version, to change to."""
_READ_SECONDS = 5.0


def tenant_name(number: int) -> str:
    """Tenants by number, the loudest first."""
    return f"fleet-{number:05d}"


def publish_fleet(location: Path, model: LoadedModel, count: int) -> None:
    """A store with a global model and one for each of so many tenants: other digests, the same answers."""
    # Half a minute instead of ten: nobody minds if a power cut takes these.
    store = ModelStore(ObstoreObjects(location, unavailable=ModelStoreUnavailable, durable=False))
    graph = onnx.load_from_string(model.graph)
    for number in range(-1, count):
        store.publish(*_named(model.manifest, graph, tenant_name(number) if number >= 0 else "", "first"))
    store.publish(*_named(model.manifest, graph, tenant_name(SECOND_VERSION_OF % count), "second"))


def copy_features(redis_url: str, build: BuildContext, tenant_id: str, count: int) -> None:
    """Every tenant gets the feature rows that one tenant's build has."""
    asked = [
        (view, entity(view, Subject.of(tenant_id, build)))
        for view in VIEWS.values()
        if {*view.entity} <= {*Subject._fields}
    ]

    async def read() -> list[object]:
        async with OnlineReader(redis_url, _READ_SECONDS) as reader:
            return list(await reader.read(asked))

    found = asyncio.run(read())
    with redis.Redis.from_url(redis_url) as client:
        for (view, key), row in zip(asked, found, strict=True):
            if isinstance(row, FeatureRow):
                copies = (((tenant_name(number), *key[1:]), row.event_time, row.values) for number in range(count))
                write_rows(client, view, copies)


def _named(manifest: ModelManifest, graph: onnx.ModelProto, tenant_id: str, name: str) -> tuple[ModelManifest, bytes]:
    graph.doc_string = f"{tenant_id} {name}"
    content = graph.SerializeToString()
    made = ModelManifest()
    made.CopyFrom(manifest)
    made.tenant_id = tenant_id
    made.graph.digest, made.graph.size_bytes = hashlib.sha256(content).hexdigest(), len(content)
    return made, content
