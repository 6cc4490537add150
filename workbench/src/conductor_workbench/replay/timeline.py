"""What a replay does, in order: deliver events, train at a tenant's cut, ask for predictions.

At equal times a training comes first, then predictions, then events: an answer never rests on anything that had not
happened before its build was queued.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from conductor.events.v1.cloud_event_pb2 import CloudEvent
from conductor_workbench.replay.history import Build, History


@dataclass(frozen=True)
class Deliver:
    """Events to deliver, all of them before the next step."""

    events: list[CloudEvent]


@dataclass(frozen=True)
class Train:
    """Train for this tenant from what has been delivered."""

    tenant_id: str
    until: datetime


@dataclass(frozen=True)
class Ask:
    """Ask for a prediction of this build."""

    build: Build


Step = Deliver | Train | Ask

_TRAIN, _ASK, _EVENT = range(3)


def timeline(history: History, cuts: Mapping[str, datetime]) -> Iterator[Step]:
    """Steps of a replay. Builds queued before their tenant's cut are history; those from it on are asked for."""
    asks = [
        (build.queued_time, _ASK, index, Ask(build))
        for index, build in enumerate(history.builds)
        if build.queued_time >= cuts[build.tenant_id]
    ]
    # A tenant's first question falls on its cut: its model is trained just before.
    trainings = sorted(
        (until, _TRAIN, index, Train(tenant, until)) for index, (tenant, until) in enumerate(cuts.items())
    )
    events = [(time, _EVENT, index, event) for index, (time, event) in enumerate(history.events)]
    steps: Iterable[tuple[datetime, int, int, Train | Ask | CloudEvent]]
    steps = heapq.merge(trainings, asks, events, key=lambda item: item[:3])
    pending: list[CloudEvent] = []
    for _, _, _, step in steps:
        if isinstance(step, CloudEvent):
            pending.append(step)
            continue
        if pending:
            yield Deliver(pending)
            pending = []
        yield step
    if pending:
        yield Deliver(pending)
