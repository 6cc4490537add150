"""Settings of the warehouse: flag > environment (``CONDUCTOR_…``) > ``conductor.toml`` > default."""

from __future__ import annotations

import socket
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import SettingsConfigDict

from conductor_rpc.logs import LogSettings


def _as_texts(values: Any) -> Any:
    """In a file the values may be numbers and booleans."""
    if not isinstance(values, dict):
        return values
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value) if isinstance(value, int) else value
        for name, value in values.items()
    }


class WarehouseSettings(LogSettings):
    """Where the warehouse is and how it is fed. Read once, then frozen."""

    model_config = SettingsConfigDict(hide_input_in_errors=True)  # it may hold a password

    database_url: str | None = None
    """The warehouse: ``postgresql://user@host/database``, a Unix socket as ``…/database?host=/folder``."""
    redis_url: str = "redis://127.0.0.1:6379/0"
    """The online store that the tailing writer fills; a Redis Cluster is ``redis+cluster://host:port``."""

    ingest_batch_size: int = Field(default=5_000, ge=1, le=10_000)
    """Events per transaction, at most, when files are ingested or a stream is consumed."""
    publish_connection_count: int = Field(default=4, ge=1)
    """Database connections of the event service: as many batches are stored at once."""
    publish_timeout_seconds: float = Field(default=10.0, gt=0)
    """How long the event service waits for a connection, and for one statement of the database."""
    publish_batch_seconds: float = Field(default=60.0, gt=0)
    """How long a batch may take as a whole. After that its connection is taken to hang, and cut."""

    event_stream_url: str = "redis://127.0.0.1:6379/0"
    """The stream of events that is consumed is on this Redis, or on Kafka: ``kafka://host:port,host:port``."""
    event_stream: str = "conductor:events"
    """Its key; Kafka's topic, which can't hold a colon."""
    event_stream_group: str = "conductor-warehouse"
    """The consumers that share it."""
    event_stream_consumer: str = Field(default_factory=socket.gethostname, min_length=1)
    """This consumer's name: one that comes back to Redis by the same name goes on with what it had read."""
    event_stream_claim_seconds: float = Field(default=30.0, gt=0)
    """How long an entry of Redis is pending before another consumer claims it."""
    event_stream_kafka: Annotated[dict[str, SecretStr], BeforeValidator(_as_texts)] = Field(default_factory=dict)
    """Further properties of librdkafka, ``security.protocol`` say; JSON in the environment, a table in the file."""

    tail_batch_size: int = Field(default=5_000, ge=1)
    """Feature rows that the tailing writer carries at a time."""
    tail_poll_seconds: float = Field(default=1.0, gt=0)
    """How often the tailing writer looks at the logs and at Redis when nobody wakes it."""
    tail_retry_seconds: float = Field(default=5.0, gt=0)
    """Longest pause between attempts while Redis or PostgreSQL does not answer."""

    admin_host: str = "127.0.0.1"
    """Address of the tailing writer's and the consumer's admin port, which asks for no credentials."""
    admin_http_port: int | None = Field(default=None, ge=0, le=65535)
    """Its number: ``/livez``, ``/readyz`` and ``/metrics`` by HTTP; 0 takes a free one, None opens none."""

    def require_database_url(self) -> str:
        """The database's address; raises :class:`DatabaseNotConfigured` when none is set."""
        if not self.database_url:
            raise DatabaseNotConfigured
        return self.database_url


class DatabaseNotConfigured(ValueError):
    """Nobody said where the warehouse is."""

    def __init__(self) -> None:
        super().__init__("no database: set CONDUCTOR_DATABASE_URL or give --database-url (`conductor up` prints one)")
