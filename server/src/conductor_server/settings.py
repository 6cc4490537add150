"""Settings of the prediction plane: flag > environment (``CONDUCTOR_…``) > ``conductor.toml`` > default."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from conductor_model_store.settings import ModelTrustSettings
from conductor_rpc.settings import RpcSettings, SettingsInvalid
from conductor_server.models.canary_bounds import CanaryBounds


class ServerSettings(RpcSettings, ModelTrustSettings):
    """Settings of ``conductor serve``, read once and frozen."""

    workers: int = Field(default=1, ge=1, le=64)
    """Processes that share the port. With more than one, a supervisor replaces those that die."""

    redis_url: str = "redis://127.0.0.1:6379/0"
    """The online store: ``redis://``, ``rediss://`` or ``unix://``; a Redis Cluster: ``redis+cluster://host:port`` or
    ``rediss+cluster://host:port``, where further nodes may follow after commas."""
    feature_timeout_seconds: float = Field(default=0.02, gt=0, le=10)
    """Longest that a read of features may take; after that the answer is made without them."""

    test_feature_timeout_seconds: float = Field(default=0.25, gt=0, le=10)
    """The same for reads of thousands of tests."""
    test_selection_calibration_max_age_days: float = Field(default=30.0, gt=0)
    """A selection promises nothing, and runs everything, where the latest run that its model knows of is older."""

    model_store: str = ".conductor/models"
    """Local path or URL (``s3://bucket/prefix``, …) of the model store."""
    allow_unsigned_models: bool = False
    """Serve models without checking their signatures, nor who put them to use."""
    model_pointer_memory: Path | None = None
    """File that keeps the latest signed move of each channel over restarts, for all workers; without it, each process
    knows what it saw itself, and after a restart the store is believed."""
    model_poll_seconds: float = Field(default=0.5, gt=0, le=60)
    """How often the model store is asked whether a pointer moved."""
    model_first_load_seconds: float = Field(default=30.0, ge=0)
    """Longest that starting waits for models; what is not loaded by then is loaded while serving."""
    model_verification_seconds: float = Field(default=5.0, gt=0)
    """Time in which an unknown model must load and answer its golden requests in the child process; up to four times as
    much where others keep that from the processor."""
    model_memory_bytes: int = Field(default=1 << 30, ge=1 << 26)
    """Memory that an unknown model may take in the child process."""
    model_memory_budget_bytes: int = Field(default=1 << 30, ge=1 << 20)
    """What the loaded models may take together in each process, by reckoning; the least recently used are dropped."""
    model_pinned_tenants: tuple[str, ...] = ()
    """Tenants whose models are loaded at the start and never dropped. Global models always are."""
    canary_minimum_count: int = Field(default=200, ge=1)
    """Questions after which a canary is judged, in each process by itself; one that does not hold is withdrawn."""
    canary_max_failure_share: float = Field(default=0.01, ge=0, le=1)
    """Share of its questions that a canary may fail to answer."""
    canary_max_latency_ratio: float = Field(default=3.0, gt=0)
    """Median time of a canary's run over the champion's."""
    canary_max_disagreement: float = Field(default=0.5, gt=0)
    """Median of |ln(its median / the champion's)|: 0.5 is 65 % more or 39 % less."""
    model_load_all_count: int = Field(default=32, ge=0)
    """Where no more tenants than so many have models, all are loaded at the start; else each when it is asked for."""

    def canary_bounds(self) -> CanaryBounds:
        """What a canary may do."""
        return CanaryBounds(
            self.canary_minimum_count,
            self.canary_max_failure_share,
            self.canary_max_latency_ratio,
            self.canary_max_disagreement,
        )

    def require_security(self) -> None:
        """Also refuse to go on without keys that models are trusted by, unless told so.

        Raises:
            SettingsInvalid: something is missing or contradicts itself.
        """
        super().require_security()
        if self.allow_unsigned_models and (self.model_trusted_keys or self.model_trusted_operator_keys):
            raise SettingsInvalid("--allow-unsigned-models contradicts the trusted keys: leave out one or the other")
        if not (self.insecure or self.allow_unsigned_models or self.model_trusted_keys):
            raise SettingsInvalid(
                "serving needs keys to trust models by: --model-trusted-keys (CONDUCTOR_MODEL_TRUSTED_KEYS) not set, "
                "`conductor models keygen` makes a key pair (or say --allow-unsigned-models)"
            )
