"""Feast's entities, feature views and services, made from :data:`conductor_features.views.VIEWS`.

Imports Feast, which takes seconds: only tools and training import this module.
"""

from __future__ import annotations

from typing import Any

from feast import Entity, FeatureService, FeatureView, Field, ValueType
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import PostgreSQLSource
from feast.types import Float64, String

from conductor_features.views import BUILD_VIEWS, VIEWS, View

BUILD_DURATION = "build_duration"
"""Feature service of the predictor of build durations."""


def entities() -> list[Entity]:
    """One entity for each join key of any view."""
    join_keys = dict.fromkeys(key for view in VIEWS.values() for key in view.entity)
    return [Entity(name=key, join_keys=[key], value_type=ValueType.STRING) for key in join_keys]


def feature_view(view: View) -> FeatureView:
    """The Feast feature view of ``view``, on its log table. Features are null where our values are NaN."""
    by_name = {entity.name: entity for entity in entities()}
    return FeatureView(
        name=view.key,
        entities=[by_name[key] for key in view.entity],
        schema=[
            *(Field(name=key, dtype=String) for key in view.entity),
            *(
                Field(name=field.name, dtype=Float64, description=f"{field.description} [{field.unit}]")
                for field in view.fields
            ),
        ],
        source=PostgreSQLSource(
            name=view.log_table,
            table=view.log_table,
            timestamp_field="event_timestamp",
            created_timestamp_column="created",
            owner=view.owner,
        ),
        ttl=view.maximum_age,
        owner=view.owner,
        description=view.description,
        tags={"owner": view.owner, "lineage": ", ".join(view.lineage), "version": str(view.version)},
    )


def feature_views() -> dict[str, FeatureView]:
    """Feast feature views by view key."""
    return {key: feature_view(view) for key, view in VIEWS.items()}


def feature_services() -> list[FeatureService]:
    """One service per predictor. Views share field names: ask for ``<view key>__<field>`` by ``full_feature_names``."""
    views: list[Any] = [feature_view(view) for view in BUILD_VIEWS]
    return [FeatureService(name=BUILD_DURATION, features=views, description="Inputs of build durations.")]
