"""Where every member's settings come from. Needs the extra "cli"; the client itself has only arguments."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Self

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource


class ConductorSettings(BaseSettings):
    """Flag > environment (``CONDUCTOR_…``) > file > default. Read once, then frozen.

    The file is ``conductor.toml`` in the working directory, or the one that ``CONDUCTOR_SETTINGS_FILE`` names; its keys
    are the fields' names. Raises pydantic's ValidationError for what a field does not allow.
    """

    model_config = SettingsConfigDict(
        env_prefix="CONDUCTOR_",
        extra="ignore",
        frozen=True,
        protected_namespaces=(),
        use_attribute_docstrings=True,
        validate_default=True,
    )

    @classmethod
    def from_flags(cls, **flags: Any) -> Self:
        """Settings with the flags that were given; a flag that is None was not given."""
        return cls(**{name: value for name, value in flags.items() if value is not None})

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the file below the environment."""
        file = Path(os.environ.get("CONDUCTOR_SETTINGS_FILE", "conductor.toml"))
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=file)
