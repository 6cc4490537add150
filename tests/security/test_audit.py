"""The audit log: every administrative call or attempt is in it before it is answered; what can't be is not done."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import io
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from conductor.model.v1 import model_service_pb2 as messages
from conductor.model.v1.model_service_pb2_grpc import ModelServiceStub
from conductor_client import audit_log
from conductor_client.audit_log import AuditLog, told
from conductor_model_store import ModelStore
from conductor_rpc import audit
from conductor_rpc.roles import OPERATE
from rpc.harness import bearer, failure
from security.installation import MINE, OTHER, Installation, installation
from server.harness import PREDICTOR, publish

_MOST_THREADS = (os.cpu_count() or 1) + 4
"""That asyncio has for what would hold up its loop."""
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = (("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01"),)


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


async def operator(running: Installation) -> tuple[ModelServiceStub, str]:
    """A stub, and a token for it."""
    made = running.credentials
    link = await running.channel(running.predictions, made.certificate("operator"))
    return ModelServiceStub(link), made.keys.token(MINE, roles=[OPERATE])


def promote(version: str, tenant: str = MINE, **fields: Any) -> messages.PromoteModelRequest:
    return messages.PromoteModelRequest(tenant_id=tenant, predictor=PREDICTOR, version=version, **fields)


async def outcome(call: Any) -> tuple[str, str]:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code().name, failure(error).reason
    return "OK", ""


async def test_every_administrative_call_is_noted_before_it_is_answered(tmp_path, redis_url, store):
    versions = [publish(store, bias, MINE).version for bias in (10, 20)]
    async with installation(tmp_path, redis_url, store) as running:
        models, _ = await operator(running)
        made = running.credentials
        key = made.key(roles=[OPERATE])
        secret, token = key.split("_")[2], made.keys.token(MINE, jti="token-7", roles=["predict"])
        rollback = messages.RollbackModelRequest(tenant_id=MINE, predictor=PREDICTOR)
        withdraw = messages.WithdrawModelRequest(
            tenant_id=MINE, predictor=PREDICTOR, channel="canary", detail="a secret"
        )
        asked = [
            (models.PromoteModel, promote(versions[0]), bearer(key), ("OK", "")),
            (models.RollbackModel, rollback, bearer(key), ("OK", "")),
            (models.PromoteModel, promote(versions[0], channel="canary", weight=0.5), bearer(key), ("OK", "")),
            (models.WithdrawModel, withdraw, bearer(key), ("OK", "")),
            (models.PromoteModel, promote("0" * 16), bearer(key), ("NOT_FOUND", "MODEL_NOT_FOUND")),
            (models.PromoteModel, promote(versions[0], OTHER), bearer(key), ("PERMISSION_DENIED", "TENANT_MISMATCH")),
            (
                models.PromoteModel,
                promote(versions[0], global_model=True),
                bearer(key),
                ("PERMISSION_DENIED", "MODEL_ADMIN_REQUIRED"),
            ),
            (models.PromoteModel, promote(versions[0]), bearer(token), ("PERMISSION_DENIED", "ROLE_REQUIRED")),
            (models.PromoteModel, promote(versions[0]), bearer(key[:-1]), ("UNAUTHENTICATED", "CREDENTIALS_INVALID")),
            (models.PromoteModel, promote("x" * 64), bearer(key), ("INVALID_ARGUMENT", "INVALID_FIELD")),
            (models.PromoteModel, promote(f"{key[:60]} x\n"), bearer(key), ("NOT_FOUND", "MODEL_NOT_FOUND")),
        ]
        noted = []
        for method, request, headers, result in asked:
            assert await outcome(method(request, metadata=(*headers, *PARENT))) == result
            fresh = lines(made.audit)[len(noted) :]  # as it stands when the answer is here
            assert [line["phase"] for line in fresh] in (["begun", "ended"], ["refused"]), result
            assert len({line["call_id"] for line in fresh}) == 1
            last = fresh[-1]
            assert (last["code"], last["reason"], last["trace_id"]) == (*result, TRACE)
            assert last["method"] == method._method.decode().removeprefix("/")
            assert last["peer"].startswith("ipv")
            noted += fresh
        first = noted[1]
        key_id = key.split("_")[1]
        assert first | {"time": "", "call_id": "", "peer": ""} == {
            "audit": "conductor",
            "time": "",
            "call_id": "",
            "method": "conductor.model.v1.ModelService/PromoteModel",
            "subject": f"key:{key_id}",
            "tenant_id": MINE,
            "authenticated_by": "api key",
            "credential_id": key_id,
            "peer": "",
            "resource": {
                **{"tenant_id": MINE, "predictor": PREDICTOR, "global_model": False},
                **{"channel": "", "version": versions[0], "weight": 0.0},
            },
            "trace_id": TRACE,
            "code": "OK",
            "reason": "",
            "phase": "ended",
        }
        by_token = next(line for line in noted if line.get("reason") == "ROLE_REQUIRED")
        assert (by_token["subject"], by_token["authenticated_by"], by_token["credential_id"]) == (
            "ci",
            "token",
            "token-7",
        )
        unknown = next(line for line in noted if line.get("reason") == "CREDENTIALS_INVALID")
        assert (unknown["subject"], unknown["tenant_id"]) == ("", "")
        written = made.audit.read_text()
        for kept in (secret[:20], token.rpartition(".")[2], "a secret", key[:60], "Bearer"):
            assert kept not in written
        await models.ListModels(messages.ListModelsRequest(tenant_id=MINE), metadata=bearer(key))
        assert len(lines(made.audit)) == len(noted), "who only looks is not noted"
        assert made.audit.stat().st_mode & 0o777 == 0o600


async def done_without_a_note(running: Installation, store: Path, other: str) -> str:
    """The check: what is asked of an installation whose log can't be written is refused, and not done; else what is."""
    models, token = await operator(running)
    before = ModelStore.open(store).resolve(PREDICTOR, MINE)
    answer = await outcome(models.PromoteModel(promote(other), metadata=bearer(token)))
    if ModelStore.open(store).resolve(PREDICTOR, MINE) != before:
        return "done"
    return "" if answer == ("UNAVAILABLE", "AUDIT_UNAVAILABLE") else f"answered {answer}"


