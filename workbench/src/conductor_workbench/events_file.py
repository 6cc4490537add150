"""Event files: one CloudEvent in JSON form a line, in the order of their time."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, cast

from google.protobuf import json_format
from google.protobuf.message import Message

EVENT_ORDER = ("build.queued", "build.completed", "test.completed")
"""At equal times what is queued comes before what is completed."""


@dataclass(frozen=True)
class Event:
    """An event on its way into a file."""

    time: datetime
    type: str
    id: str
    source: str
    tenant_id: str
    subject: str
    data: Message

    def to_json(self) -> str:
        """The CloudEvent's JSON form, without a line break."""
        return json.dumps(
            {
                "specversion": "1.0",
                "type": self.type,
                "id": self.id,
                "source": self.source,
                "time": self.time.astimezone(UTC).isoformat().replace("+00:00", "Z"),
                "tenantid": self.tenant_id,
                "subject": self.subject,
                "datacontenttype": "application/json",
                "data": json_format.MessageToDict(self.data),
            },
            separators=(",", ":"),
        )


def write_events(events: Iterable[Event], path: Path) -> int:
    """Write events sorted by time; gzip if the name ends so. The file appears whole or not at all. Returns how many."""
    ordered = sorted(events, key=lambda event: (event.time, EVENT_ORDER.index(event.type), event.tenant_id, event.id))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with _open(partial, "wt", compressed=path.suffix == ".gz") as file:
            for event in ordered:
                file.write(event.to_json() + "\n")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return len(ordered)


def read_lines(paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """The CloudEvents of files as parsed JSON, in the files' order. Raises ValueError with file and line."""
    for path in paths:
        with _open(path, "rt", compressed=path.suffix == ".gz") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    try:
                        yield json.loads(line)
                    except json.JSONDecodeError as error:
                        raise ValueError(f"{path}:{number}: not JSON: {error}") from error


@contextmanager
def _open(path: Path, mode: str, *, compressed: bool) -> Iterator[IO[str]]:
    opener: Any = gzip.open if compressed else open
    with opener(path, mode, encoding="utf-8") as file:
        yield cast(IO[str], file)
