"""The call that is being answered: who asks, and until when."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field

from conductor_rpc.exceptions import DeadlineTooShort


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the credentials say the caller is."""

    tenant_id: str
    subject: str = ""
    scopes: frozenset[str] = frozenset()
    """What the credentials allow: roles and further scopes (``roles.py``). Without any, nothing."""
    expiry_time: float = math.inf
    """When they no longer hold, on the clock of ``time.time()``."""
    authenticated_by: str = ""
    """Kind of the credentials: "token", "api key" or "certificate"."""
    credential_id: str = ""
    """Which of them, for the audit log: id of the key, of the token or of the certificate. No secret."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """The moment by which the call must have been answered: one budget for all of its stages."""

    time: float
    """On the clock of ``time.monotonic()``."""

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The deadline that is so many seconds away."""
        return cls(time.monotonic() + seconds)

    def remaining_seconds(self) -> float:
        """What is left; negative when the deadline has passed."""
        return self.time - time.monotonic()

    def require(self, seconds: float) -> None:
        """Raises:
        DeadlineTooShort: less than so many seconds are left.
        """
        if self.remaining_seconds() < seconds:
            raise DeadlineTooShort


NO_DEADLINE = Deadline(float("inf"))
"""Never comes."""


HANDED_TIME: ContextVar[float] = ContextVar("conductor_handed_time", default=0.0)
"""When gRPC handed over the call of this task, on the clock of ``time.monotonic()``; 0 where it did not. While
the event loop is busy, what is handed over waits for some turns until it is begun with. Where the call waited for its
caller, that counts as later (``handed_calls.py``)."""

_MOST_STAGES = 128
"""A stream may go on for days."""

Attributes = Mapping[str, str | int]
"""What a trace tells of a stage."""


@dataclass(slots=True)
class Stage:
    """A part of a call, or of several at once. Times are of ``time.perf_counter()``."""

    name: str
    began: float
    ended: float | None = None
    """None while it lasts."""
    attributes: Attributes | None = None
    error: str = ""
    """Type of what went wrong with it; empty for nothing."""
    error_text: str = ""
    """What is known of that, for people."""


@dataclass(slots=True)
class Call:
    """One call under way."""

    method: str
    """Full method name, for example ``/conductor.prediction.v1.PredictionService/PredictBuildDuration``; of an item
    of a stream, that of the method that answers the same as a call."""
    metadata: Mapping[str, str | bytes]
    deadline: Deadline
    identity: Identity | None = None
    """None where the process runs insecure, and before it is known."""
    certificate: bytes = b""
    """The certificate (PEM) that the client's end of the connection proved to own; empty where none is asked for."""
    peer: str = ""
    """Network address of the caller, where its calls of this method are audited."""
    tenant_id: str = ""
    """The tenant that a unary request is about; empty for none, and where requests are a stream."""
    code: str = "OK"
    """Name of the status code that it ended with."""
    streams: bool = False
    """Requests or answers are a stream, which lasts as long as its caller likes."""
    stages: list[Stage] | None = None
    """As they began, the first :data:`_MOST_STAGES` of them; None where nobody wants to know."""
    attributes: dict[str, str] = field(default_factory=dict)
    """For its trace."""
    audit_id: str = ""
    """Ties its lines in the audit log together; empty until it has one."""
    audit_ended: bool = False
    """Its outcome is noted there, or can't be."""
    fell_back: bool = False
    """Its answer is less than the best that there is for its tenant."""
    began: float = field(default_factory=time.monotonic)
    """On the clock of ``time.monotonic()``."""
    waited_since: float = 0.0
    """The same, of an item of a stream: when its message came, if it had to wait for a place; else 0."""
    first_answered: float = 0.0
    """The same, of the first message of an answer in several; 0 before, and where requests are a stream."""
    trace_id: int = 0
    """Of its trace, and of its span there: 0 until ``tracing.ids_of`` is asked for them, which few calls need."""
    span_id: int = 0

    def note(self, stage: Stage) -> None:
        """Add a stage that begins."""
        if self.stages is not None and len(self.stages) < _MOST_STAGES:
            self.stages.append(stage)


_CURRENT: ContextVar[Call | None] = ContextVar("conductor_call", default=None)


def current_call() -> Call | None:
    """The call that this task answers, if it answers one."""
    return _CURRENT.get()


def set_current_call(call: Call) -> None:
    """Make it the call of this task. gRPC runs each call in a task of its own, so nothing has to be reset."""
    _CURRENT.set(call)


def current_deadline() -> Deadline:
    """The deadline of the call that this task answers; none at all outside of a call."""
    call = _CURRENT.get()
    return call.deadline if call is not None else NO_DEADLINE
