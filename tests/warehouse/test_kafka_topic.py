"""Events of a Kafka topic are stored once each, wherever a consumer is killed and however often they come.

The broker is librdkafka's mock cluster (``mock_kafka.py``).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from confluent_kafka import KafkaError

import ending
from conductor_warehouse.settings import WarehouseSettings
from conductor_warehouse.streams import consumer as consumer_module
from conductor_warehouse.streams.consumer import StreamConsumer
from conductor_warehouse.streams.kafka_topic import KafkaTopic
from conductor_warehouse.streams.selection import source_of
from conductor_warehouse.streams.source import StreamInvalid
from conductor_workbench.embedded import EmbeddedPostgres
from machine import within
from warehouse.catalogue import random_events, state
from warehouse.consuming import die_at, state_at_once, until
from warehouse.mock_kafka import MockKafka

pytestmark = pytest.mark.long

TOPIC, GROUP = "builds.events", "warehouse"
EVENTS = random_events(4, 90)
SESSION = {"session.timeout.ms": "2000", "heartbeat.interval.ms": "200"}
SHORT_SESSION = {"session.timeout.ms": "1000", "heartbeat.interval.ms": "200"}
"""A killed member keeps its partitions for so long."""
LONG_SESSION = {"session.timeout.ms": "45000"}
"""Who is alone has nobody to wait for, and must not lose partitions while a busy machine stands still."""
PARTITIONS = 4
HALVES = {"[0, 1] are taken from", "[2, 3] are taken from"}
COMMAND = str(Path(sys.executable).parent / "conductor")


@pytest.fixture
def kafka() -> Iterator[MockKafka]:
    with MockKafka() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def expected(embedded_postgres: EmbeddedPostgres) -> dict[str, str]:
    return state_at_once(embedded_postgres, EVENTS)


@contextmanager
def _consuming(
    warehouse_url: str,
    kafka: MockKafka,
    name: str = "second",
    batch_size: int = 20,
    properties: Mapping[str, str] = SESSION,
) -> Iterator[StreamConsumer]:
    source = KafkaTopic(
        kafka.url, topic=TOPIC, group=GROUP, consumer=name, batch_size=batch_size, properties=properties
    )
    consumer = StreamConsumer(warehouse_url, source, retry_seconds=0.1)
    with ending.thread(consumer.run, name):
        yield consumer


def _stored(warehouse: psycopg.Connection) -> int:
    return (warehouse.execute("SELECT count(*) FROM inbox").fetchone() or [0])[0]


def _partitions(caplog: pytest.LogCaptureFixture, name: str) -> str:
    """Which the consumer has, as it told."""
    told = [r.getMessage() for r in caplog.records if r.threadName == name and "partitions" in r.getMessage()]
    return told[-1] if told else ""


def test_events_are_stored_once_and_then_committed(
    warehouse_url: str, warehouse: psycopg.Connection, kafka: MockKafka, expected: dict[str, str]
) -> None:
    kafka.create_topic(TOPIC, 1)
    kafka.produce(TOPIC, EVENTS[:50])
    with _consuming(warehouse_url, kafka, properties=LONG_SESSION) as consumer:
        until(lambda: consumer.total.received == 50)
        kafka.produce(TOPIC, EVENTS[40:])  # ten of them again
        until(lambda: consumer.total.received == 100)
        until(lambda: kafka.committed(TOPIC, GROUP) == 100)
    assert (consumer.total.stored, consumer.total.duplicates) == (90, 10)
    assert state(warehouse) == expected


def test_poison_is_parked_and_blocks_nobody(
    warehouse_url: str, warehouse: psycopg.Connection, kafka: MockKafka
) -> None:
    kafka.create_topic(TOPIC, 1)
    attributes = [("ce_specversion", b"1.0"), ("ce_id", b"1")]
    kafka.produce(
        TOPIC,
        [
            b"\xff\xfe garbage",
            b"",
            b'{"type": "build.exploded"}',
            None,
            None,
            (b"{broken", attributes),
            (None, attributes),
        ],
    )
    kafka.produce(TOPIC, EVENTS[:3])
    with _consuming(warehouse_url, kafka, properties=LONG_SESSION) as consumer:
        until(lambda: consumer.total.received == 10)
        until(lambda: kafka.committed(TOPIC, GROUP) == 10)
    assert (consumer.total.stored, consumer.total.dead_letter_count) == (3, 7)
    letters = dict(warehouse.execute("SELECT payload, reason FROM dead_letters").fetchall())
    assert len(letters) == 7
    assert all(letters.values())
    shown = {"topic": TOPIC, "partition": 0, "offset": 4, "key": None, "headers": {}, "value": None}
    assert json.dumps(shown).encode() in letters


def test_attributes_may_be_headers(
    warehouse_url: str, warehouse: psycopg.Connection, kafka: MockKafka, expected: dict[str, str]
) -> None:
    """The binary mode of CloudEvents' Kafka binding."""
    kafka.create_topic(TOPIC, 1)
    messages: list[Any] = []
    for event in EVENTS:
        attributes = json.loads(event)
        data = json.dumps(attributes.pop("data")).encode()
        messages.append((data, [(f"ce_{name}", value.encode()) for name, value in attributes.items()]))
    kafka.produce(TOPIC, messages)
    with _consuming(warehouse_url, kafka, properties=LONG_SESSION) as consumer:
        until(lambda: consumer.total.received == len(EVENTS))
    assert consumer.total.stored == len(EVENTS)
    assert state(warehouse) == expected