async def test_what_can_not_be_noted_is_not_done(tmp_path, redis_url, store, monkeypatch):
    other, _ = (publish(store, bias, MINE).version for bias in (10, 20))
    async with installation(tmp_path, redis_url, store, audit_file=Path("/dev/full")) as running:
        assert await done_without_a_note(running, store, other) == ""
        # Who only looks, and who is refused, is answered as always.
        models, token = await operator(running)
        await models.ListModels(messages.ListModelsRequest(tenant_id=MINE), metadata=bearer(token))
        denied = models.PromoteModel(promote(other, OTHER), metadata=bearer(token))
        assert await outcome(denied) == ("PERMISSION_DENIED", "TENANT_MISMATCH")

        async def careless(self: object, call: object, request: object) -> None:
            return None

        with monkeypatch.context() as broken:  # the control: the log is asked only when all is done
            broken.setattr(audit.Audit, "begun", careless)
            assert await done_without_a_note(running, store, other) == "done"


async def test_a_log_that_is_locked_holds_up_nothing_else(tmp_path, redis_url, store):
    """Whoever turns the log over may lock it for long. What others do beside the event loop needs its threads."""
    version = publish(store, 10, MINE).version
    async with installation(tmp_path, redis_url, store) as running:
        models, token = await operator(running)
        with running.credentials.audit.open("ab") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            waiting = [
                asyncio.ensure_future(models.PromoteModel(promote(version), metadata=bearer(token), timeout=60))
                for _ in range(2 * _MOST_THREADS)
            ]
            await asyncio.wait(waiting, timeout=0.5)
            await asyncio.wait_for(asyncio.to_thread(int), 10)
            assert not any(call.done() for call in waiting)
        assert {await outcome(call) for call in waiting} == {("OK", "")}


async def test_an_outcome_that_can_not_be_noted_is_told(tmp_path, redis_url, store, monkeypatch):
    other, _ = (publish(store, bias, MINE).version for bias in (10, 20))
    append = AuditLog.append

    def only_begun(self: AuditLog, record: Mapping[str, object]) -> None:
        if record["phase"] == "ended":
            raise OSError(errno.ENOSPC, "no space left on device")
        append(self, record)

    async with installation(tmp_path, redis_url, store) as running:
        models, token = await operator(running)
        monkeypatch.setattr(AuditLog, "append", only_begun)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await models.PromoteModel(promote(other), metadata=bearer(token))
        found = failure(caught.value)
        assert (found.reason, found.metadata) == ("AUDIT_UNAVAILABLE", {"carried_out": "true"})
        assert ModelStore.open(store).resolve(PREDICTOR, MINE).version == other
        assert [line["phase"] for line in lines(running.credentials.audit)] == ["begun"]


async def test_who_is_refused_again_and_again_does_not_fill_the_disk(tmp_path, redis_url, store, monkeypatch):
    monkeypatch.setattr(audit, "_MOST_REFUSED_AT_ONCE", 5.0)
    monkeypatch.setattr(audit, "_MOST_REFUSED_PER_S", 1e-9)
    version = publish(store, 10, MINE).version
    async with installation(tmp_path, redis_url, store) as running:
        models, token = await operator(running)
        for _ in range(20):
            await outcome(models.PromoteModel(promote(version), metadata=bearer("x")))
        assert len(lines(running.credentials.audit)) == 5
        await outcome(models.PromoteModel(promote(version, OTHER), metadata=bearer(token)))
        await outcome(models.PromoteModel(promote(version), metadata=bearer(token)))
        assert [line["phase"] for line in lines(running.credentials.audit)[5:]] == ["refused", "begun", "ended"]
        later = SimpleNamespace(monotonic=lambda: time.monotonic() + 1e10)
        monkeypatch.setattr(audit, "time", later)
        await outcome(models.PromoteModel(promote(version), metadata=bearer("x")))
        assert lines(running.credentials.audit)[-1]["refused_before_count"] == 15


def test_a_line_is_whole_or_not_there(tmp_path, monkeypatch):
    file = tmp_path / "audit.log"
    log = AuditLog(file)
    log.append({"number": 1})
    write = os.write
    monkeypatch.setattr(audit_log.os, "write", lambda descriptor, line: write(descriptor, line[:10]))
    with pytest.raises(OSError, match="no whole line"):
        log.append({"number": 2})
    monkeypatch.undo()
    file.rename(tmp_path / "audit.log.1")  # as log rotation does
    log.append({"number": 3})
    assert [line["number"] for name in ("audit.log.1", "audit.log") for line in lines(tmp_path / name)] == [1, 3]


def test_without_a_file_it_goes_to_standard_error(capsys, monkeypatch):
    AuditLog(None).append({"number": 1})
    assert json.loads(capsys.readouterr().err)["number"] == 1
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(audit_log.sys, "stderr", closed)
    with pytest.raises(OSError, match="closed"):
        AuditLog(None).append({"number": 2})


@pytest.mark.parametrize("value", ["a b", "x" * 64, "a\nb", "é", "Bearer x", '"', "\0"])
def test_free_text_is_not_told(value):
    assert told(value) == "(not told)"
    assert [told(known) for known in ("", "canary", 0.5, True, None)] == ["", "canary", 0.5, True, None]
