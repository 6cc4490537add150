"""Settings of the feature store: flag > environment (``CONDUCTOR_…``) > ``conductor.toml`` > default."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource


class FeatureSettings(BaseSettings):
    """Where features are kept, and how long a read may take. Read once, then frozen."""

    model_config = SettingsConfigDict(env_prefix="CONDUCTOR_", extra="ignore", frozen=True)

    redis_url: str = "redis://127.0.0.1:6379/0"
    """The online store: ``redis://``, ``rediss://`` or ``unix://``."""
    feature_timeout_seconds: float = Field(default=0.02, gt=0)
    """Longest that a read of features may take."""
    database_url: str | None = None
    """The warehouse, which holds the feature log; only Feast's commands need it."""
    feast_registry: Path = Path(".conductor/feast/registry.db")
    """File that Feast keeps its registry in."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then the environment, then the file in CONDUCTOR_SETTINGS_FILE (default ``conductor.toml``)."""
        file = Path(os.environ.get("CONDUCTOR_SETTINGS_FILE", "conductor.toml"))
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=file)
