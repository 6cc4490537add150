"""The tenant boundary: checked before anything is looked up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.message import Message

from conductor.inference.v2.inference_service_pb2 import ModelInferRequest
from conductor_rpc.call import Identity
from conductor_rpc.exceptions import InvalidRequest, TenantMismatch, Violation

TENANT_PARAMETER = "tenant_id"
"""The parameter of an inference request that names its tenant."""
_FIELD = "tenant_id"


def require_tenant(identity: Identity | None, message: Message) -> str:
    """The tenant that a message is about, which must be the credentials'.

    Without an identity (an insecure process) the message's word is taken. A message that names no tenant, such as
    reflection's, is about the caller's own.

    Raises:
        TenantMismatch: the message names another tenant; the same whether that tenant exists or not.
        InvalidRequest: what should name the tenant is no name.
    """
    named = _NAMED.get(type(message), _field)(message)
    if named is None:
        return identity.tenant_id if identity else ""
    if identity is not None and named != identity.tenant_id:
        raise TenantMismatch
    return named


def _field(message: Any) -> str | None:
    """A field of the message's own: empty names the tenant "", which is nobody's."""
    if _FIELD not in message.DESCRIPTOR.fields_by_name:
        return None
    tenant: str = message.tenant_id
    return tenant


def _parameter(message: ModelInferRequest) -> str | None:
    """The protocol has no field for a tenant, so one may be named by a parameter."""
    if TENANT_PARAMETER not in message.parameters:  # looking it up would add it
        return None
    parameter = message.parameters[TENANT_PARAMETER]
    if parameter.WhichOneof("parameter_choice") != "string_param":
        raise InvalidRequest([Violation(f"parameters.{TENANT_PARAMETER}", "must be a string")])
    named: str = parameter.string_param
    return named


_NAMED: Mapping[type[Message], Callable[[Any], str | None]] = {ModelInferRequest: _parameter}
"""Messages that name their tenant elsewhere than in a field; None where they name none."""
