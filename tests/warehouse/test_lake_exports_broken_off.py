"""Exports that are killed, overtaken or meet each other: a version is in force whole or not at all."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from itertools import count

import psycopg
import pytest

from conductor_warehouse.ingestion import ingest
from conductor_warehouse.lake import Lake, LakeMoved, VersionNotFound, layout
from conductor_warehouse.lake.export import ExportResult, export
from conductor_warehouse.lake.vacuum import vacuum
from warehouse.histories import completed_event, queued_event
from warehouse.lakes import (
    HOUR,
    LATE,
    SMALL,
    Wrapped,
    assert_holds_the_warehouse,
    data_keys,
    problems,
    url_of,
)
from warehouse.variants import variant, variant_warehouse  # noqa: F401


def copy_of(lake: Lake) -> Lake:
    """The same lake, in memory."""
    copy = Lake.open("memory:///")
    for entry in lake.objects.list(""):
        copy.objects.put(entry.key, lake.objects.get(entry.key) or b"")
    return copy


class Killed(Exception):
    """Stands for the process's end: no later write is done either."""


def killed_at(lake: Lake, number: int) -> tuple[Lake, list[str]]:
    """The lake for a process that dies before its write of that number, and the writes that it tried."""
    tried: list[str] = []
    lock = threading.Lock()

    def before(key: str) -> None:
        with lock:
            tried.append(key)
            if len(tried) > number:
                raise Killed

    return Lake(Wrapped(lake.objects, before)), tried


def test_an_export_killed_at_any_step_leaves_the_lake_readable_and_the_next_completes_it(
    warehouse: psycopg.Connection,
) -> None:
    url = url_of(warehouse)
    ingest(warehouse, SMALL)
    base = Lake.open("memory:///")
    old = export(base, url).version
    ingest(warehouse, [queued_event(LATE)])
    whole = Lake.open("memory:///")
    new = export(whole, url)
    resumed = 0
    for number in count():
        lake = copy_of(base)
        dying, tried = killed_at(lake, number)
        try:
            export(dying, url, checkpoint_seconds=0)
        except Killed:
            # Until the pointer has moved the old version is in force, then the new one; nothing in between.
            moved = layout.PROGRESS in tried and layout.generation_key(2) in tried[:-1]
            assert lake.version()[0] == (new.version if moved else old)
            assert not problems(lake)
        else:
            break
        result = export(lake, url)
        assert (result.version, result.generation, result.unchanged) == (new.version, 2, moved)
        resumed += result.resumed
        assert not problems(lake, lake.versions())
        # What the killed export left behind, and the old version, go; what is needed stays.
        vacuum(lake, HOUR, now=datetime.now(UTC) + 2 * HOUR)
        assert data_keys(lake) == data_keys(whole)
        assert lake.versions() == [new.version]
    assert number == len(tried) > 10
    assert resumed > number  # killed exports are gone on with, not begun anew


def test_an_export_into_nothing_killed_at_any_step(warehouse: psycopg.Connection) -> None:
    url = url_of(warehouse)
    ingest(warehouse, SMALL)
    expected = export(Lake.open("memory:///"), url).version
    for number in count(0, 16):
        lake = Lake.open("memory:///")
        dying, tried = killed_at(lake, number)
        try:
            export(dying, url, checkpoint_seconds=0)
        except Killed:
            if layout.generation_key(1) not in tried[:-1]:
                with pytest.raises(VersionNotFound, match="conductor lake export"):
                    lake.version()
        else:
            break
        ingest(warehouse, SMALL)  # nothing new
        assert export(lake, url).version == expected
        assert not problems(lake)
    assert number > 20


def test_what_was_committed_after_a_killed_export_is_not_missed_when_it_is_gone_on_with(
    warehouse: psycopg.Connection, lake: Lake
) -> None:
    url = url_of(warehouse)
    ingest(warehouse, SMALL[:4])
    dying, tried = killed_at(lake, 12)
    with pytest.raises(Killed):
        export(dying, url, checkpoint_seconds=0)
    assert layout.PROGRESS in tried
    ingest(warehouse, [*SMALL[4:], queued_event(LATE), completed_event(LATE)])
    result = export(lake, url)
    assert result.resumed > 0
    assert result.version == export(Lake.open("memory:///"), url).version
    assert_holds_the_warehouse(lake, warehouse)


def test_of_two_exports_at_once_one_wins_and_the_other_begins_anew(warehouse: psycopg.Connection, lake: Lake) -> None:
    url = url_of(warehouse)
    ingest(warehouse, SMALL[:4])
    export(lake, url)
    ingest(warehouse, SMALL[4:6])
    others: list[ExportResult] = []

    def before(key: str) -> None:
        # The moment before this one would have moved the pointer: another does, and more is committed.
        if key == layout.generation_key(2) and not others:
            ingest(warehouse, SMALL[6:])
            others.append(export(lake, url))
            ingest(warehouse, [queued_event(LATE)])

    result = export(Lake(Wrapped(lake.objects, before)), url)
    [other] = others
    assert (other.generation, result.generation) == (2, 3)
    assert lake.generation(2).version == other.version != result.version
    assert result.parts < other.parts  # only what was committed last
    assert not problems(lake, lake.versions())
    assert result.version == export(Lake.open("memory:///"), url).version


def test_an_export_that_is_overtaken_again_and_again_gives_up(
    warehouse: psycopg.Connection, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("conductor_warehouse.lake.export._MOST_ATTEMPTS", 3)
    ingest(warehouse, SMALL[:2])

    class Overtaken(Wrapped):
        def put_if_absent(self, key: str, content: bytes) -> bool:
            return layout.parse_generation_key(key) is None and super().put_if_absent(key, content)

    with pytest.raises(LakeMoved, match="run it again"):
        export(Lake(Overtaken(lake.objects, lambda _: None)), url_of(warehouse))
