"""Where the model store is."""

from conductor_client.settings import ConductorSettings


class ModelStoreSettings(ConductorSettings):
    """Read once: argument > environment (``CONDUCTOR_MODEL_STORE``) > ``conductor.toml`` > default."""

    model_store: str = ".conductor/models"
    """Local path or URL (``s3://bucket/prefix``, …) of the model store."""
