"""What a prediction is asked about, in Python's own terms."""

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import IntEnum
from typing import TypedDict

from google.protobuf.timestamp_pb2 import Timestamp

from conductor.build.v1 import build_context_pb2
from conductor.build.v1.build_context_pb2 import BuildContext, ChangeSet, RepositoryState


class BuildTrigger(IntEnum):
    """What started a build: ``conductor.build.v1.BuildTrigger`` without the prefix."""

    UNSPECIFIED = 0
    PUSH = 1
    PULL_REQUEST = 2
    SCHEDULE = 3
    MANUAL = 4
    OTHER = 5


class BuildFields(TypedDict, total=False):
    """The fields of a ``conductor.build.v1.BuildContext``; repository and pipeline are required."""

    repository: str
    pipeline: str
    branch: str
    trigger: BuildTrigger | str
    """Also by name: "push", "pull-request", …"""
    actor: str
    commit_sha: str
    queued_time: datetime
    """When the build was queued, with a time zone; absent means now."""
    change: ChangeSet
    repository_state: RepositoryState


def build_context(build: BuildContext | None, fields: Mapping[str, object]) -> BuildContext:
    """The message for ``build``, or one made of ``fields``. Raises TypeError for both or neither."""
    if build is not None:
        if fields:
            raise TypeError("give either build or its fields, not both")
        return build
    if not fields:
        raise TypeError("give build, or its fields: at least repository and pipeline")
    values = dict(fields)
    trigger = values.pop("trigger", BuildTrigger.UNSPECIFIED)
    queued_time = values.pop("queued_time", None)
    context = BuildContext(**values)  # type: ignore[arg-type]  # protobuf checks the types of the fields itself
    context.trigger = build_context_pb2.BuildTrigger.ValueType(_trigger(trigger))
    if queued_time is not None:
        context.queued_time.CopyFrom(timestamp(queued_time, "queued_time"))
    return context


def _trigger(value: object) -> BuildTrigger:
    if isinstance(value, str):
        name = value.upper().replace("-", "_")
        if name not in BuildTrigger.__members__:
            raise ValueError(f"{value!r} is no trigger: {', '.join(sorted(BuildTrigger.__members__)).lower()}")
        return BuildTrigger[name]
    return BuildTrigger(value)  # type: ignore[arg-type]  # raises ValueError for anything that isn't one


def timestamp(value: object, name: str) -> Timestamp:
    """The message for a moment. Raises TypeError, with the name, for what is none."""
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise TypeError(f"{name} must be a datetime with a time zone")
    moment = Timestamp()
    moment.FromDatetime(value.astimezone(UTC))
    return moment
