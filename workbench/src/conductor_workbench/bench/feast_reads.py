"""Feast's own ``get_online_features``, in a process of its own: on its stock Redis store, and on our packed one.

Both hold the same 30 fields of the same entities in the same Redis. What is timed is ``get_online_features`` alone,
without turning its response into anything: the least that a caller could pay.
"""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, FileSource, RepoConfig, ValueType
from feast import Field as FeastField
from feast.types import Float64, String

from conductor_features.feast_online_store import PackedRedisOnlineStoreConfig
from conductor_features.views import VIEWS, View
from conductor_workbench.bench.children import answer_requests
from conductor_workbench.bench.figures import repeat, spread
from conductor_workbench.bench.thirty_fields import ENTITY_COUNTS, VIEW, entities, event_time, values

_STOCK_DATABASE = 1
"""Number of the Redis database of the stock layout: apart from the packed rows."""
_LARGEST = max(ENTITY_COUNTS)


def measure(redis_url: str, seconds: float) -> dict[str, Any]:
    """Latency by number of entities: ``feast_redis`` and ``feast_packed``. Needs Redis on TCP, without a password."""
    # The plug-in serves the catalogue's views. This process, and only this one, has one more.
    cast(dict[str, View], VIEWS)[VIEW.key] = VIEW
    address = urlsplit(redis_url)
    stock = {"type": "redis", "connection_string": f"{address.hostname}:{address.port},db={_STOCK_DATABASE}"}
    packed = PackedRedisOnlineStoreConfig(redis_url=redis_url).model_dump()
    stores = {"feast_redis": stock, "feast_packed": packed}
    with tempfile.TemporaryDirectory(prefix="conductor-bench-feast-") as directory:
        found = {
            name: _measure_store(Path(directory) / f"{name}.db", online, seconds) for name, online in stores.items()
        }
    return {str(count): {name: found[name][count] for name in stores} for count in ENTITY_COUNTS}


def _measure_store(registry: Path, online: dict[str, Any], seconds: float) -> dict[int, dict[str, Any]]:
    store = FeatureStore(
        config=RepoConfig(
            project="bench",
            provider="local",
            registry=str(registry),
            online_store=online,
            entity_key_serialization_version=3,
        )
    )
    join_keys = [Entity(name=name, join_keys=[name], value_type=ValueType.STRING) for name in VIEW.entity]
    store.apply([*join_keys, _feature_view(join_keys)])
    store.write_to_online_store(VIEW.key, _frame())
    features = [f"{VIEW.key}:{name}" for name in VIEW.field_names]
    found = {}
    for count in ENTITY_COUNTS:
        rows = [dict(zip(VIEW.entity, entity, strict=True)) for entity in entities(count)]
        last = store.get_online_features(features=features, entity_rows=rows).to_dict()[VIEW.field_names[-1]]
        if last != values(_LARGEST)[:count, -1].tolist():
            raise RuntimeError("Feast does not read what was written just now")
        samples = repeat(
            seconds, lambda rows=rows: store.get_online_features(features=features, entity_rows=rows)  # type: ignore[misc]
        )
        found[count] = spread(samples, "ms", 1e3)
    return found


def _feature_view(join_keys: list[Entity]) -> FeatureView:
    return FeatureView(
        name=VIEW.key,
        entities=join_keys,
        ttl=timedelta(days=1),
        schema=[
            *(FeastField(name=name, dtype=String) for name in VIEW.entity),
            *(FeastField(name=name, dtype=Float64) for name in VIEW.field_names),
        ],
        source=FileSource(name="nothing", path="nothing.parquet", timestamp_field="event_timestamp"),
    )


def _frame() -> pd.DataFrame:
    frame = pd.DataFrame(values(_LARGEST), columns=list(VIEW.field_names))
    for position, name in enumerate(VIEW.entity):
        frame[name] = [entity[position] for entity in entities(_LARGEST)]
    frame["event_timestamp"] = event_time()
    return frame


if __name__ == "__main__":
    answer_requests(lambda request: measure(request["redis_url"], request["seconds"]))
