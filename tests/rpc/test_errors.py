"""Every row of the error table, through the wire."""

from __future__ import annotations

import logging

import grpc
import pytest

from conductor_rpc import errors, exceptions
from conductor_rpc.exceptions import Violation
from rpc.harness import failure, request, serving

INVALID, EXHAUSTED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
ROWS = [
    (exceptions.InvalidRequest([Violation("a.b", "is required")]), INVALID, "INVALID_FIELD", {}),
    (exceptions.BatchTooLarge("requests", 7, 5), INVALID, "BATCH_TOO_LARGE", {"limit": "5"}),
    (exceptions.CredentialsInvalid(), grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID", {}),
    (exceptions.RoleRequired({"operate"}), grpc.StatusCode.PERMISSION_DENIED, "ROLE_REQUIRED", {"roles": "operate"}),
    (exceptions.TenantMismatch(), grpc.StatusCode.PERMISSION_DENIED, "TENANT_MISMATCH", {}),
    (exceptions.Overloaded(0.5), EXHAUSTED, "OVERLOADED", {}),
    (exceptions.TenantOverloaded(3, 0.5), EXHAUSTED, "TENANT_OVERLOADED", {"limit": "3"}),
    (exceptions.RateLimited(20.0, 0.5), EXHAUSTED, "RATE_LIMITED", {"limit": "20"}),
    (exceptions.NoPrediction(), UNAVAILABLE, "NO_PREDICTION", {}),
    (exceptions.ModelNotFound("m", "v"), grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", {}),
    (exceptions.ModelNotRun(), grpc.StatusCode.INTERNAL, "MODEL_FAILED", {}),
    (exceptions.ModelUnknown("no such version"), grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", {}),
    (exceptions.ModelMoved("moved meanwhile"), grpc.StatusCode.ABORTED, "MODEL_MOVED", {}),
    (exceptions.ModelDamaged("other content"), grpc.StatusCode.FAILED_PRECONDITION, "MODEL_DAMAGED", {}),
    (exceptions.ModelStoreDown(), UNAVAILABLE, "MODEL_STORE_UNAVAILABLE", {}),
    (exceptions.ModelAdminRequired(), grpc.StatusCode.PERMISSION_DENIED, "MODEL_ADMIN_REQUIRED", {}),
    (exceptions.ModelAuthorityMissing(), grpc.StatusCode.FAILED_PRECONDITION, "MODEL_AUTHORITY_MISSING", {}),
    (exceptions.AuditUnavailable(carried_out=False), UNAVAILABLE, "AUDIT_UNAVAILABLE", {"carried_out": "false"}),
    (exceptions.WarehouseUnavailable(), UNAVAILABLE, "WAREHOUSE_UNAVAILABLE", {}),
    (exceptions.DeadlineTooShort(), grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_TOO_SHORT", {}),
    (exceptions.Stopping(), UNAVAILABLE, "STOPPING", {}),
]


def test_the_table_has_a_row_for_every_error_and_this_test_for_every_row():
    assert {type(exception) for exception, *_ in ROWS} == set(errors.TABLE) == _subclasses(exceptions.ConductorError)


@pytest.mark.parametrize(("exception", "code", "reason", "metadata"), ROWS, ids=lambda v: type(v).__name__)
async def test_row(exception, code, reason, metadata):
    async with serving() as running, running.stub() as stub:
        running.predictions.behaviour = _raising(exception)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.PredictBuildDuration(request())
    found = failure(caught.value)
    assert (found.code, found.reason, found.metadata, found.message) == (code, reason, metadata, str(exception))
    assert found.retry_seconds == (0.5 if code is EXHAUSTED else None)
    pushback = dict(caught.value.trailing_metadata()).get("grpc-retry-pushback-ms")
    assert pushback == ("500" if code is EXHAUSTED else None)
    if reason == "INVALID_FIELD":
        assert found.fields == {"a.b": "is required"}


@pytest.mark.parametrize("exception", [ValueError("secret-42"), KeyError("secret-42"), TimeoutError("secret-42")])
async def test_unknown_exception_is_a_plain_internal(exception, caplog):
    async with serving() as running, running.stub() as stub:
        running.predictions.behaviour = _raising(exception)
        with caplog.at_level(logging.ERROR), pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.PredictBuildDuration(request(), timeout=30)
    found = failure(caught.value)
    assert (found.code, found.reason, found.message) == (grpc.StatusCode.INTERNAL, "INTERNAL", "internal error")
    assert "secret-42" not in repr(caught.value)
    assert found.metadata["request_id"] in caplog.text
    assert "secret-42" in caplog.text, "the log is where the traceback belongs"


def _raising(exception):
    async def behaviour(_):
        raise exception

    return behaviour


def _subclasses(kind):
    return {found for direct in kind.__subclasses__() for found in ({direct} | _subclasses(direct))}
