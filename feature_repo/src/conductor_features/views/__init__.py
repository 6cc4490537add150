"""Feature views by key. A new view is a new file here, listed below."""

from __future__ import annotations

from collections.abc import Mapping

from conductor_features.views.base import Field, View
from conductor_features.views.builds import BRANCH_BUILDS, PIPELINE_BUILDS, REPOSITORY_BUILDS, TENANT_LOAD

__all__ = ["BRANCH_BUILDS", "PIPELINE_BUILDS", "REPOSITORY_BUILDS", "TENANT_LOAD", "VIEWS", "Field", "View"]

VIEWS: Mapping[str, View] = {
    view.key: view for view in (PIPELINE_BUILDS, BRANCH_BUILDS, REPOSITORY_BUILDS, TENANT_LOAD)
}
