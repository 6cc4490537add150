"""The definitions by their view's key. A new view is listed here, behind those whose logs it reads."""

from __future__ import annotations

from collections.abc import Mapping

from conductor_warehouse.features.builds import BranchBuilds, PipelineBuilds, RepositoryBuilds, TenantLoad
from conductor_warehouse.features.definition import Definition
from conductor_warehouse.features.flakiness import TestFlakiness
from conductor_warehouse.features.quality import QualityMetric
from conductor_warehouse.features.tests import PathChanges, TestHistory, TestPathAffinity
from conductor_warehouse.features.usage import TenantUsage

_ALL: tuple[Definition, ...] = (
    PipelineBuilds(),
    BranchBuilds(),
    RepositoryBuilds(),
    TenantLoad(),
    TestHistory(),
    PathChanges(),
    TestPathAffinity(),
    TestFlakiness(),  # reads test_history's
    QualityMetric(),
    TenantUsage(),
)
DEFINITIONS: Mapping[str, Definition] = {definition.view.key: definition for definition in _ALL}
