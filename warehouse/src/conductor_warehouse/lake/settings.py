"""Where the lake is."""

from conductor_client.settings import ConductorSettings


class LakeSettings(ConductorSettings):
    """Read once: argument > environment (``CONDUCTOR_LAKE``) > ``conductor.toml`` > default."""

    lake: str = ".conductor/lake"
    """Local path or URL (``s3://bucket/prefix``, …) of the lake."""
