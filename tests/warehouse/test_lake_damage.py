"""Damage to a lake's files is told, never read, and mended by a full export."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from conductor_warehouse.ingestion import ingest
from conductor_warehouse.lake import Lake, LakeCorrupt, layout
from conductor_warehouse.lake.export import export
from warehouse.catalogue import TENANTS
from warehouse.lakes import (
    SMALL,
    problems,
    url_of,
)
from warehouse.variants import variant, variant_warehouse  # noqa: F401


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "flipped": _flip,
    "deleted": Path.unlink,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "emptied": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_verify_finds_damage_and_reading_refuses_it(
    warehouse: psycopg.Connection, lake: Lake, tmp_path: Path, damage: str
) -> None:
    url = url_of(warehouse)
    ingest(warehouse, SMALL[:4])
    export(lake, url)
    ingest(warehouse, SMALL[4:])
    export(lake, url)
    name, version = lake.version()
    entry = version.entry("builds", "acme")
    assert entry is not None
    for key in (lake.files(entry).files[0].key, layout.files_key(entry.files_digest), layout.version_key(name)):
        path = tmp_path / "lake" / key
        good = path.read_bytes()
        DAMAGES[damage](path)
        told = [f"{subject}: {problem}" for subject, problem in problems(lake).items()]
        assert any(key in one or one.startswith(f"version {name[:16]}") for one in told), (key, told)
        with pytest.raises(LakeCorrupt, match=key):
            lake.read(lake.version()[1], "builds", "acme")
        path.write_bytes(good)
        assert not problems(lake)
    # A damaged pointer: the one before it is in force, and the next export goes on from there.
    path = tmp_path / "lake" / layout.generation_key(2)
    if damage != "deleted":
        DAMAGES[damage](path)
        if damage != "flipped":  # a flipped byte may leave another valid time: told by no digest
            assert layout.generation_key(2) in problems(lake)
            assert lake.version()[0] == lake.generation(1).version
            assert export(lake, url).version == name
            assert lake.current()[0] == 3


def test_damage_is_mended_by_a_full_export(warehouse: psycopg.Connection, lake: Lake, tmp_path: Path) -> None:
    url = url_of(warehouse)
    ingest(warehouse, SMALL)
    name = export(lake, url).version
    entry = lake.version()[1].entries[0]
    for key in (lake.files(entry).files[0].key, layout.files_key(entry.files_digest), layout.version_key(name)):
        _flip(tmp_path / "lake" / key)
        assert problems(lake)
        assert export(lake, url, full=True).version == name
        assert not problems(lake)
    # Only part of it would leave out the rest.
    _flip(tmp_path / "lake" / layout.version_key(name))
    with pytest.raises(LakeCorrupt):
        export(lake, url, full=True, tenants=["acme"])


def test_verify_finds_rows_of_another_tenant(warehouse: psycopg.Connection, lake: Lake) -> None:
    """Even where digests agree: a version that was made by other means."""
    from dataclasses import replace

    from conductor_warehouse.lake.records import Entry, FileList, digest_of

    ingest(warehouse, SMALL)
    export(lake, url_of(warehouse))
    version = lake.version()[1]
    acme, globex = (version.entry("builds", tenant) for tenant in TENANTS)
    assert acme and globex
    files = FileList("builds", "acme", lake.files(globex).files)
    digest = digest_of(files.to_json())
    lake.objects.put(layout.files_key(digest), files.to_json())
    forged = replace(
        version, entries=tuple(Entry.of(files, digest, None) if one is acme else one for one in version.entries)
    )
    lake.objects.put(layout.version_key(forged.digest), forged.to_json())
    assert not problems(lake)
    assert all("other tenants than 'acme'" in problem for problem in problems(lake, [forged.digest]).values())
    assert len(problems(lake, [forged.digest])) == len(files.files)
