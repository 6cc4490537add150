"""Where test runs are read from: event files, a version of a lake, or the warehouse."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from conductor_training.test_failure.describing import Origin
from conductor_training.test_failure.jobs import Runs, read_runs
from conductor_training.test_failure.stored_runs import lake_runs, warehouse_runs
from conductor_warehouse.lake import Lake
from conductor_warehouse.settings import WarehouseSettings


def read_history(
    events: Sequence[Path],
    tenant_id: str | None,
    until: datetime | None,
    *,
    lake: str | None = None,
    lake_version: str | None = None,
    url: str | None = None,
) -> tuple[Runs, Origin]:
    """Runs of a tenant (or of all) that ended before ``until``. ``url`` is the warehouse's; else that of the settings.

    Raises:
        ValueError, OSError: an event file can't be read.
        DatabaseNotConfigured: nobody said where the warehouse is.
        psycopg.Error: it does not answer.
        LakeError: the lake can't be read, or has no such version.
    """
    if events:
        return read_runs(events, tenant_id, until), Origin(until)
    if lake is not None:
        opened = Lake.open(lake)
        digest, version = opened.version(lake_version)
        return lake_runs(opened, version, tenant_id, until), Origin(until, digest)
    address = WarehouseSettings.from_flags(database_url=url).require_database_url()
    return warehouse_runs(address, tenant_id, until), Origin(until)
