"""One publication is one trace that tells where its time went; what became of its events is counted."""

from __future__ import annotations

import time
from itertools import pairwise

import grpc.aio
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

import ending
from conductor.events.v1.cloud_event_pb2 import CloudEvent
from conductor.events.v1.event_service_pb2 import PublishEventsRequest
from conductor.events.v1.event_service_pb2_grpc import EventServiceStub
from conductor_rpc import names
from conductor_rpc.telemetry import Telemetry
from conductor_warehouse.app import EventServiceSettings, application
from conductor_warehouse.ingestion import ingest
from conductor_warehouse.settings import WarehouseSettings
from conductor_warehouse.tailing_writer import TailingWriter
from conductor_workbench.embedded import EmbeddedRedis
from rpc.traced import Traced
from warehouse.histories import events_of, random_history
from warehouse.test_event_service import EVENTS, INSECURE

PUBLISH = "conductor.events.v1.EventService/PublishEvents"
STAGES = [
    names.ADMISSION,
    names.INGEST_CONNECTION,
    names.INGEST_PARSE,
    names.INGEST_LOCK,
    names.INGEST_GATE,
    names.INGEST_STORE,
    names.INGEST_FEATURES,
    names.INGEST_COMMIT,
]


class Metered:
    def __init__(self):
        self._reader = InMemoryMetricReader()
        self.telemetry = Telemetry(meter_provider=MeterProvider([self._reader]))

    def points(self, name):
        """Values, or counts of histograms, by attributes."""
        data = self._reader.get_metrics_data()
        return {
            tuple((point.attributes or {}).values()): getattr(point, "value", None) or getattr(point, "count", 0)
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        }

    def eventually(self, name, holds, seconds=60):
        deadline = time.monotonic() + seconds
        while not holds(found := self.points(name)):
            assert time.monotonic() < deadline, found
            time.sleep(0.02)
        return found


async def test_a_publication_is_a_trace_with_its_stages(warehouse_url):
    traced = Traced(ALWAYS_ON)

    async def batches():
        yield PublishEventsRequest(tenant_id="acme", events=EVENTS[:10])

    settings = EventServiceSettings(**INSECURE), WarehouseSettings(database_url=warehouse_url)
    async with (
        application(*settings, telemetry=traced.telemetry) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        await EventServiceStub(channel).PublishEvents(batches())
    assert set(traced.spans) == {PUBLISH, *STAGES}
    root, stages = traced.spans[PUBLISH], [traced.spans[name] for name in STAGES]
    assert all(stage.parent.span_id == root.context.span_id for stage in stages)
    for one, other in pairwise(stages):
        assert one.end_time <= other.start_time, "in this order, one after the other"
    assert stages[-1].end_time <= root.end_time


def test_what_became_of_events_is_counted(warehouse):
    metered = Metered()
    assert metered.points(names.INGEST_EVENTS) == {}
    broken = CloudEvent(id="broken", source="/ci", tenant_id="acme")
    ingest(warehouse, [*EVENTS[:5], EVENTS[0], broken], "acme", telemetry=metered.telemetry)
    found = {outcome: count for (outcome,), count in metered.points(names.INGEST_EVENTS).items()}
    assert found == {"stored": 5, "duplicates": 1, "dead_letters": 1, "parked": 0, "expired": 0}
    assert metered.points(names.STAGE_DURATION)[(names.INGEST_COMMIT,)] == 1, "though it is nobody's call"


def test_a_batch_that_fails_is_not_counted(warehouse):
    metered = Metered()
    warehouse.execute("SET default_transaction_read_only = on")
    with pytest.raises(Exception, match="read-only"):
        ingest(warehouse, EVENTS[:5], "acme", telemetry=metered.telemetry)
    assert metered.points(names.INGEST_EVENTS) == {}
    assert warehouse.info.transaction_status.name == "IDLE"


def test_freshness_is_measured_and_a_writer_that_is_behind_says_so(warehouse, warehouse_url, own_redis: EmbeddedRedis):
    metered = Metered()
    writer = TailingWriter(
        warehouse_url, own_redis.url, poll_seconds=0.05, retry_seconds=0.1, telemetry=metered.telemetry
    )
    assert metered.points(names.ONLINE_BEHIND) == {}, "it does not work yet"
    with ending.thread(writer.run):
        ingest(warehouse, events_of(random_history(seed=61, count=5, tenants=("acme",))), "acme")
        metered.eventually(names.ONLINE_DELAY, lambda found: found.get((), 0) >= 1)
        metered.eventually(names.ONLINE_BEHIND, lambda found: found[()] < 0.5)
        metered.eventually(names.ONLINE_ROWS, lambda found: found[("pipeline_builds_v1",)] > 0)
        own_redis.stop()
        metered.eventually(names.ONLINE_BEHIND, lambda found: found[()] > 0.7)
        own_redis.start()
        metered.eventually(names.ONLINE_BEHIND, lambda found: found[()] < 0.5)


def test_a_writer_that_waits_for_its_turn_is_not_behind(warehouse, warehouse_url, redis_url):
    metered = [Metered(), Metered()]
    writers = [TailingWriter(warehouse_url, redis_url, poll_seconds=0.05, telemetry=one.telemetry) for one in metered]
    with ending.thread(writers[0].run):
        metered[0].eventually(names.ONLINE_BEHIND, lambda found: () in found)
        with ending.thread(writers[1].run):
            time.sleep(0.3)  # time enough to say something wrong
            assert metered[1].points(names.ONLINE_BEHIND) == {}
