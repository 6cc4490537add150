"""Settings of the prediction plane: flag > environment (``CONDUCTOR_…``) > ``conductor.toml`` > default."""

from __future__ import annotations

from pydantic import Field

from conductor_rpc.settings import RpcSettings


class ServerSettings(RpcSettings):
    """Settings of ``conductor serve``, read once and frozen."""

    workers: int = Field(default=1, ge=1, le=64)
    """Processes that share the port. With more than one, a supervisor replaces those that die."""

    redis_url: str = "redis://127.0.0.1:6379/0"
    """The online store: ``redis://``, ``rediss://`` or ``unix://``; a Redis Cluster: ``redis+cluster://host:port`` or
    ``rediss+cluster://host:port``, where further nodes may follow after commas."""
    feature_timeout_seconds: float = Field(default=0.02, gt=0, le=10)
    """Longest that a read of features may take; after that the answer is made without them."""

    model_store: str = ".conductor/models"
    """Local path or URL (``s3://bucket/prefix``, …) of the model store."""
    model_poll_seconds: float = Field(default=0.5, gt=0, le=60)
    """How often the model store is asked whether a pointer moved."""
    model_first_load_seconds: float = Field(default=30.0, ge=0)
    """Longest that starting waits for models; what is not loaded by then is loaded while serving."""
    model_verification_seconds: float = Field(default=5.0, gt=0)
    """Time in which an unknown model must load and answer its golden requests in the child process."""
    model_memory_bytes: int = Field(default=1 << 30, ge=1 << 26)
    """Memory that an unknown model may take in the child process."""