def test_two_consumers_share_a_topic(
    warehouse_url: str,
    warehouse: psycopg.Connection,
    kafka: MockKafka,
    expected: dict[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    kafka.create_topic(TOPIC, PARTITIONS)
    with (
        _consuming(warehouse_url, kafka, "one", batch_size=5) as one,
        _consuming(warehouse_url, kafka, "two", batch_size=5) as two,
    ):
        until(lambda: {_partitions(caplog, name).partition("partitions ")[2] for name in ("one", "two")} == HALVES)
        kafka.produce(TOPIC, EVENTS, PARTITIONS)
        until(lambda: kafka.committed(TOPIC, GROUP, PARTITIONS) == len(EVENTS))
    assert min(one.total.stored, two.total.stored) > 0
    assert one.total.stored + two.total.stored == one.total.received + two.total.received == len(EVENTS)
    assert state(warehouse) == expected


def test_partitions_may_be_lost_in_the_middle_of_a_batch(
    warehouse_url: str,
    warehouse: psycopg.Connection,
    kafka: MockKafka,
    expected: dict[str, str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The group goes on without a consumer that takes too long; the other one gets what that one has in hand, too."""
    caplog.set_level("INFO")
    kafka.create_topic(TOPIC, PARTITIONS)
    kafka.produce(TOPIC, EVENTS, PARTITIONS)
    reached, goes_on = threading.Event(), threading.Event()
    ingest = consumer_module.ingest

    def slow(*arguments: Any, **named: Any) -> Any:
        if threading.current_thread().name == "slow" and not goes_on.is_set():
            reached.set()
            assert goes_on.wait(60)
        return ingest(*arguments, **named)

    monkeypatch.setattr(consumer_module, "ingest", slow)
    with _consuming(warehouse_url, kafka, "slow") as first:
        assert reached.wait(60)
        with _consuming(warehouse_url, kafka) as second:
            until(lambda: second.total.received == len(EVENTS))
            goes_on.set()
            until(lambda: "offsets of Kafka topic builds.events are not committed" in caplog.text)
            until(lambda: kafka.committed(TOPIC, GROUP, PARTITIONS) == len(EVENTS))
    assert second.total.stored == len(EVENTS)
    assert first.total.stored == 0 < first.total.duplicates
    assert "trying again" not in caplog.text
    assert state(warehouse) == expected


@pytest.mark.parametrize("point", ["read", "subjects stored", "committed", "acknowledged"])
def test_a_killed_consumer_loses_nothing(
    warehouse_url: str, warehouse: psycopg.Connection, kafka: MockKafka, expected: dict[str, str], point: str
) -> None:
    kafka.create_topic(TOPIC, 1)
    kafka.produce(TOPIC, EVENTS)
    die_at(point, warehouse_url, kafka.url, TOPIC, GROUP, CONDUCTOR_EVENT_STREAM_KAFKA=json.dumps(SHORT_SESSION))
    stored, committed = _stored(warehouse), kafka.committed(TOPIC, GROUP)
    assert committed <= stored < len(EVENTS)  # the last offsets may have been on their way
    assert stored > committed or point != "committed"
    with _consuming(warehouse_url, kafka, properties=SHORT_SESSION) as consumer:
        until(lambda: kafka.committed(TOPIC, GROUP) == len(EVENTS))
    assert (consumer.total.duplicates, consumer.total.stored) == (stored - committed, len(EVENTS) - stored)
    assert state(warehouse) == expected


def test_kafka_and_postgres_may_fail_meanwhile(
    warehouse_url: str,
    warehouse: psycopg.Connection,
    kafka: MockKafka,
    expected: dict[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with _consuming(warehouse_url, kafka) as consumer:
        until(lambda: "not taken from Kafka topic builds.events" in caplog.text)  # there is none yet
        assert "Unknown topic" in caplog.text
        kafka.create_topic(TOPIC, 1)
        kafka.produce(TOPIC, EVENTS[:30])
        until(lambda: consumer.total.received == 30)
        warehouse.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        kafka.produce(TOPIC, EVENTS[30:60])
        until(lambda: consumer.total.received >= 60)
        kafka.stop()
        until(lambda: "Connection refused" in caplog.text)
        kafka.start()
        kafka.produce(TOPIC, EVENTS[60:])
        until(lambda: kafka.committed(TOPIC, GROUP) == len(EVENTS))
    assert state(warehouse) == expected
    told = [record for record in caplog.records if "Connection refused" in record.getMessage()]
    assert len(told) == 1  # of many attempts


def test_a_kafka_that_went_away_does_not_keep_a_consumer_from_stopping(
    warehouse_url: str, warehouse: psycopg.Connection, kafka: MockKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka.create_topic(TOPIC, 1)
    kafka.produce(TOPIC, EVENTS)
    ingest = consumer_module.ingest

    def last(*arguments: Any, **named: Any) -> Any:
        kafka.stop()
        return ingest(*arguments, **named)

    monkeypatch.setattr(consumer_module, "ingest", last)
    with _consuming(warehouse_url, kafka, batch_size=len(EVENTS), properties=LONG_SESSION) as consumer:
        until(lambda: consumer.total.received == len(EVENTS))
        began = time.monotonic()
    assert within(time.monotonic() - began, 10)
    assert consumer.total.stored == _stored(warehouse) == len(EVENTS)


@pytest.mark.parametrize("reconnects", [False, True])
def test_offsets_may_be_refused(
    warehouse_url: str,
    warehouse: psycopg.Connection,
    kafka: MockKafka,
    expected: dict[str, str],
    caplog: pytest.LogCaptureFixture,
    reconnects: bool,
) -> None:
    kafka.create_topic(TOPIC, 1)
    kafka.answer("OffsetCommit", KafkaError.GROUP_AUTHORIZATION_FAILED if reconnects else KafkaError.ILLEGAL_GENERATION)
    kafka.produce(TOPIC, EVENTS)
    with _consuming(warehouse_url, kafka) as consumer:
        until(lambda: kafka.committed(TOPIC, GROUP) == len(EVENTS))
    assert ("Group authorization failed" in caplog.text) == reconnects
    assert ("trying again" in caplog.text) == reconnects
    assert consumer.total.stored == len(EVENTS)
    assert state(warehouse) == expected


def test_the_command_consumes_until_sigterm(
    warehouse_url: str, warehouse: psycopg.Connection, kafka: MockKafka
) -> None:
    kafka.create_topic(TOPIC, 1)
    kafka.produce(TOPIC, EVENTS)
    command = [COMMAND, "warehouse", "consume", "--stream-url", kafka.url, "--stream", TOPIC, "--group", GROUP]
    environment = os.environ | {"CONDUCTOR_DATABASE_URL": warehouse_url}
    with ending.process([*command, "-o", "json"], env=environment, stdout=subprocess.PIPE, text=True) as process:
        until(lambda: _stored(warehouse) == len(EVENTS))
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert json.loads(output)["stored"] == len(EVENTS)
    assert kafka.committed(TOPIC, GROUP) == len(EVENTS)
    assert kafka.asked("LeaveGroup") == 1


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"event_stream_url": "amqp://user:s3cret@queue"}, "redis://, rediss:// or kafka://"),
        ({"event_stream_url": "kafka://user:s3cret@broker:9092"}, "passwords belong into event_stream_kafka"),
        ({"event_stream": "conductor:events"}, "'conductor:events' can't be a topic"),
        ({"event_stream_kafka": {"group.id": "s3cret", "enable.auto.commit": True}}, "enable.auto.commit, group.id"),
        ({"event_stream_kafka": {"sasl.pasword": "s3cret"}}, '"sasl.pasword"'),
        ({"event_stream_kafka": {"security.protocol": "s3cret"}}, '"security.protocol"'),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(StreamInvalid) as refused:
        source_of(WarehouseSettings(**{"event_stream_url": "kafka://broker:9092", "event_stream": TOPIC} | settings))
    assert told in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_the_command_refuses_an_unknown_stream() -> None:
    run = subprocess.run(
        [
            COMMAND,
            "warehouse",
            "consume",
            "--stream-url",
            "amqp://queue",
            "--database-url",
            "postgresql://nowhere/none",
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 2
    assert "must begin with redis://" in run.stderr
