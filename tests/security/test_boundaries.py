"""On the whole system: who may ask for what, what is refused, and that a refusal changes nothing.

Tokens, algorithms, TLS versions and every field's rule are in tests/rpc; events' rules are in tests/warehouse.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime

import grpc
import psycopg
import pytest
import redis

from conductor.build.v1.build_context_pb2 import BuildContext
from conductor.events.v1.cloud_event_pb2 import CloudEvent
from conductor.prediction.v1.build_duration_pb2 import PredictBuildDurationRequest, PredictBuildDurationResponse
from conductor.prediction.v1.prediction_service_pb2_grpc import PredictionServiceStub
from conductor_client import InvalidRequest, Overloaded, PermissionDenied, Unauthenticated, Unavailable
from conductor_client.client import ConductorClient
from faults.scene import Scene

MINE, OTHER, NOBODY = "tenant-000", "tenant-001", "tenant-999"
_KEPT = ("builds", "inbox", "dead_letters", "feature_log_pipeline_builds_v1", "feature_log_tenant_load_v1")


@dataclass(frozen=True)
class Everything:
    """Digests of all that a call could change."""

    tables: str
    rows: str
    models: str


def everything(scene: Scene) -> Everything:
    tables, rows, models = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
    with psycopg.connect(scene.platform.database_url) as connection:
        for table in _KEPT:
            statement = psycopg.sql.SQL("SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {} AS t")
            found = connection.execute(statement.format(psycopg.sql.Identifier(table))).fetchone()
            tables.update(repr(found).encode())
    with redis.Redis.from_url(scene.platform.redis_url) as client:
        for key in sorted(client.scan_iter("*")):
            rows.update(key + (client.get(key) or b""))
    for path in sorted(scene.models.rglob("*")):
        if path.is_file():
            models.update(str(path).encode() + path.read_bytes())
    return Everything(tables.hexdigest(), rows.hexdigest(), models.hexdigest())


def context(**fields: object) -> BuildContext:
    return BuildContext(**({"repository": f"{MINE}/service", "pipeline": "ci"} | fields))  # type: ignore[arg-type]


async def test_another_tenant_is_refused_alike_whether_it_exists_or_not(scene: Scene) -> None:
    before = everything(scene)
    told = []
    async with scene.connect(MINE) as client:
        for tenant in (OTHER, NOBODY, f"{MINE} ", MINE.upper(), f"{MINE}\0", "", "*", f"a/{MINE}"):
            with pytest.raises((PermissionDenied, InvalidRequest)) as refused:
                await client.predict_build_duration(tenant, context())
            if tenant in (OTHER, NOBODY):
                told.append((type(refused.value), refused.value.reason, str(refused.value).replace(tenant, "T")))
            with pytest.raises(PermissionDenied):
                await client.batch_predict_build_durations(tenant, [context()])
    assert told[0] == told[1], "nothing tells an existing tenant from one that is not there"
    async with scene.connect(MINE, scene.platform.events_target) as events:
        for tenant in (OTHER, NOBODY):
            with pytest.raises(PermissionDenied):
                await events.publish_events(tenant, [_event(tenant)])
    assert everything(scene) == before


def _event(tenant: str) -> CloudEvent:
    event = CloudEvent(id="x", source="/x", spec_version="1.0", type="build.queued", tenant_id=tenant, text_data="{}")
    event.time.FromDatetime(datetime.now(UTC))
    return event


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "Bearer"])
async def test_without_a_token_that_holds_nothing_is_told(scene: Scene, token: str) -> None:
    authority = scene.platform.keys.ca_certificate
    async with ConductorClient.connect(
        scene.platform.prediction_target, token=token or None, root_certificates=authority, timeout_seconds=30.0
    ) as client:
        with pytest.raises(Unauthenticated, match="CREDENTIALS_INVALID"):
            await client.predict_build_duration(MINE, context())


async def test_plaintext_is_refused(scene: Scene) -> None:
    token = scene.platform.keys.token(MINE)
    target = scene.platform.prediction_target
    async with ConductorClient.connect(target, token=token, insecure=True, timeout_seconds=30.0) as client:
        with pytest.raises(Unavailable):
            await client.predict_build_duration(MINE, context())


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"repository": ""}, "build.repository"),
        ({"pipeline": ""}, "build.pipeline"),
        ({"repository": "r" * 257}, "build.repository"),
        ({"repository": "a\0b"}, "build.repository"),
        ({"change": {"added_line_count": -1}}, "build.change.added_line_count"),
        (
            {"repository_state": {"test_lines_per_thousand": float("nan")}},
            "build.repository_state.test_lines_per_thousand",
        ),
        (
            {"repository_state": {"test_lines_per_thousand": float("inf")}},
            "build.repository_state.test_lines_per_thousand",
        ),
    ],
)
async def test_a_field_that_breaks_its_rule_is_named(scene: Scene, fields: dict[str, object], named: str) -> None:
    async with scene.connect(MINE) as client:
        with pytest.raises(InvalidRequest) as refused:
            await client.predict_build_duration(MINE, context(**fields))
        assert [violation.field for violation in refused.value.field_violations] == [named]
        # The next call on the same connection is none the worse.
        assert (await client.predict_build_duration(MINE, context())).median.total_seconds() > 0


def test_ten_megabytes_are_refused_and_the_server_goes_on(scene: Scene) -> None:
    before = everything(scene)
    credentials = grpc.ssl_channel_credentials(scene.platform.keys.ca_certificate.read_bytes())
    metadata = (("authorization", f"Bearer {scene.platform.keys.token(MINE)}"),)
    options = [("grpc.max_send_message_length", -1)]
    with grpc.secure_channel(scene.platform.prediction_target, credentials, options) as channel:
        stub = PredictionServiceStub(channel)
        large = PredictBuildDurationRequest(tenant_id=MINE, build=context(branch="b" * 10_000_000))
        with pytest.raises(grpc.RpcError) as refused:
            stub.PredictBuildDuration(large, timeout=30, metadata=metadata)
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        small = PredictBuildDurationRequest(tenant_id=MINE, build=context())
        answer: PredictBuildDurationResponse = stub.PredictBuildDuration(small, timeout=30, metadata=metadata)
        assert answer.duration.ToMicroseconds() > 0
    assert everything(scene) == before


async def test_a_batch_beyond_its_limit_is_refused_whole_and_says_the_limit(scene: Scene) -> None:
    async with scene.connect(MINE) as client:
        with pytest.raises((InvalidRequest, Overloaded), match=r"1,?024"):
            await client.batch_predict_build_durations(MINE, [context()] * 1025)


async def test_no_token_stands_in_a_log(scene: Scene) -> None:
    token = scene.platform.keys.token(MINE)
    async with scene.connect(MINE) as client:
        with pytest.raises(PermissionDenied):
            await client.predict_build_duration(OTHER, context())
    logs = scene.logs()
    assert logs
    assert token.rpartition(".")[2] not in logs
    assert "Bearer" not in logs
    assert "PRIVATE KEY" not in logs
