"""librdkafka's mock cluster: it speaks Kafka's protocol on a port, with topics, groups and offsets, all in memory.

It comes inside confluent-kafka, whose Python interface lacks the calls that stop a broker or spare the first members of
a group their wait of three seconds. So it is made by those of librdkafka itself (``rdkafka_mock.h``).
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Self

from confluent_kafka import Consumer, Producer, TopicPartition, cimpl

_BROKER = 1
_TIMEOUT = 10.0
_PRODUCER = 0
_API_KEYS = {"OffsetCommit": 8, "LeaveGroup": 13}

_Message = bytes | None | tuple[bytes | None, list[tuple[str, bytes]]]
"""A value, or a value and headers."""


def _library() -> ctypes.CDLL:
    # The extension depends on the library, so the library's functions are found through it.
    library = ctypes.CDLL(cimpl.__file__)
    pointer, number, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
    for name, result, *arguments in (
        ("new", pointer, number, pointer, text, ctypes.c_size_t),
        ("destroy", None, pointer),
        ("mock_cluster_new", pointer, pointer, number),
        ("mock_cluster_destroy", None, pointer),
        ("mock_cluster_bootstraps", text, pointer),
        ("mock_group_initial_rebalance_delay_ms", None, pointer, ctypes.c_int32),
        ("mock_topic_create", number, pointer, text, number, number),
        ("mock_broker_set_down", number, pointer, ctypes.c_int32),
        ("mock_broker_set_up", number, pointer, ctypes.c_int32),
        ("mock_start_request_tracking", None, pointer),
        ("mock_get_requests", ctypes.POINTER(pointer), pointer, ctypes.POINTER(ctypes.c_size_t)),
        ("mock_request_api_key", ctypes.c_int16, pointer),
        ("mock_request_destroy_array", None, ctypes.POINTER(pointer), ctypes.c_size_t),
        ("mock_push_request_errors_array", None, pointer, ctypes.c_int16, ctypes.c_size_t, pointer),
    ):
        function = getattr(library, f"rd_kafka_{name}")
        function.restype, function.argtypes = result, arguments
    return library


class MockKafka:
    """One broker, until it is closed. Sharing out partitions anew takes it a group's session timeout less a second."""

    def __init__(self) -> None:
        self._library = _library()
        self._groups: dict[str, Consumer] = {}
        self._client = self._library.rd_kafka_new(_PRODUCER, None, None, 0)
        self._cluster = self._library.rd_kafka_mock_cluster_new(self._client, 1)
        self._library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 0)
        self._library.rd_kafka_mock_start_request_tracking(self._cluster)
        self.servers: str = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for consumer in self._groups.values():
            consumer.close()
        self._library.rd_kafka_mock_cluster_destroy(self._cluster)
        self._library.rd_kafka_destroy(self._client)

    @property
    def url(self) -> str:
        """As the command takes it."""
        return f"kafka://{self.servers}"

    def create_topic(self, topic: str, partitions: int) -> None:
        assert self._library.rd_kafka_mock_topic_create(self._cluster, topic.encode(), partitions, 1) == 0

    def stop(self) -> None:
        """Close all connections and take no more; what the broker holds stays."""
        assert self._library.rd_kafka_mock_broker_set_down(self._cluster, _BROKER) == 0

    def start(self) -> None:
        assert self._library.rd_kafka_mock_broker_set_up(self._cluster, _BROKER) == 0

    def answer(self, request: str, *errors: int) -> None:
        """Answer the next requests of a kind by these errors."""
        array = (ctypes.c_int * len(errors))(*errors)
        self._library.rd_kafka_mock_push_request_errors_array(self._cluster, _API_KEYS[request], len(errors), array)

    def asked(self, request: str) -> int:
        """How many requests of a kind have come."""
        count = ctypes.c_size_t()
        requests = self._library.rd_kafka_mock_get_requests(self._cluster, ctypes.byref(count))
        keys = [self._library.rd_kafka_mock_request_api_key(request) for request in requests[: count.value]]
        self._library.rd_kafka_mock_request_destroy_array(requests, count)
        return keys.count(_API_KEYS[request])

    def produce(self, topic: str, messages: Sequence[_Message], partitions: int = 1) -> None:
        """Append messages, spread over the partitions in turn; returns when the broker has them."""
        producer = Producer({"bootstrap.servers": self.servers, "linger.ms": 1000})
        for number, message in enumerate(messages):
            value, headers = message if isinstance(message, tuple) else (message, [])
            producer.produce(topic, value=value, headers=headers, partition=number % partitions)
        assert producer.flush(_TIMEOUT) == 0

    def committed(self, topic: str, group: str, partitions: int = 1) -> int:
        """How many messages the group has acknowledged, of a topic from which none was removed."""
        if group not in self._groups:
            self._groups[group] = Consumer({"bootstrap.servers": self.servers, "group.id": group})
        asked = [TopicPartition(topic, partition) for partition in range(partitions)]
        offsets = self._groups[group].committed(asked, timeout=_TIMEOUT)
        return sum(max(partition.offset, 0) for partition in offsets)
