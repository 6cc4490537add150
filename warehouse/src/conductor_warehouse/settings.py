"""Settings of the warehouse: flag > environment (``CONDUCTOR_…``) > ``conductor.toml`` > default."""

from __future__ import annotations

import socket

from pydantic import Field

from conductor_client.settings import ConductorSettings


class WarehouseSettings(ConductorSettings):
    """Where the warehouse is and how it is fed. Read once, then frozen."""

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

    event_stream_url: str = "redis://127.0.0.1:6379/0"
    """Redis with the stream of events that is consumed."""
    event_stream: str = "conductor:events"
    """Its key."""
    event_stream_group: str = "conductor-warehouse"
    """The consumers that share it."""
    event_stream_consumer: str = Field(default_factory=socket.gethostname, min_length=1)
    """This consumer's name: one that comes back by the same name goes on with what it had read."""
    event_stream_claim_seconds: float = Field(default=30.0, gt=0)
    """How long an entry is pending before another consumer claims it."""

    tail_batch_size: int = Field(default=5_000, ge=1)
    """Feature rows that the tailing writer carries at a time."""
    tail_poll_seconds: float = Field(default=1.0, gt=0)
    """How often the tailing writer looks at the logs and at Redis when nobody wakes it."""
    tail_retry_seconds: float = Field(default=5.0, gt=0)
    """Longest pause between attempts while Redis or PostgreSQL does not answer."""

    def require_database_url(self) -> str:
        """The database's address; raises :class:`DatabaseNotConfigured` when none is set."""
        if not self.database_url:
            raise DatabaseNotConfigured
        return self.database_url


class DatabaseNotConfigured(ValueError):
    """Nobody said where the warehouse is."""

    def __init__(self) -> None:
        super().__init__("no database: set CONDUCTOR_DATABASE_URL or give --database-url (`conductor up` prints one)")
