"""Feast's feature store on our databases: definitions, point-in-time joins and materialisation."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Any

from feast import FeatureStore, RepoConfig
from psycopg.conninfo import conninfo_to_dict

from conductor_features import feast_definitions
from conductor_features.feast_online_store import PackedRedisOnlineStoreConfig

PROJECT = "conductor"


def open_store(database_url: str, redis_url: str, registry: Path) -> FeatureStore:
    """A feature store: the log in ``database_url``, rows in ``redis_url``, Feast's registry in the file ``registry``.

    ``database_url`` is any connection string of PostgreSQL with one host, a Unix socket's folder included. Its role
    must see every tenant's rows. Connects to nothing yet.
    """
    registry.parent.mkdir(parents=True, exist_ok=True)
    return FeatureStore(
        config=RepoConfig(
            project=PROJECT,
            provider="local",
            registry=str(registry.absolute()),
            offline_store=_offline_store(database_url),
            online_store=PackedRedisOnlineStoreConfig(redis_url=redis_url).model_dump(),
            # The database finds each entity's latest row, not this process.
            materialization={"pull_latest_features": True},
            entity_key_serialization_version=3,
        )
    )


def apply(store: FeatureStore) -> None:
    """Register the definitions; repeating it changes nothing. Views that are no more are removed with their rows."""
    views = feast_definitions.feature_views()
    wanted: list[Any] = [*feast_definitions.entities(), *views.values(), *feast_definitions.feature_services()]
    gone: list[Any] = [view for view in store.list_feature_views() if view.name not in views]
    store.apply(wanted, objects_to_delete=gone, partial=not gone)


def _offline_store(database_url: str) -> dict[str, Any]:
    parts = conninfo_to_dict(database_url)
    user = str(parts.get("user") or getpass.getuser())
    return {
        "type": "conductor_features.feast_offline_store.LogPostgreSQLOfflineStore",
        "host": str(parts.get("host") or ""),
        "port": int(parts.get("port") or 5432),
        "database": str(parts.get("dbname") or user),
        "user": user,
        "password": str(parts.get("password") or ""),
        "sslmode": str(parts.get("sslmode") or "prefer"),
        "sslkey_path": parts.get("sslkey"),
        "sslcert_path": parts.get("sslcert"),
        "sslrootcert_path": parts.get("sslrootcert"),
    }
