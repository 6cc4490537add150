"""Feast's online store in the packed layout: what Feast writes, the server's reader reads, and the other way round.

Feast's null is our NaN: a feature without a value is written as NaN, and NaN is read as null.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from feast import Entity, FeatureView, RepoConfig
from feast.infra.online_stores.online_store import OnlineStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import FeastConfigBaseModel

from conductor_features.clients import Client, mget, open_client
from conductor_features.codec import CorruptValue, decode
from conductor_features.keys import PREFIX, entity_key, parse_key
from conductor_features.views import VIEWS, View
from conductor_features.writer import write_rows

_LOG = logging.getLogger(__name__)
_SCAN_COUNT = 1_000

_Row = tuple[EntityKey, dict[str, Value], datetime, datetime | None]
_EARLIEST = datetime.min.replace(tzinfo=UTC)


class PackedRedisOnlineStoreConfig(FeastConfigBaseModel):
    """Configuration of :class:`PackedRedisOnlineStore` in ``feature_store.yaml``."""

    type: Literal["conductor_features.feast_online_store.PackedRedisOnlineStore"] = (
        "conductor_features.feast_online_store.PackedRedisOnlineStore"
    )
    redis_url: str = "redis://127.0.0.1:6379/0"
    """``redis://``, ``rediss://`` or ``unix://``; a cluster by ``redis+cluster://`` or ``rediss+cluster://``."""
    timeout_seconds: float = 10.0
    """Of one command; this is the tools' path, not the server's."""


class PackedRedisOnlineStore(OnlineStore):
    """One packed value per (view, entity) in Redis. Holds the views of :data:`conductor_features.views.VIEWS`."""

    _client: Client | None = None

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[_Row],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write rows; each entity keeps the latest event time, and of equal ones the latest created."""
        view = _view(table)
        # Of equal event times the later call of write_rows wins, so rows go in the order of their creation.
        ordered = sorted(data, key=lambda row: _utc(row[3]) if row[3] is not None else _EARLIEST)
        rows = (
            (_entity(view, key), _utc(event_time), [_number(values.get(name)) for name in view.field_names])
            for key, values, event_time, _ in ordered
        )
        write_rows(self._connect(config), view, rows)
        if progress is not None:
            progress(len(data))

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, Value] | None]]:
        """Rows in the order of ``entity_keys``, (None, None) where there is none; one MGET."""
        view = _view(table)
        keys = [entity_key(view.key, _entity(view, key)) for key in entity_keys]
        if not keys:
            return []
        wanted = [(name, view.field_index[name]) for name in requested_features or view.field_names]
        stored = mget(self._connect(config), keys)
        return [_read(view, key, value, wanted) for key, value in zip(keys, stored, strict=True)]

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        """Delete the rows of views that are no more. There is nothing to prepare for new ones."""
        self._delete(config, tables_to_delete)

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        """Delete the rows of ``tables`` and nothing else."""
        self._delete(config, tables)

    def _connect(self, config: RepoConfig) -> Client:
        if self._client is None:
            settings: PackedRedisOnlineStoreConfig = config.online_store
            self._client = open_client(settings.redis_url, settings.timeout_seconds)
        return self._client

    def _delete(self, config: RepoConfig, tables: Sequence[FeatureView]) -> None:
        names = {table.name for table in tables}
        if not names:
            return
        client = self._connect(config)
        batch: list[bytes] = []
        for key in _own_keys(client, names):
            batch.append(key)
            if len(batch) == _SCAN_COUNT:
                client.unlink(*batch)
                batch.clear()
        if batch:
            client.unlink(*batch)


def _own_keys(client: Client, view_keys: set[str]) -> Iterator[bytes]:
    for key in client.scan_iter(match=PREFIX + b"*", count=_SCAN_COUNT):
        try:
            view_key, _ = parse_key(key)
        except ValueError:
            continue
        if view_key in view_keys:
            yield key


def _view(table: FeatureView) -> View:
    view = VIEWS.get(table.name)
    if view is None:
        raise ValueError(f"{table.name} is none of the views {', '.join(VIEWS)}")
    return view


def _entity(view: View, key: EntityKey) -> tuple[str, ...]:
    # Feast sorts the join keys by name; ours have an order of their own.
    values = dict(zip(key.join_keys, key.entity_values, strict=True))
    return tuple(values[name].string_val for name in view.entity)


def _number(value: Value | None) -> float:
    kind = value.WhichOneof("val") if value is not None else None
    return float(getattr(value, kind)) if kind is not None else math.nan


def _value(number: float) -> Value:
    return Value() if math.isnan(number) else Value(double_val=number)


def _read(
    view: View, key: bytes, value: bytes | None, wanted: Sequence[tuple[str, int]]
) -> tuple[datetime | None, dict[str, Value] | None]:
    if value is None:
        return None, None
    try:
        row = decode(key, value, len(view.fields))
    except CorruptValue as error:
        _LOG.warning("refused a row of %s: %s", view.key, error)
        return None, None
    numbers = row.values.tolist()
    return row.event_time, {name: _value(numbers[index]) for name, index in wanted}


def _utc(moment: datetime) -> datetime:
    """Feast's times without a zone are UTC."""
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
