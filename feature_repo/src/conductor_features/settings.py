"""Settings of the feature store: flag > environment (``CONDUCTOR_…``) > ``conductor.toml`` > default."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from conductor_client.settings import ConductorSettings


class FeatureSettings(ConductorSettings):
    """Where features are kept, and how long a read may take. Read once, then frozen."""

    redis_url: str = "redis://127.0.0.1:6379/0"
    """The online store: ``redis://``, ``rediss://`` or ``unix://``; a Redis Cluster: ``redis+cluster://host:port`` or
    ``rediss+cluster://host:port``, where further nodes may follow after commas."""
    feature_timeout_seconds: float = Field(default=0.02, gt=0)
    """Longest that a read of features may take."""
    database_url: str | None = None
    """The warehouse, which holds the feature log; only Feast's commands need it."""
    feast_registry: Path = Path(".conductor/feast/registry.db")
    """File that Feast keeps its registry in."""
