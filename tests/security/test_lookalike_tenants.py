"""S4: a name that is another tenant's, nobody's any more, or looks like the caller's own."""

from __future__ import annotations

import asyncio
import random
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from conductor.prediction.v1.build_duration_pb2 import PredictBuildDurationRequest
from conductor_rpc import onion
from conductor_rpc.tenancy import require_tenant
from faults.scene import Scene
from rpc import harness
from rpc.harness import Authority, Keys, serving
from rpc.secured import secured
from security.attacked import bearer, channel, told_apart
from security.raw_http2 import PREDICT
from security.requests import valid_requests
from security.test_boundaries import MINE, NOBODY, OTHER, everything

LOOKALIKES = (
    f"{MINE} ", f" {MINE}", f"{MINE}\t", f"{MINE}.", f"{MINE}/", f"{MINE}\0", f"{MINE}\0{OTHER}", MINE.upper(),
    MINE.title(), f"team-{MINE}", f"{MINE}-a", MINE[:-1], "*", "tenant-*", "tenant-00?", "tenant-00[0-9]", "%", "_",
    "tenant\u2010000", "t\u0435nant-000", "tenant-00\u041e", "\uff54enant-000", f"{MINE}\u200b", f"\u202e{MINE}",
    unicodedata.normalize("NFD", "t\u00e9nant-000"), "", "'; DROP TABLE builds; --", "../" + MINE, "\N{GRINNING FACE}",
)  # fmt: skip
ROUNDS, TRIES = 60, 3
Ask = Callable[[str], object]


def refusal(calls: grpc.Channel, method: str, content: bytes, metadata: object) -> tuple[object, ...]:
    """All that a caller is told."""
    with pytest.raises(grpc.RpcError) as refused:
        calls.unary_unary(method)(content, timeout=30, metadata=metadata)
    error = refused.value
    return error.code(), error.details(), tuple((pair.key, pair.value) for pair in error.trailing_metadata())


def test_every_method_gives_one_identical_refusal(scene: Scene) -> None:
    before, metadata = everything(scene), bearer(scene, MINE)
    for at, target in enumerate((None, scene.platform.events_target)):
        told, asked = set(), 0
        with channel(scene, target) as calls:
            for name in (OTHER, NOBODY, *LOOKALIKES):
                for method, request in valid_requests(name)[at].items():
                    if "tenant_id" in request.DESCRIPTOR.fields_by_name:
                        told.add(refusal(calls, method, request.SerializeToString(), metadata))
                        asked += 1
        assert asked >= len(LOOKALIKES)
        assert len(told) == 1
        assert next(iter(told))[0] is grpc.StatusCode.PERMISSION_DENIED
    assert everything(scene) == before


def timings(ask: Ask, names: tuple[str, ...]) -> dict[str, list[float]]:
    """How long each refusal takes, asked for in random order, so that what disturbs one disturbs all."""
    chance, found = random.Random(1), {name: [] for name in names}  # type: ignore[var-annotated]
    order = [name for name in names for _ in range(ROUNDS)]
    chance.shuffle(order)
    for name in order:
        began = time.perf_counter()
        ask(name)
        found[name].append(time.perf_counter() - began)
    return found


def distinguishable(ask: Ask, name: str, others: tuple[str, ...]) -> bool:
    """Whether who measures can tell the one name from the others; chance alone does so once in 10⁹."""
    for _ in range(TRIES):
        found = timings(ask, (name, *others))
        if all(told_apart(found[name], found[other]) <= 1 for other in others):
            return False
    return True


def test_the_time_tells_nothing(scene: Scene, figure: Callable[..., None]) -> None:
    metadata = bearer(scene, MINE)
    with channel(scene) as calls:

        def ask(name: str) -> None:
            request = PredictBuildDurationRequest(tenant_id=name, build={"repository": "r", "pipeline": "ci"})
            refusal(calls, PREDICT, request.SerializeToString(), metadata)

        ask(OTHER)
        assert not distinguishable(ask, OTHER, (NOBODY, f"{MINE} ", "t\u0435nant-000", "*"))
        found = timings(ask, (OTHER, NOBODY))
        figure(told_apart=told_apart(found[OTHER], found[NOBODY]))


async def test_the_check_finds_a_server_that_looks_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: whether the tenant exists is looked up before it is refused."""

    def looks_first(identity: object, message: object) -> str:
        if getattr(message, "tenant_id", "") == OTHER:
            time.sleep(0.02)
        return require_tenant(identity, message)  # type: ignore[arg-type]

    monkeypatch.setattr(onion, "require_tenant", looks_first)
    keys, authority = Keys(), Authority(tmp_path)
    async with serving(**secured(tmp_path, keys, authority)) as running:

        def check() -> bool:
            with grpc.secure_channel(running.target, authority.credentials()) as calls:

                def ask(name: str) -> None:
                    content = PredictBuildDurationRequest(tenant_id=name).SerializeToString()
                    refusal(calls, PREDICT, content, harness.bearer(keys.token(MINE)))

                return distinguishable(ask, OTHER, (NOBODY,))

        assert await asyncio.to_thread(check)
