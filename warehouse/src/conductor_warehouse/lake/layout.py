"""The keys under which the lake keeps its files.

Layout::

    <table>/tenant=<quoted tenant>/date=YYYY-MM-DD/part-<number, 4 digits>-<digest, 16 digits>.parquet
    _catalogue/files/<digest>.json               files of one table and tenant
    _catalogue/versions/<digest>.json            what one version consists of
    _catalogue/generations/<number, 20 digits>.json
    _catalogue/progress.json                     what an export that has not ended yet has done

A tenant's name may hold anything: it is quoted (``conductor_storage.names``). Everything but the progress is written
once and never changed.
"""

from __future__ import annotations

import re
from datetime import date

from conductor_storage import quote_segment, unquote_segment

CATALOGUE = "_catalogue"
FILES = f"{CATALOGUE}/files"
VERSIONS = f"{CATALOGUE}/versions"
GENERATIONS = f"{CATALOGUE}/generations"
PROGRESS = f"{CATALOGUE}/progress.json"

_DIGEST = re.compile(r"[0-9a-f]{64}")
_TABLE = re.compile(r"[a-z][a-z0-9_]{0,62}")
_DATA = re.compile(
    r"(?P<table>[a-z][a-z0-9_]{0,62})/tenant=(?P<tenant>[^/=]*)/date=(?P<day>\d{4}-\d\d-\d\d)/part-\d{4}-[0-9a-f]{16}\.parquet"
)
_GENERATION = re.compile(rf"{GENERATIONS}/([0-9]{{20}})\.json")


def data_key(table: str, tenant_id: str, day: date, number: int, digest: str) -> str:
    """Key of a file of rows: the ``number``-th of its day. Raises ValueError for what can't name anything."""
    if not _TABLE.fullmatch(table):
        raise ValueError(f"{table!r} is no table of the lake")
    return (
        f"{table}/tenant={quote_segment(tenant_id)}/date={day.isoformat()}/"
        f"part-{number:04d}-{_checked(digest)[:16]}.parquet"
    )


def is_data_key(key: str) -> bool:
    """Whether the lake writes rows under such a key."""
    return _DATA.fullmatch(key) is not None


def parse_data_key(key: str) -> tuple[str, str | None, date]:
    """Table, tenant (None where only the rows tell it) and day. Raises ValueError for any other key."""
    found = _DATA.fullmatch(key)
    if not found:
        raise ValueError(f"{key!r} is no key of rows")
    return found["table"], unquote_segment(found["tenant"]), date.fromisoformat(found["day"])


def files_key(digest: str) -> str:
    """Key of the list of one table's and tenant's files."""
    return f"{FILES}/{_checked(digest)}.json"


def version_key(digest: str) -> str:
    """Key of a version."""
    return f"{VERSIONS}/{_checked(digest)}.json"


def generation_key(number: int) -> str:
    """Key of one generation of the pointer."""
    return f"{GENERATIONS}/{number:020d}.json"


def parse_generation_key(key: str) -> int | None:
    """The number of a generation; None for any other key."""
    found = _GENERATION.fullmatch(key)
    return int(found[1]) if found else None


def _checked(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise ValueError(f"{digest!r} is no SHA-256: 64 lower-case hexadecimal digits")
    return digest
