"""Errors as typed exceptions, from the status that a server sends."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from typing import cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import (  # type: ignore[import-untyped, unused-ignore]
    BadRequest,
    ErrorInfo,
    RetryInfo,
)
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped, unused-ignore]

DOMAIN = "conductor"
_DETAILS_KEY = "grpc-status-details-bin"
_PUSHBACK_KEY = "grpc-retry-pushback-ms"


class ErrorReason(IntEnum):
    """Why a call failed: ``conductor.errors.v1.ErrorReason`` without the prefix. A reason unknown to this client,
    and an error that didn't come from Conductor itself, is UNSPECIFIED: act on the exception's class."""

    UNSPECIFIED = 0
    INVALID_FIELD = 1
    BATCH_TOO_LARGE = 2
    CREDENTIALS_INVALID = 3
    TENANT_MISMATCH = 4
    OVERLOADED = 5
    TENANT_OVERLOADED = 6
    NO_PREDICTION = 7
    WAREHOUSE_UNAVAILABLE = 8
    DEADLINE_TOO_SHORT = 9
    INTERNAL = 10
    STOPPING = 11
    MODEL_NOT_FOUND = 12
    MODEL_FAILED = 13
    MODEL_MOVED = 14
    MODEL_DAMAGED = 15
    MODEL_STORE_UNAVAILABLE = 16
    MODEL_ADMIN_REQUIRED = 17
    ROLE_REQUIRED = 18
    AUDIT_UNAVAILABLE = 19
    MODEL_AUTHORITY_MISSING = 20
    RATE_LIMITED = 21


@dataclass(frozen=True)
class FieldViolation:
    """A field that breaks its rule."""

    field: str
    """Path of the field, for example ``build.repository``."""
    description: str


class ConductorError(Exception):
    """A call, or one item of a batch, failed."""

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        reason: ErrorReason = ErrorReason.UNSPECIFIED,
        metadata: Mapping[str, str] | None = None,
        field_violations: Iterable[FieldViolation] = (),
        retry_delay: timedelta | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        """The gRPC status code."""
        self.message = message
        """For people; never parse it."""
        self.reason = reason
        self.metadata = dict(metadata or {})
        """What belongs to the reason, for example ``limit``."""
        self.field_violations = tuple(field_violations)
        """The fields that an InvalidRequest is about."""
        self.retry_delay = retry_delay
        """How long the server asks to wait before trying again, if it says so."""

    def __str__(self) -> str:
        reason = f" ({self.reason.name})" if self.reason else ""
        fields = "".join(f"; {violation.field}: {violation.description}" for violation in self.field_violations)
        return f"{self.code.name}{reason}: {self.message}{fields}"


class InvalidRequest(ConductorError):
    """INVALID_ARGUMENT: a field breaks its rule or the batch is too large. Trying again gives the same."""


class Unauthenticated(ConductorError):
    """UNAUTHENTICATED: no credentials, or ones that don't hold."""


class PermissionDenied(ConductorError):
    """PERMISSION_DENIED: the credentials are not for this tenant, or do not allow this."""


class NotFound(ConductorError):
    """NOT_FOUND: there is no such model, or none that this tenant may know of."""


class Overloaded(ConductorError):
    """RESOURCE_EXHAUSTED: the server or the tenant's share of it is full (or a message is too large). Back off."""


class Unavailable(ConductorError):
    """UNAVAILABLE: the server can't be reached, is stopping, or has nothing to answer from."""


class DeadlineExceeded(ConductorError):
    """DEADLINE_EXCEEDED: no answer came in time."""


class InternalError(ConductorError):
    """INTERNAL, UNKNOWN or DATA_LOSS: a defect of the server."""


_CLASSES: dict[grpc.StatusCode, type[ConductorError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.INTERNAL: InternalError,
    grpc.StatusCode.UNKNOWN: InternalError,
    grpc.StatusCode.DATA_LOSS: InternalError,
}
_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def error_from_status(status: Status, retry_delay: timedelta | None = None) -> ConductorError:
    """Turn a ``google.rpc.Status`` (of a batch item, or from a call's trailing metadata) into an exception."""
    reason, metadata, violations = ErrorReason.UNSPECIFIED, dict[str, str](), list[FieldViolation]()
    for detail in status.details:
        info, request, retry = ErrorInfo(), BadRequest(), RetryInfo()
        try:
            if detail.Unpack(info):
                if info.domain == DOMAIN and info.reason in ErrorReason.__members__:
                    reason = ErrorReason[info.reason]
                metadata.update(info.metadata)
            elif detail.Unpack(request):
                violations += [FieldViolation(item.field, item.description) for item in request.field_violations]
            elif detail.Unpack(retry):
                retry_delay = retry.retry_delay.ToTimedelta()
        except DecodeError:
            continue  # the code still tells what to do
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    return _CLASSES.get(code, ConductorError)(
        code,
        status.message,
        reason=reason,
        metadata=metadata,
        field_violations=violations,
        retry_delay=retry_delay,
    )


def error_from_rpc(error: grpc.RpcError) -> ConductorError:
    """Turn what gRPC raised (sync or aio) into an exception."""
    call = cast(grpc.Call, error)  # every RpcError that a call raises is one, in both of gRPC's APIs
    code = call.code()
    status = Status(code=code.value[0], message=call.details() or "")
    retry_delay = None
    for key, value in _trailing_metadata(call):
        if key == _DETAILS_KEY and isinstance(value, bytes):
            try:
                details = Status.FromString(value)
            except DecodeError:
                continue
            if details.code == status.code:  # else something between us and the server changed the outcome
                status = details
        elif key == _PUSHBACK_KEY and str(value).isdecimal():
            retry_delay = timedelta(milliseconds=int(value))
    return error_from_status(status, retry_delay)


def _trailing_metadata(call: grpc.Call) -> Iterable[tuple[str, str | bytes]]:
    found: Iterable[tuple[str, str | bytes]] | None = call.trailing_metadata()
    return found or ()  # None where the call never reached a server, whatever the type says
