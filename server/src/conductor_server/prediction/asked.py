"""What is asked, by whom, and until when."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from conductor_rpc.call import Call, Deadline, Stage
from conductor_server.prediction.columns import Question


class Asked(NamedTuple):
    """A question with who asks it."""

    tenant_id: str
    question: Question
    deadline: Deadline
    call: Call | None = None
    """What the time that it takes is told of."""
    waiting: Stage | None = None
    """That of waiting for its batch."""
    resuming: Stage | None = None
    """That of waiting for its turn, when the batch has been answered."""


def calls_of(asked: Iterable[Asked]) -> list[Call]:
    """The calls that ask, each once."""
    return list({id(one.call): one.call for one in asked if one.call is not None}.values())
