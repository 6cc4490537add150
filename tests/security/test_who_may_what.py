"""Every method × everyone (S4, S5): the table of methods is whole, and what it says is what happens."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path

import grpc
import pytest

from conductor_rpc import onion, roles
from conductor_rpc.call import Identity
from conductor_rpc.roles import METHODS, OPERATE, PREDICT, PUBLISH, ROLES, Access
from rpc.harness import bearer, failure, request, serving
from security.callers import REQUESTS, WITHOUT_TENANT, Caller, ask, methods
from security.installation import MINE, OTHER, Installation, installation
from server.harness import publish

DENIED, UNAUTHENTICATED = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED
OPEN = {
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/List",
    "/grpc.health.v1.Health/Watch",
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
}
"""What probes need; said here again, so that nothing is opened by a slip."""
TENANTS = (MINE, OTHER, "no-such-tenant")
_MOVES = {"PromoteModel", "RollbackModel", "WithdrawModel"}
_OF_TENSORS = {"ModelReady", "ModelMetadata", "ModelConfig", "ModelInfer"}


def wanted(method: str) -> frozenset[str]:
    """The roles that a method should take, said in another way than the table says them."""
    _, service, name = method.split("/")
    if name in _MOVES:
        return frozenset({OPERATE})
    if service.endswith("EventService"):
        return frozenset({PUBLISH})
    if service.endswith(("PredictionService", "TestIntelligenceService")) or name in _OF_TENSORS:
        return frozenset({PREDICT})
    return ROLES


def forgotten(found: Iterable[str], table: Mapping[str, Access]) -> set[str]:
    """Methods that exist, and that the table or these tests don't know."""
    return {method for method in found if method not in table or not (method in REQUESTS or method in OPEN)}


def everything(store: Path) -> str:
    """A digest of the model store."""
    digest = hashlib.sha256()
    for path in sorted(store.rglob("*")):
        if path.is_file():
            digest.update(str(path).encode() + path.read_bytes())
    return digest.hexdigest()


async def breaches(callers: list[Caller], asked: Iterable[str]) -> set[str]:
    """What went otherwise than it should, for everyone and each method.

    Who may call it asks about the own tenant, another and one that is not there; others about one of these by turns.
    """
    found, refusals, turns = set(), set(), itertools.cycle(TENANTS)
    for caller, method in itertools.product(callers, asked):
        may = caller.holds and bool(caller.scopes & wanted(method))
        for tenant in TENANTS if may else (next(turns),):
            refused = await ask(caller, method, tenant)
            told = (refused.code, refused.reason) if refused else None
            if not caller.holds:
                right = told == (UNAUTHENTICATED, "CREDENTIALS_INVALID")
                refusals.add(str(refused))
            elif not may:
                right = told == (DENIED, "ROLE_REQUIRED")
            elif tenant != MINE and method not in WITHOUT_TENANT:
                right = told == (DENIED, "TENANT_MISMATCH")
            else:
                right = told is None or told[0] not in (DENIED, UNAUTHENTICATED)
            if not right:
                found.add(f"{caller.name}: {method} of {tenant}: {told}")
    if len(refusals) > 1:
        found.add(f"refusals differ: {refusals}")
    return found


async def test_every_method_by_everyone(tmp_path, redis_url, store, monkeypatch):
    publish(store, tenant_id=MINE)
    publish(store, tenant_id=OTHER)
    async with installation(tmp_path, redis_url, store) as running:
        before = everything(store)
        everyone, asked = {}, {}
        for process in (running.predictions, running.events):
            everyone[process] = await running.callers(process)
            found = await methods(everyone[process][-1].channel, bearer(running.credentials.keys.token(MINE)))
            assert not forgotten(found, METHODS)
            assert {method for method in found if METHODS[method].without_credentials} == OPEN & set(found)
            asked[process] = [method for method in found if method not in OPEN]
        assert {method for found in asked.values() for method in found} == set(REQUESTS)
        for process, callers in everyone.items():
            assert await breaches(callers, asked[process]) == set()
        assert everything(store) == before
        assert set(running.published) == {MINE}
        await _planted(running, everyone[running.predictions], monkeypatch)


async def _planted(running: Installation, callers: list[Caller], monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: what is broken on purpose is found."""
    some = ["/conductor.model.v1.ModelService/PromoteModel", "/conductor.model.v1.ModelService/GetModel"]
    few = [caller for caller in callers if caller.name in {"key, predict", "revoked key", "certificate, operate"}]
    assert await breaches(few, some) == set()
    with monkeypatch.context() as broken:
        broken.setattr(onion, "require_role", lambda identity, method: None)
        assert any("key, predict: " in found for found in await breaches(few, some))
    with monkeypatch.context() as broken:
        broken.setattr(onion, "require_tenant", lambda identity, message: "")
        assert any(f"of {OTHER}" in found for found in await breaches(few, some))
    with monkeypatch.context() as broken:

        async def anybody(call: object) -> Identity:
            return Identity(MINE, scopes=ROLES)

        broken.setattr(running.predictions._authenticator, "authenticate", anybody)
        assert any("revoked key" in found for found in await breaches(few, some))


def test_a_method_that_the_table_forgets_is_found():
    found = [*METHODS, "/conductor.model.v1.ModelService/DeleteModel"]
    assert forgotten(found, METHODS) == {"/conductor.model.v1.ModelService/DeleteModel"}
    assert forgotten(METHODS, {method: access for method, access in METHODS.items() if "Promote" not in method}) == {
        "/conductor.model.v1.ModelService/PromoteModel"
    }


async def test_a_method_that_the_table_forgets_is_nobodys(secure, keys, authority, monkeypatch):
    method = "/conductor.prediction.v1.PredictionService/PredictBuildDuration"
    token = bearer(keys.token(scope="predict publish operate models:admin"))
    async with serving(**secure) as running, running.stub(authority.credentials()) as stub:
        await stub.PredictBuildDuration(request(), metadata=token)
        monkeypatch.setattr(roles, "METHODS", {name: of for name, of in METHODS.items() if name != method})
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.PredictBuildDuration(request(), metadata=token)
    assert (caught.value.code(), failure(caught.value).reason) == (DENIED, "ROLE_REQUIRED")
