"""Where the model store is, and who is trusted with it."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator
from pydantic_settings import NoDecode

from conductor_client.settings import ConductorSettings

if TYPE_CHECKING:
    from conductor_model_store.signatures import Trust
    from conductor_model_store.store import ModelStore


def _as_paths(value: Any) -> Any:
    """In the environment, paths stand in a row as in PATH."""
    return tuple(place for place in value.split(os.pathsep) if place) if isinstance(value, str) else value


Paths = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_as_paths)]


class ModelTrustSettings(ConductorSettings):
    """Whose models are loaded, and who may put them to use."""

    model_trusted_keys: Paths = ()
    """Public keys (PEM) that models must be signed with, any one of them, or folders of such (``*.pem``); in the
    environment separated as in PATH. Without any, signatures are not checked. Servers look every second for others."""
    model_trusted_operator_keys: Paths = ()
    """Public keys that moves of channels must be signed with, likewise; without any, ``model_trusted_keys``."""
    model_operator_key: Path | None = None
    """Private key (PEM) that moves of channels are signed with; without it the key that signs models does that."""

    def trust(self, signing_key: Path | None = None) -> "Trust | None":
        """Read the keys; None where there are none. Raises InvalidKey."""
        keys, operator_keys = self.model_trusted_keys, self.model_trusted_operator_keys
        if not (keys or operator_keys or signing_key or self.model_operator_key):
            return None
        from conductor_model_store.signatures import Trust  # noqa: PLC0415  # takes long to import
        from conductor_model_store.signing_keys import KeyFiles, read_signer  # noqa: PLC0415  # likewise

        return Trust(
            signer=read_signer(signing_key) if signing_key else None,
            keys=KeyFiles(keys) if keys else None,
            operator=read_signer(self.model_operator_key) if self.model_operator_key else None,
            operator_keys=KeyFiles(operator_keys) if operator_keys else None,
        )


class ModelStoreSettings(ModelTrustSettings):
    """Read once: argument > environment (``CONDUCTOR_…``) > ``conductor.toml`` > default."""

    model_store: str = ".conductor/models"
    """Local path or URL (``s3://bucket/prefix``, …) of the model store."""
    model_signing_key: Path | None = None
    """Private key (PEM) that published models are signed with; without it they are not signed."""
    audit_file: Path | None = None
    """File that commands note their moves in, as servers do; None: the channel's history alone tells of them."""

    def open(self) -> "ModelStore":
        """Open the store. Raises InvalidKey, ModelStoreUnavailable."""
        from conductor_model_store.store import ModelStore  # noqa: PLC0415  # takes long to import

        return ModelStore.open(self.model_store, self.trust(self.model_signing_key))
