"""Requests from what a caller says."""

from collections.abc import Iterable, Mapping
from typing import cast

from conductor.build.v1.build_context_pb2 import BuildContext
from conductor.prediction.v1.build_duration_pb2 import (
    BatchPredictBuildDurationsRequest,
    PredictBuildDurationRequest,
)
from conductor_client.builds import BuildFields, build_context


def single_request(
    tenant_id: str, build: BuildContext | None, fields: BuildFields, contribution_count: int | None
) -> PredictBuildDurationRequest:
    """The request for one build. Raises TypeError or ValueError for what no request can hold."""
    return PredictBuildDurationRequest(
        tenant_id=tenant_id,
        build=build_context(build, cast(Mapping[str, object], fields)),
        contribution_count=contribution_count,
    )


def batch_request(
    tenant_id: str, builds: Iterable[BuildContext | BuildFields], contribution_count: int | None
) -> BatchPredictBuildDurationsRequest:
    """The request for many builds. Raises as `single_request`."""
    return BatchPredictBuildDurationsRequest(
        tenant_id=tenant_id,
        requests=[
            single_request("", build, {}, contribution_count)
            if isinstance(build, BuildContext)
            else single_request("", None, build, contribution_count)
            for build in builds
        ],
    )
