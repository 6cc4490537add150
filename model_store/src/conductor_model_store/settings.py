"""Where the model store is."""

import os
from pathlib import Path

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource


class ModelStoreSettings(BaseSettings):
    """Read once: argument > environment (``CONDUCTOR_MODEL_STORE``) > ``conductor.toml`` > default."""

    model_config = SettingsConfigDict(env_prefix="CONDUCTOR_", frozen=True, extra="ignore", protected_namespaces=())

    model_store: str = ".conductor/models"
    """Local path or URL (``s3://bucket/prefix``, …) of the model store."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Argument, then the environment, then the file in CONDUCTOR_SETTINGS_FILE (default ``conductor.toml``)."""
        file = Path(os.environ.get("CONDUCTOR_SETTINGS_FILE", "conductor.toml"))
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=file)
