"""The lake: the warehouse's history as immutable Parquet files by table, tenant and day, with versions."""

from conductor_warehouse.lake.catalogue import Lake
from conductor_warehouse.lake.errors import LakeCorrupt, LakeError, LakeMoved, LakeUnavailable, VersionNotFound
from conductor_warehouse.lake.records import Generation, LakeVersion

__all__ = [
    "Generation",
    "Lake",
    "LakeCorrupt",
    "LakeError",
    "LakeMoved",
    "LakeUnavailable",
    "LakeVersion",
    "VersionNotFound",
]
