"""Each error of the contract is a typed one, whichever client meets it."""

from __future__ import annotations

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo

from client.conftest import Refusal, status
from conductor.build.v1 import build_context_pb2
from conductor.errors.v1 import error_reason_pb2
from conductor.prediction.v1 import provenance_pb2
from conductor_client import (
    BuildTrigger,
    ConductorError,
    DeadlineExceeded,
    ErrorReason,
    FallbackReason,
    FieldViolation,
    InternalError,
    InvalidRequest,
    NotFound,
    Overloaded,
    PermissionDenied,
    PredictionMethod,
    Unauthenticated,
    Unavailable,
    Variant,
)

BUILD = {"repository": "octocat/hello", "pipeline": "ci"}


ROWS = [
    (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", InvalidRequest),
    (grpc.StatusCode.INVALID_ARGUMENT, "BATCH_TOO_LARGE", InvalidRequest),
    (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID", Unauthenticated),
    (grpc.StatusCode.PERMISSION_DENIED, "TENANT_MISMATCH", PermissionDenied),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", Overloaded),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, "TENANT_OVERLOADED", Overloaded),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", Overloaded),
    (grpc.StatusCode.UNAVAILABLE, "NO_PREDICTION", Unavailable),
    (grpc.StatusCode.UNAVAILABLE, "WAREHOUSE_UNAVAILABLE", Unavailable),
    (grpc.StatusCode.UNAVAILABLE, "STOPPING", Unavailable),
    (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_TOO_SHORT", DeadlineExceeded),
    (grpc.StatusCode.INTERNAL, "INTERNAL", InternalError),
    (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", NotFound),
    (grpc.StatusCode.INTERNAL, "MODEL_FAILED", InternalError),
    (grpc.StatusCode.ABORTED, "MODEL_MOVED", ConductorError),
    (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_DAMAGED", ConductorError),
    (grpc.StatusCode.UNAVAILABLE, "MODEL_STORE_UNAVAILABLE", Unavailable),
    (grpc.StatusCode.PERMISSION_DENIED, "MODEL_ADMIN_REQUIRED", PermissionDenied),
    (grpc.StatusCode.PERMISSION_DENIED, "ROLE_REQUIRED", PermissionDenied),
    (grpc.StatusCode.UNAVAILABLE, "AUDIT_UNAVAILABLE", Unavailable),
    (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_AUTHORITY_MISSING", ConductorError),
]


@pytest.mark.parametrize(("code", "reason", "expected"), ROWS, ids=[row[1] for row in ROWS])
async def test_errors_row_by_row(connect, conductor, code, reason, expected):
    info = ErrorInfo(reason=reason, domain="conductor", metadata={"limit": "8"})
    conductor.refusals = [Refusal(code, "no", (info,))]
    async with connect(maximum_attempts=1) as client:
        with pytest.raises(expected) as caught:
            await client.predict_build_duration("acme", **BUILD)
    error = caught.value
    assert type(error) is expected
    assert (error.code, error.reason, error.message) == (code, ErrorReason[reason], "no")
    assert error.metadata == {"limit": "8"}
    assert str(error) == f"{code.name} ({reason}): no"
    assert isinstance(error.__cause__, grpc.RpcError)


def test_the_rows_are_all_the_reasons_and_the_enums_are_the_contracts():
    assert {row[1] for row in ROWS} | {"UNSPECIFIED"} == set(ErrorReason.__members__)
    for ours, theirs, prefix in [
        (ErrorReason, error_reason_pb2.ErrorReason, "ERROR_REASON_"),
        (PredictionMethod, provenance_pb2.PredictionMethod, "PREDICTION_METHOD_"),
        (FallbackReason, provenance_pb2.FallbackReason, "FALLBACK_REASON_"),
        (Variant, provenance_pb2.Variant, "VARIANT_"),
        (BuildTrigger, build_context_pb2.BuildTrigger, "BUILD_TRIGGER_"),
    ]:
        assert {prefix + member.name: member.value for member in ours} == dict(theirs.items())


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
async def test_every_code_without_details_is_a_typed_error_too(connect, conductor, code):
    conductor.refusals = [Refusal(code, "bare")]
    async with connect(maximum_attempts=1) as client:
        with pytest.raises(ConductorError) as caught:
            await client.predict_build_duration("acme", **BUILD)
    assert (caught.value.code, caught.value.reason) == (code, ErrorReason.UNSPECIFIED)
    assert caught.value.message == "bare"


async def test_the_fields_of_an_invalid_request_are_named(connect, conductor):
    violation = BadRequest.FieldViolation(field="build.change.added_line_count", description="must not be negative")
    details = (
        ErrorInfo(reason="INVALID_FIELD", domain="conductor"),
        BadRequest(field_violations=[violation]),
    )
    conductor.refusals = [Refusal(grpc.StatusCode.INVALID_ARGUMENT, "invalid", details)]
    async with connect() as client:
        with pytest.raises(InvalidRequest) as caught:
            await client.predict_build_duration("acme", **BUILD)
    assert caught.value.field_violations == (FieldViolation("build.change.added_line_count", "must not be negative"),)
    assert "build.change.added_line_count: must not be negative" in str(caught.value)


@pytest.mark.parametrize(
    "trailing",
    [
        (("grpc-status-details-bin", b"\xff\xff not a status"),),
        (("grpc-status-details-bin", status(grpc.StatusCode.NOT_FOUND, "another").SerializeToString()),),
    ],
    ids=["garbage", "of another status"],
)
async def test_details_that_can_not_be_believed_are_left_aside(connect, conductor, trailing):
    conductor.refusals = [Refusal(grpc.StatusCode.INTERNAL, "the outer one", trailing=trailing)]
    async with connect() as client:
        with pytest.raises(InternalError, match="the outer one"):
            await client.predict_build_duration("acme", **BUILD)


@pytest.mark.parametrize(("reason", "domain"), [("OVERLOADED", "example.com"), ("NOT_INVENTED_YET", "conductor")])
async def test_foreign_and_future_reasons_are_unspecified(connect, conductor, reason, domain):
    conductor.refusals = [Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "x", (ErrorInfo(reason=reason, domain=domain),))]
    async with connect() as client:
        with pytest.raises(Overloaded) as caught:
            await client.predict_build_duration("acme", **BUILD)
    assert caught.value.reason is ErrorReason.UNSPECIFIED
