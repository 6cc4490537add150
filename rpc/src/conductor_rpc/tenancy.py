"""The tenant boundary: checked before anything is looked up."""

from __future__ import annotations

from google.protobuf.message import Message

from conductor_rpc.call import Identity
from conductor_rpc.exceptions import TenantMismatch

_FIELD = "tenant_id"


def require_tenant(identity: Identity | None, message: Message) -> str:
    """The tenant that a message is about, which must be the credentials'.

    Without an identity (an insecure process) the message's word is taken. A message without a tenant field, such as
    reflection's, is about the caller's own tenant.

    Raises:
        TenantMismatch: the message names another tenant; the same whether that tenant exists or not.
    """
    if _FIELD not in message.DESCRIPTOR.fields_by_name:
        return identity.tenant_id if identity else ""
    tenant: str = message.tenant_id  # type: ignore[attr-defined]
    if identity is not None and tenant != identity.tenant_id:
        raise TenantMismatch
    return tenant
