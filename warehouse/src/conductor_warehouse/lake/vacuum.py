"""Deletes what no version that is kept names any more."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from conductor_warehouse.lake import layout
from conductor_warehouse.lake.catalogue import Lake
from conductor_warehouse.lake.errors import LakeCorrupt, LakeError
from conductor_warehouse.lake.records import Progress

SHORTEST_RETENTION = timedelta(hours=1)
"""Files of an export that is under way are not named by anything yet, and must not be taken for left over."""


@dataclass(frozen=True)
class Vacuumed:
    """What was deleted."""

    generations: int
    versions: int
    files: int
    """Data files."""
    size_bytes: int
    """Of the data files."""


def vacuum(
    lake: Lake,
    retention: timedelta,
    *,
    keep: Collection[str] = (),
    dry_run: bool = False,
    now: datetime | None = None,
) -> Vacuumed:
    """Delete generations that were superseded longer than ``retention`` ago, and what only they needed.

    Left over from exports that were killed, files go too when they are older than that. What a model was trained on is
    kept by naming its version in ``keep``.

    Raises:
        ValueError: the retention is shorter than an hour.
        LakeCorrupt: something that is kept can't be read; nothing was deleted.
        VersionNotFound: a version to keep is not there; nothing was deleted.
    """
    if retention < SHORTEST_RETENTION:
        raise ValueError("files of an export that is under way would be lost: keep them for an hour at least")
    horizon = (now or datetime.now(UTC)) - retention
    numbers = list(lake.generations())
    highest = lake.current()[1]
    if highest is None:
        if numbers:
            raise LakeCorrupt("no generation can be read: nothing is known of what is needed")
        return Vacuumed(0, 0, 0, 0)
    old, live = _generations(lake, highest.number, horizon)
    needed = _needed(lake, live | {highest.version} | {lake.version(name)[0] for name in keep})

    # The pointer first: what is deleted next is then named by nothing.
    for number in old:
        if not dry_run:
            lake.objects.delete(layout.generation_key(number))
    versions = files = size = 0
    for stored in lake.objects.list(""):
        data = layout.is_data_key(stored.key)
        version = stored.key.startswith(f"{layout.VERSIONS}/")
        ours = data or version or stored.key.startswith(f"{layout.FILES}/")
        if not ours or stored.key in needed or stored.modified_time >= horizon:
            continue
        if not dry_run:
            lake.objects.delete(stored.key)
        versions += version
        files += data
        size += stored.size_bytes if data else 0
    return Vacuumed(len(old), versions, files, size)


def _generations(lake: Lake, highest: int, horizon: datetime) -> tuple[list[int], set[str]]:
    """Generations that were superseded before the horizon, and the versions of the others."""
    old: list[int] = []
    live: set[str] = set()
    superseded_time = None
    for number in reversed(list(lake.generations())):
        try:
            generation = lake.generation(number)
        except LakeError:
            continue  # damaged: left for `verify` to tell
        if superseded_time is not None and superseded_time < horizon and number != highest:
            old.append(number)
        else:
            live.add(generation.version)
        superseded_time = generation.exported_time
    return old, live


def _needed(lake: Lake, live: set[str]) -> set[str]:
    """Keys of all that the versions name, and an export that has not ended."""
    lists = {entry.files_digest for digest in live for entry in lake.version(digest)[1].entries}
    unfinished = lake.objects.get(layout.PROGRESS)
    if unfinished is not None:
        done = Progress.from_json(layout.PROGRESS, unfinished).done.values()
        lists |= {entry.files_digest for entry, _ in done if entry is not None}
    keys = {layout.version_key(digest) for digest in live} | {layout.files_key(digest) for digest in lists}
    return keys | {file.key for digest in lists for file in lake.file_list(digest).files}
