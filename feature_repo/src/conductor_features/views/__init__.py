"""Feature views by key. A new view is a new file here, listed below."""

from __future__ import annotations

from collections.abc import Mapping

from conductor_features.views.base import Field, View
from conductor_features.views.builds import BRANCH_BUILDS, BUILD_VIEWS, PIPELINE_BUILDS, REPOSITORY_BUILDS, TENANT_LOAD
from conductor_features.views.flakiness import TEST_FLAKINESS
from conductor_features.views.quality import QUALITY_METRIC, TENANT_USAGE
from conductor_features.views.tests import PATH_CHANGES, TEST_HISTORY, TEST_PATH_AFFINITY

__all__ = [
    "BRANCH_BUILDS",
    "BUILD_VIEWS",
    "PATH_CHANGES",
    "PIPELINE_BUILDS",
    "QUALITY_METRIC",
    "REPOSITORY_BUILDS",
    "TENANT_LOAD",
    "TENANT_USAGE",
    "TEST_FLAKINESS",
    "TEST_HISTORY",
    "TEST_PATH_AFFINITY",
    "VIEWS",
    "Field",
    "View",
]

VIEWS: Mapping[str, View] = {
    view.key: view
    for view in (
        *BUILD_VIEWS,
        TEST_HISTORY,
        PATH_CHANGES,
        TEST_PATH_AFFINITY,
        TEST_FLAKINESS,
        QUALITY_METRIC,
        TENANT_USAGE,
    )
}
"""What a feature view is. One definition serves the warehouse, Feast, the online store, training and the server."""
