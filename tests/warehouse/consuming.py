"""What the tests of all streams do with a consumer."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence

import psycopg

import programs
from conductor_warehouse.ingestion import ingest
from conductor_workbench.embedded import EmbeddedPostgres
from databases import migrated
from warehouse.catalogue import state

# Kills itself in the second batch, at one of the steps that an event takes.
_KILLED = """
import os, signal, sys, threading
from conductor_warehouse import ingestion
from conductor_warehouse.features import log
from conductor_warehouse.settings import WarehouseSettings
from conductor_warehouse.streams import consumer, selection

url, stream_url, stream, group, point = sys.argv[1:]
batch = 0

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def before(owner, name, when):
    original = getattr(owner, name)
    def replaced(*arguments, **options):
        if batch == 2 and point == when:
            die()
        return original(*arguments, **options)
    setattr(owner, name, replaced)

take = consumer.StreamConsumer._take
def counted(*arguments):
    global batch
    batch += 1
    if batch == 2 and point == "read":
        die()
    take(*arguments)
    if batch == 2 and point == "acknowledged":
        die()
consumer.StreamConsumer._take = counted

before(ingestion, "_store_inbox", "tenants locked")
before(ingestion.subjects, "store", "inbox stored")
before(log, "append", "subjects stored")
before(ingestion.dead_letters, "store", "features stored")
store = consumer.ingest
def ingested(*arguments, **options):
    result = store(*arguments, **options)
    if batch == 2 and point == "committed":
        die()
    return result
consumer.ingest = ingested

source = selection.source_of(
    WarehouseSettings(
        event_stream_url=stream_url,
        event_stream=stream,
        event_stream_group=group,
        event_stream_consumer="first",
        ingest_batch_size=20,
    )
)
consumer.StreamConsumer(url, source).run(threading.Event())
"""
POINTS = (
    "read",
    "tenants locked",
    "inbox stored",
    "subjects stored",
    "features stored",
    "committed",
    "acknowledged",
)


def state_at_once(server: EmbeddedPostgres, events: Sequence[bytes]) -> dict[str, str]:
    """What the events leave behind when they are ingested at once."""
    with migrated(server) as url, psycopg.connect(url, autocommit=True) as connection:
        ingest(connection, events)
        return state(connection)


def die_at(point: str, database_url: str, stream_url: str, stream: str, group: str, **environment: str) -> None:
    """Run a consumer, named "first", that is killed at this step of its second batch of at most 20."""
    code = programs.run(_KILLED, database_url, stream_url, stream, group, point, environment=environment)
    assert code == -signal.SIGKILL


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
