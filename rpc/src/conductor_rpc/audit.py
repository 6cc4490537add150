"""What of a call comes into the audit log: of administrative calls everything but secrets, of others nothing.

A call that is let through is noted before it is carried out, and with its outcome before it is answered; a refused one
once, with its reason. What can't be noted is not carried out.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped, unused-ignore]
from opentelemetry import propagate, trace

from conductor_client.audit_log import AuditLog, told
from conductor_rpc import names
from conductor_rpc.allowance import Allowance
from conductor_rpc.call import Call
from conductor_rpc.exceptions import AuditUnavailable
from conductor_rpc.roles import AUDITED
from conductor_rpc.telemetry import Telemetry

_LOG = logging.getLogger(__name__)
_RESOURCE = ("tenant_id", "predictor", "global_model", "channel", "version", "weight")
"""Fields of requests that are told. No free text: people write anything into that."""
_MOST_REFUSED_AT_ONCE, _MOST_REFUSED_PER_S = 100.0, 1.0
"""Whoever reaches the port can be refused as often as he likes; the disk must not be filled that way."""


class Audit:
    """The audit log of a process."""

    def __init__(self, log: AuditLog, telemetry: Telemetry) -> None:
        self._log, self._telemetry = log, telemetry
        self._refused = {known: Allowance(_MOST_REFUSED_AT_ONCE, _MOST_REFUSED_PER_S) for known in (False, True)}
        """By whether it is known who was refused: strangers must not use up what tenants' attempts are noted with."""
        self._left_out: Counter[bool] = Counter()
        """How many were not noted since one was."""
        # Of its own: whoever locks the file, or a slow disk, must not hold up what others do beside the event loop.
        self._thread = ThreadPoolExecutor(1, "audit")

    async def begun(self, call: Call, request: object) -> None:
        """Note that a call is about to be carried out.

        Raises:
            AuditUnavailable: it can't be noted, so it must not be.
        """
        if call.method not in AUDITED:
            return
        call.audit_id = uuid.uuid4().hex
        try:
            await self._append(call, request, phase="begun")
        except OSError as error:
            call.audit_id = ""
            _LOG.error("the audit log can't be written, so %s is refused: %s", call.method, error)
            raise AuditUnavailable(carried_out=False) from None

    async def ended(self, call: Call, request: object, status: status_pb2.Status | None = None) -> None:
        """Note what became of a call. ``status``: why it failed or was refused; None where ``call.code`` says all.

        Raises:
            AuditUnavailable: it was carried out, and that can't be noted.
        """
        if call.method not in AUDITED or call.audit_ended:
            return
        call.audit_ended = True
        more: dict[str, object] = {"code": call.code, "reason": _reason(status), "phase": "ended"}
        if not call.audit_id:
            known = call.identity is not None
            if not self._refused[known].take(time.monotonic()):
                self._left_out[known] += 1
                return
            more |= {"phase": "refused", "refused_before_count": self._left_out.pop(known, 0)}
            call.audit_id = uuid.uuid4().hex
        try:
            # A caller who goes away does not take the note with him.
            await asyncio.shield(asyncio.ensure_future(self._append(call, request, **more)))
        except OSError as error:
            _LOG.error(
                "the audit log can't be written; %s by %s ended with %s: %s", call.method, _who(call), more, error
            )
            if status is None and call.code == "OK":
                raise AuditUnavailable(carried_out=True) from None

    async def _append(self, call: Call, request: object, **more: Any) -> None:
        record = {
            "call_id": call.audit_id,
            "method": call.method.removeprefix("/"),
            **_who(call),
            "resource": _resource(request),
            "trace_id": _trace_id(call),
            **more,
        }
        with self._telemetry.stage(names.AUDIT):
            await asyncio.get_running_loop().run_in_executor(self._thread, self._log.append, record)


def _who(call: Call) -> dict[str, object]:
    identity = call.identity
    return {
        "subject": identity.subject if identity else "",
        "tenant_id": identity.tenant_id if identity else "",
        "authenticated_by": identity.authenticated_by if identity else "",
        "credential_id": identity.credential_id if identity else "",
        "peer": call.peer,
    }


def _resource(request: object) -> dict[str, object]:
    if not isinstance(request, Message):
        return {}
    known = request.DESCRIPTOR.fields_by_name
    return {name: told(getattr(request, name)) for name in _RESOURCE if name in known}


def _reason(status: status_pb2.Status | None) -> str:
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status is not None else ():
        if detail.Unpack(info):
            return str(info.reason)
    return ""


def _trace_id(call: Call) -> str:
    """Of the caller's trace; empty where it sent none."""
    parent = propagate.extract({key: value for key, value in call.metadata.items() if isinstance(value, str)})
    trace_id = trace.get_current_span(parent).get_span_context().trace_id
    return f"{trace_id:032x}" if trace_id else ""
