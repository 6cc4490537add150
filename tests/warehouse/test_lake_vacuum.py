"""What no version in use needs is deleted, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from conductor_warehouse.ingestion import ingest
from conductor_warehouse.lake import Lake, VersionNotFound, layout
from conductor_warehouse.lake.export import export
from conductor_warehouse.lake.vacuum import vacuum
from warehouse.histories import completed_event, queued_event
from warehouse.lakes import (
    DAY,
    HOUR,
    LATE,
    SMALL,
    Wrapped,
    problems,
    url_of,
)
from warehouse.variants import variant, variant_warehouse  # noqa: F401


def test_vacuum_keeps_what_versions_in_use_need(warehouse: psycopg.Connection, lake: Lake) -> None:
    url = url_of(warehouse)
    names = []
    for events in (SMALL[:4], [queued_event(LATE)], [completed_event(LATE)], SMALL[4:]):
        ingest(warehouse, events)
        names.append(export(lake, url).version)
    assert len(set(names)) == 4
    now = datetime.now(UTC)
    stored = {entry.key for entry in lake.objects.list("")}
    with pytest.raises(ValueError, match="an hour at least"):
        vacuum(lake, timedelta(minutes=59))
    with pytest.raises(VersionNotFound):
        vacuum(lake, HOUR, keep=["0123456789"], now=now + 2 * HOUR)
    assert vacuum(lake, 30 * DAY).files == 0  # all of them were in force within the last month
    planned = vacuum(lake, HOUR, keep=[names[1][:10]], dry_run=True, now=now + 2 * HOUR)
    assert {entry.key for entry in lake.objects.list("")} == stored
    done = vacuum(lake, HOUR, keep=[names[1][:10]], now=now + 2 * HOUR)
    assert done == planned
    assert (done.generations, done.versions) == (3, 2) and done.files > 0
    assert lake.versions() == sorted({names[1], names[3]})
    assert not problems(lake, lake.versions())
    assert lake.read(lake.version(names[1])[1], "builds", "acme").num_rows > 0
    assert vacuum(lake, HOUR, now=now + 2 * HOUR).files > 0  # nothing keeps it any more
    assert lake.versions() == [names[3]]
    assert not problems(lake)
    assert export(lake, url).unchanged


def test_vacuum_spares_an_export_that_is_under_way(warehouse: psycopg.Connection, lake: Lake) -> None:
    url = url_of(warehouse)
    ingest(warehouse, SMALL[:4])
    export(lake, url)
    ingest(warehouse, SMALL[4:])

    def before(key: str) -> None:
        if key == layout.generation_key(2):
            vacuum(lake, HOUR)

    export(Lake(Wrapped(lake.objects, before)), url)
    assert not problems(lake)
