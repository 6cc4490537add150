"""A Kafka topic as a source of events, by librdkafka.

Consumers of one group share the topic's partitions. The offset that a group has committed says that all before it is
stored: a consumer begins at committed offsets, and commits how far it has stored what it read from there. That holds
even for one that commits a partition that has become another's meanwhile, which at worst brings messages once more.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import takewhile
from typing import Any, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from conductor_warehouse.streams.kafka_messages import to_event
from conductor_warehouse.streams.source import Batch, StreamInvalid

_LOG = logging.getLogger(__name__)
_WAIT_SECONDS = 0.25
"""How long a read waits for a message, and so how often a consumer looks whether it should stop."""
_GUARANTEES: Mapping[str, str | bool] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    # A group that knows nothing begins at the beginning: what is stored already changes nothing.
    "auto.offset.reset": "earliest",
    "isolation.level": "read_committed",
    "enable.partition.eof": False,
}
_OWN_PROPERTIES = frozenset(
    {
        *_GUARANTEES,
        "auto.commit.enable",
        "bootstrap.servers",
        "client.id",
        "group.id",
        "metadata.broker.list",
    }
)
_SERVERS = re.compile(r"[^\s,/@?#]+(,[^\s,/@?#]+)*")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_PASSING = frozenset(
    {
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.STALE_MEMBER_EPOCH,
        KafkaError._ASSIGNMENT_LOST,
        KafkaError._WAIT_COORD,
    }
)
"""The group has shared out its partitions anew, or is about to: what could not be committed comes again, maybe to
another consumer."""
_QUIET_SECONDS = 10.0
_LEAVE_SECONDS = 3.0


class KafkaTopic:
    """A topic, read by one consumer of a group: a :class:`~conductor_warehouse.streams.source.Source`."""

    failures: tuple[type[Exception], ...] = (KafkaException,)

    def __init__(
        self,
        url: str,
        *,
        topic: str,
        group: str,
        consumer: str,
        batch_size: int = 1_000,
        properties: Mapping[str, str] | None = None,
    ) -> None:
        """
        Args:
            url: ``kafka://host:port,host:port``.
            topic: its name.
            group: consumers with the same group share the topic.
            consumer: this one's name in the broker's logs.
            batch_size: messages in a batch, at most.
            properties: further ones of librdkafka, for TLS and authentication say.

        Raises:
            StreamInvalid: for what librdkafka refuses, and for properties that the guarantees rest upon.
        """
        servers = url.removeprefix("kafka://").removesuffix("/")
        if not _SERVERS.fullmatch(servers):
            raise StreamInvalid(
                "event_stream_url: must be kafka://host:port,host:port; passwords belong into event_stream_kafka"
            )
        if not _TOPIC.fullmatch(topic):
            raise StreamInvalid(f"event_stream: {topic!r} can't be a topic of Kafka: letters, digits, '.', '_' and '-'")
        properties = properties or {}
        if refused := sorted(_OWN_PROPERTIES & set(properties)):
            raise StreamInvalid(f"event_stream_kafka: Conductor sets {', '.join(refused)} itself")
        self._topic, self._batch_size = topic, batch_size
        self._configuration = {
            **properties,
            **_GUARANTEES,
            "bootstrap.servers": servers,
            "group.id": group,
            "client.id": consumer,
            "on_commit": self._note_commit,
        }
        try:
            self._connect().close()
        except KafkaException as error:
            raise StreamInvalid(f"event_stream_kafka: {_without_values(error, properties)}") from None
        self._consumer: Consumer
        self._refusal: KafkaError | None = None

    @property
    def name(self) -> str:
        """For people."""
        return f"Kafka topic {self._topic}"

    def __enter__(self) -> Self:
        self._refusal = None
        self._consumer = self._connect()
        self._consumer.subscribe([self._topic], on_assign=self._tell_partitions)
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the group. Nothing is committed by that.

        A Kafka that does not answer is left without a word: librdkafka would wait for it as long as the session may
        last, by default 45 s, and a stop is not given so much.
        """
        leaving = threading.Thread(target=self._consumer.close, name="kafka-leave", daemon=True)
        leaving.start()
        leaving.join(_LEAVE_SECONDS)
        if leaving.is_alive():
            _LOG.warning("%s does not answer: its partitions go to others once this session has timed out", self.name)

    def batches(self) -> Iterator[Batch | None]:
        """What has arrived, as soon as something has."""
        while True:
            found = self._consumer.consume(1, _WAIT_SECONDS)
            if found and self._batch_size > 1:
                found += self._consumer.consume(self._batch_size - 1, 0)
            # What follows an error is read again, so that nothing between is passed over.
            messages = list(takewhile(lambda message: message.error() is None, found))
            if messages:
                yield Batch([to_event(message) for message in messages], partial(self._acknowledge, messages))
            elif not found:
                yield None
            if len(messages) < len(found):
                raise KafkaException(found[len(messages)].error())
            if self._refusal is not None:
                raise KafkaException(self._refusal)

    def _connect(self) -> Consumer:
        return Consumer(dict(self._configuration), logger=_LIBRARY_LOG)

    def _tell_partitions(self, _: Consumer, partitions: Sequence[TopicPartition]) -> None:
        _LOG.info("%s: partitions %s are taken from", self.name, sorted(p.partition for p in partitions))

    def _acknowledge(self, messages: Sequence[Message[Any, Any]]) -> None:
        """Send the offsets. Waiting for the answer has no time limit in librdkafka, and would outlast a stop."""
        ends = {message.partition(): (message.offset() or 0) + 1 for message in messages}
        offsets = [TopicPartition(self._topic, partition or 0, end) for partition, end in ends.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            self._note_commit(error.args[0], [])

    def _note_commit(self, error: KafkaError | None, partitions: Sequence[TopicPartition]) -> None:
        """What has become of offsets. Called within a read or the close, which an exception from here could block."""
        for found in filter(None, [error, *(partition.error for partition in partitions)]):
            if found.code() not in _PASSING:
                self._refusal = found
            else:
                _LOG.info("offsets of %s are not committed, their messages come again: %s", self.name, found)


class _Seldom(logging.Filter):
    """One line of a kind in ten seconds: librdkafka tells of every attempt to connect, twenty in a second."""

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[tuple[object, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        facility = record.args[0] if isinstance(record.args, tuple) and record.args else record.msg
        kind, now = (facility, record.levelno), time.monotonic()
        if now - self._told.get(kind, -_QUIET_SECONDS) < _QUIET_SECONDS:
            return False
        self._told[kind] = now
        return True


_LIBRARY_LOG = _LOG.getChild("librdkafka")
_LIBRARY_LOG.addFilter(_Seldom())


def _without_values(error: KafkaException, properties: Mapping[str, str]) -> str:
    """What librdkafka says, which may quote a value; a word that properties' names are made of is no secret."""
    text = str(error.args[0].str())
    for value in properties.values():
        if value and not any(value in name for name in properties):
            text = text.replace(value, "…")
    return text
