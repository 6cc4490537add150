"""A recorded history of builds, read from event files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from conductor.build.v1.build_context_pb2 import BuildContext
from conductor.events.v1.build_pb2 import BuildCompleted, BuildOutcome, BuildQueued
from conductor.events.v1.cloud_event_pb2 import CloudEvent
from conductor_workbench.events_file import read_lines


@dataclass(frozen=True)
class Outcome:
    """How a build ended."""

    completed_time: datetime
    passed: bool
    duration_seconds: float | None
    """Seconds from queueing to completion less waits; None where it can't be told."""
    outcome: str


@dataclass
class Build:
    """One build of the history."""

    tenant_id: str
    build_id: str
    context: BuildContext
    queued_time: datetime
    outcome: Outcome | None = None

    @property
    def project(self) -> str:
        """What figures are told by: the repository, behind its tenant where its name does not begin so."""
        repository = self.context.repository
        return repository if repository.startswith(f"{self.tenant_id}/") else f"{self.tenant_id}:{repository}"


@dataclass
class History:
    """Builds in the order in which they were queued, and all events in the order in which they happened."""

    builds: list[Build] = field(default_factory=list)
    events: list[tuple[datetime, CloudEvent]] = field(default_factory=list)

    @property
    def tenants(self) -> list[str]:
        """Tenants, sorted."""
        return sorted({build.tenant_id for build in self.builds})

    def cuts(self, share: float) -> dict[str, datetime]:
        """For each tenant the moment at which ``share`` of its builds had been queued."""
        queued: dict[str, list[datetime]] = {}
        for build in self.builds:
            queued.setdefault(build.tenant_id, []).append(build.queued_time)
        return {tenant: times[min(int(len(times) * share), len(times) - 1)] for tenant, times in queued.items()}


def read_history(paths: Sequence[Path]) -> History:
    """Read event files. Events of other types than builds' are kept and delivered, but not predicted.

    Raises ValueError with the file and line of what can't be read.
    """
    history = History()
    builds: dict[tuple[str, str], Build] = {}
    outcomes: dict[tuple[str, str], Outcome] = {}
    for event in read_lines(paths):
        time = datetime.fromisoformat(event["time"])
        history.events.append((time, cloud_event(event)))
        if event["type"] == "build.queued":
            queued = json_format.ParseDict(event["data"], BuildQueued(), ignore_unknown_fields=True)
            key = (event["tenantid"], queued.build_id)
            builds[key] = Build(*key, queued.context, queued.context.queued_time.ToDatetime(tzinfo=time.tzinfo))
        elif event["type"] == "build.completed":
            completed = json_format.ParseDict(event["data"], BuildCompleted(), ignore_unknown_fields=True)
            outcomes[(event["tenantid"], completed.build_id)] = _outcome(completed, time)
    for key, build in builds.items():
        build.outcome = outcomes.get(key)
    history.builds = sorted(builds.values(), key=lambda build: (build.queued_time, build.tenant_id, build.build_id))
    # Stable: at equal times what is queued stays before what is completed.
    history.events.sort(key=lambda item: (item[0], item[1].type != "build.queued"))
    return history


def cloud_event(event: dict[str, Any]) -> CloudEvent:
    """The proto form of a CloudEvent's JSON form."""
    message = CloudEvent(
        id=event["id"],
        source=event["source"],
        spec_version=event.get("specversion", "1.0"),
        type=event["type"],
        tenant_id=event["tenantid"],
        subject=event.get("subject", ""),
        text_data=json.dumps(event["data"], separators=(",", ":")),
    )
    message.time.FromJsonString(event["time"])
    return message


def _outcome(completed: BuildCompleted, time: datetime) -> Outcome:
    known = completed.HasField("duration")
    return Outcome(
        completed_time=completed.completed_time.ToDatetime(tzinfo=time.tzinfo),
        passed=completed.outcome == BuildOutcome.BUILD_OUTCOME_SUCCESS,
        duration_seconds=completed.duration.ToMicroseconds() / 1e6 if known else None,
        outcome=BuildOutcome.Name(completed.outcome).removeprefix("BUILD_OUTCOME_").lower(),
    )


def count_passed(builds: Iterable[Build]) -> int:
    """How many passed with a usable duration."""
    return sum(1 for build in builds if build.outcome and build.outcome.passed and build.outcome.duration_seconds)
