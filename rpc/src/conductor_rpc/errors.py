"""The one table from exception to status, and the way of a status to the caller."""

from __future__ import annotations

import logging
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped, unused-ignore]

from conductor.errors.v1.error_reason_pb2 import ErrorReason
from conductor_rpc import exceptions

DOMAIN = "conductor"
_DETAILS_KEY = "grpc-status-details-bin"
_PUSHBACK_KEY = "grpc-retry-pushback-ms"
"""What gRPC's own retries obey; RetryInfo is for people's code."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Row:
    """What one kind of exception becomes."""

    code: grpc.StatusCode
    reason: ErrorReason.ValueType
    metadata: Callable[[Any], Mapping[str, str]] = lambda _: {}
    """Metadata of the ErrorInfo, from the exception."""
    details: Callable[[Any], Sequence[Message]] = lambda _: ()
    """Details beside the ErrorInfo, from the exception."""


def _violations(exception: exceptions.InvalidRequest) -> list[Message]:
    fields = [
        error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description)
        for v in exception.violations
    ]
    return [error_details_pb2.BadRequest(field_violations=fields)]


def _batch(exception: exceptions.BatchTooLarge) -> list[Message]:
    field = error_details_pb2.BadRequest.FieldViolation(field=exception.field, description=str(exception))
    return [error_details_pb2.BadRequest(field_violations=[field])]


_Refused = exceptions.Overloaded | exceptions.TenantOverloaded | exceptions.RateLimited


def _retry(exception: _Refused) -> list[Message]:
    info = error_details_pb2.RetryInfo()
    info.retry_delay.FromNanoseconds(int(exception.retry_seconds * 1e9))
    return [info]


def _limit(
    exception: exceptions.BatchTooLarge | exceptions.TenantOverloaded | exceptions.RateLimited,
) -> dict[str, str]:
    return {"limit": f"{exception.limit:g}"}


def _roles(exception: exceptions.RoleRequired) -> dict[str, str]:
    return {"roles": " ".join(exception.roles)}


def _carried_out(exception: exceptions.AuditUnavailable) -> dict[str, str]:
    return {"carried_out": str(exception.carried_out).lower()}


_Code, _Reason = grpc.StatusCode, ErrorReason
TABLE: Mapping[type[exceptions.ConductorError], Row] = {
    exceptions.InvalidRequest: Row(_Code.INVALID_ARGUMENT, _Reason.ERROR_REASON_INVALID_FIELD, details=_violations),
    exceptions.BatchTooLarge: Row(
        _Code.INVALID_ARGUMENT, _Reason.ERROR_REASON_BATCH_TOO_LARGE, metadata=_limit, details=_batch
    ),
    exceptions.CredentialsInvalid: Row(_Code.UNAUTHENTICATED, _Reason.ERROR_REASON_CREDENTIALS_INVALID),
    exceptions.RoleRequired: Row(_Code.PERMISSION_DENIED, _Reason.ERROR_REASON_ROLE_REQUIRED, metadata=_roles),
    exceptions.TenantMismatch: Row(_Code.PERMISSION_DENIED, _Reason.ERROR_REASON_TENANT_MISMATCH),
    exceptions.Overloaded: Row(_Code.RESOURCE_EXHAUSTED, _Reason.ERROR_REASON_OVERLOADED, details=_retry),
    exceptions.TenantOverloaded: Row(
        _Code.RESOURCE_EXHAUSTED, _Reason.ERROR_REASON_TENANT_OVERLOADED, metadata=_limit, details=_retry
    ),
    exceptions.RateLimited: Row(
        _Code.RESOURCE_EXHAUSTED, _Reason.ERROR_REASON_RATE_LIMITED, metadata=_limit, details=_retry
    ),
    exceptions.NoPrediction: Row(_Code.UNAVAILABLE, _Reason.ERROR_REASON_NO_PREDICTION),
    exceptions.ModelNotFound: Row(_Code.NOT_FOUND, _Reason.ERROR_REASON_MODEL_NOT_FOUND),
    exceptions.ModelNotRun: Row(_Code.INTERNAL, _Reason.ERROR_REASON_MODEL_FAILED),
    exceptions.ModelUnknown: Row(_Code.NOT_FOUND, _Reason.ERROR_REASON_MODEL_NOT_FOUND),
    exceptions.ModelMoved: Row(_Code.ABORTED, _Reason.ERROR_REASON_MODEL_MOVED),
    exceptions.ModelDamaged: Row(_Code.FAILED_PRECONDITION, _Reason.ERROR_REASON_MODEL_DAMAGED),
    exceptions.ModelStoreDown: Row(_Code.UNAVAILABLE, _Reason.ERROR_REASON_MODEL_STORE_UNAVAILABLE),
    exceptions.ModelAuthorityMissing: Row(_Code.FAILED_PRECONDITION, _Reason.ERROR_REASON_MODEL_AUTHORITY_MISSING),
    exceptions.ModelAdminRequired: Row(_Code.PERMISSION_DENIED, _Reason.ERROR_REASON_MODEL_ADMIN_REQUIRED),
    exceptions.AuditUnavailable: Row(_Code.UNAVAILABLE, _Reason.ERROR_REASON_AUDIT_UNAVAILABLE, metadata=_carried_out),
    exceptions.WarehouseUnavailable: Row(_Code.UNAVAILABLE, _Reason.ERROR_REASON_WAREHOUSE_UNAVAILABLE),
    exceptions.DeadlineTooShort: Row(_Code.DEADLINE_EXCEEDED, _Reason.ERROR_REASON_DEADLINE_TOO_SHORT),
    exceptions.Stopping: Row(_Code.UNAVAILABLE, _Reason.ERROR_REASON_STOPPING),
}


def to_status(exception: Exception) -> status_pb2.Status:
    """The status of an exception, for a call or for one item of a batch.

    An exception that is not in the table is logged with its traceback and becomes a plain INTERNAL: nothing of it
    reaches the caller but an id to find it in the log by.
    """
    row = TABLE.get(type(exception)) if isinstance(exception, exceptions.ConductorError) else None
    if row is None:
        request_id = uuid.uuid4().hex
        _LOG.error("internal error, request id %s", request_id, exc_info=exception)
        return _status(_Code.INTERNAL, _Reason.ERROR_REASON_INTERNAL, "internal error", {"request_id": request_id}, ())
    return _status(row.code, row.reason, str(exception), row.metadata(exception), row.details(exception))


def reason_of(exception: Exception) -> str:
    """What its ErrorInfo says."""
    row = TABLE.get(type(exception)) if isinstance(exception, exceptions.ConductorError) else None
    return _reason_name(ErrorReason.ERROR_REASON_INTERNAL if row is None else row.reason)


def code_of(status: status_pb2.Status) -> grpc.StatusCode:
    """The gRPC code of a status."""
    return _CODES[status.code]


async def end(
    context: grpc.aio.ServicerContext[Any, Any], status: status_pb2.Status, retry_seconds: float | None = None
) -> None:
    """End a call with a status. ``retry_seconds``: when gRPC's own retries may try again.

    Whatever the method then returns is not sent: gRPC looks whether the call was aborted before it goes on.
    """
    metadata: tuple[tuple[str, str | bytes], ...] = ((_DETAILS_KEY, status.SerializeToString()),)
    if retry_seconds is not None:
        metadata = (*metadata, (_PUSHBACK_KEY, str(math.ceil(retry_seconds * 1000))))
    try:
        await context.abort(code_of(status), status.message, metadata)
    except grpc.aio.AbortError as aborted:
        # gRPC keeps it with the call. On its way out it would gather all frames of the call, and so the call itself:
        # fifty objects in a circle, which of a thousand refusals a second make long pauses for garbage collection.
        aborted.__traceback__ = aborted.__context__ = None


def _status(
    code: grpc.StatusCode,
    reason: ErrorReason.ValueType,
    message: str,
    metadata: Mapping[str, str],
    details: Sequence[Message],
) -> status_pb2.Status:
    status = status_pb2.Status(code=code.value[0], message=message)
    info = error_details_pb2.ErrorInfo(reason=_reason_name(reason), domain=DOMAIN, metadata=dict(metadata))
    for detail in (info, *details):
        status.details.add().Pack(detail)
    return status


def _reason_name(reason: ErrorReason.ValueType) -> str:
    return ErrorReason.Name(reason).removeprefix("ERROR_REASON_")


_CODES: Mapping[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
