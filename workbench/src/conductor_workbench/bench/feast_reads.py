"""Feast's own ``get_online_features``, in a process of its own: on its stock Redis store, and on our packed one.

Both hold the same 30 fields of the same entities in the same Redis. What is timed is ``get_online_features`` alone,
without turning its response into anything: the least that a caller could pay. On the stock store the usual
``get_online_features(…).to_dict()``, which puts values into a program's hands as our reader does, is timed as well.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
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
from conductor_workbench.bench.figures import repeat
from conductor_workbench.bench.thirty_fields import ENTITY_COUNTS, VIEW, entities, event_time, values

_STOCK_DATABASE = 1
"""Number of the Redis database of the stock layout: apart from the packed rows."""
_LARGEST = max(ENTITY_COUNTS)


class FeastReads:
    """Both stores, filled. Needs Redis on TCP, without a password."""

    def __init__(self, redis_url: str, directory: Path) -> None:
        """``directory``: where Feast keeps its registries."""
        # The plug-in serves the catalogue's views. This process, and only this one, has one more.
        cast(dict[str, View], VIEWS)[VIEW.key] = VIEW
        address = urlsplit(redis_url)
        stock = {"type": "redis", "connection_string": f"{address.hostname}:{address.port},db={_STOCK_DATABASE}"}
        packed = PackedRedisOnlineStoreConfig(redis_url=redis_url).model_dump()
        self._stores = {
            "feast_redis": _filled_store(directory / "stock.db", stock),
            "feast_packed": _filled_store(directory / "packed.db", packed),
        }

    def measure(self, count: int, seconds: float) -> dict[str, list[float]]:
        """Seconds of each read of ``count`` entities, each way for ``seconds``.

        ``feast_redis`` and ``feast_packed``: the response alone; ``feast_redis_values``: with its values.
        """
        rows = [dict(zip(VIEW.entity, entity, strict=True)) for entity in entities(count)]
        features = [f"{VIEW.key}:{name}" for name in VIEW.field_names]
        found = {}
        for name, store in self._stores.items():
            last = store.get_online_features(features=features, entity_rows=rows).to_dict()[VIEW.field_names[-1]]
            if last != values(_LARGEST)[:count, -1].tolist():
                raise RuntimeError("Feast does not read what was written just now")
            found[name] = repeat(
                seconds,
                lambda store=store: store.get_online_features(features=features, entity_rows=rows),  # type: ignore[misc]
            )
        stock = self._stores["feast_redis"]
        found["feast_redis_values"] = repeat(
            seconds, lambda: stock.get_online_features(features=features, entity_rows=rows).to_dict()
        )
        return found


def _filled_store(registry: Path, online: dict[str, Any]) -> FeatureStore:
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
    return store


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


def main() -> None:
    """Answer until the input ends."""
    reads: list[FeastReads] = []
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="conductor-bench-feast-")))

        def answer(request: dict[str, Any]) -> dict[str, Any]:
            if "count" in request:
                return dict(reads[0].measure(request["count"], request["seconds"]))
            reads.append(FeastReads(request["redis_url"], directory))
            return {}

        answer_requests(answer)


if __name__ == "__main__":
    main()
