"""Which stream the settings name."""

from __future__ import annotations

from conductor_warehouse.settings import WarehouseSettings
from conductor_warehouse.streams.kafka_topic import KafkaTopic
from conductor_warehouse.streams.redis_stream import RedisStream
from conductor_warehouse.streams.source import Source, StreamInvalid


def source_of(settings: WarehouseSettings) -> Source:
    """The stream by the scheme of its address; raises :class:`StreamInvalid` for what makes no sense."""
    scheme, separator, _ = settings.event_stream_url.partition("://")
    match scheme if separator else "":
        case "redis" | "rediss" | "unix":
            return RedisStream(
                settings.event_stream_url,
                stream=settings.event_stream,
                group=settings.event_stream_group,
                consumer=settings.event_stream_consumer,
                batch_size=settings.ingest_batch_size,
                claim_seconds=settings.event_stream_claim_seconds,
            )
        case "kafka":
            return KafkaTopic(
                settings.event_stream_url,
                topic=settings.event_stream,
                group=settings.event_stream_group,
                consumer=settings.event_stream_consumer,
                batch_size=settings.ingest_batch_size,
                properties={name: value.get_secret_value() for name, value in settings.event_stream_kafka.items()},
            )
        case _:
            raise StreamInvalid("event_stream_url: must begin with redis://, rediss:// or kafka://")
