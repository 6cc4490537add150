"""`conductor doctor`: what is found on this machine."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from conductor_client.redaction import redacted
from conductor_workbench.datasets.catalogue import DATASETS, data_home, local_files
from conductor_workbench.embedded.postgres import find_postgres_binaries
from conductor_workbench.embedded.redis import find_redis_server

_LEAST_FREE_BYTES = 1 << 30


def examine(directory: Path) -> list[dict[str, object]]:
    """Findings: what, whether it is as it must be, and details."""
    python = f"{platform.python_version()} on {os.cpu_count()} cores"
    return [
        _finding("Python", lambda: python, sys.version_info >= (3, 11)),
        _finding("PostgreSQL", lambda: _given("CONDUCTOR_DATABASE_URL") or f"embedded: {find_postgres_binaries()}"),
        _finding("Redis", lambda: _given("CONDUCTOR_REDIS_URL") or f"embedded: {find_redis_server()}"),
        _finding("model store", lambda: redacted(os.environ.get("CONDUCTOR_MODEL_STORE") or str(directory / "models"))),
        _finding("data sets", _data_sets),
        _finding("free disk", lambda: f"{_free(directory) / 1e9:.1f} GB", _free(directory) > _LEAST_FREE_BYTES),
    ]


def _given(variable: str) -> str:
    # The address itself may hold a password.
    return f"the one that {variable} names" if os.environ.get(variable) else ""


def _finding(what: str, look: Callable[[], str], ok: bool = True) -> dict[str, object]:
    try:
        return {"what": what, "ok": ok, "found": look()}
    except OSError as error:
        return {"what": what, "ok": False, "found": redacted(str(error))}


def _data_sets() -> str:
    home = data_home()
    if home is None:
        return "none (CONDUCTOR_DATA_HOME is not set): the demo simulates builds"
    return ", ".join(f"{name}: {len(local_files(dataset))} files" for name, dataset in DATASETS.items())


def _free(directory: Path) -> int:
    existing = directory.absolute()
    while not existing.exists():
        existing = existing.parent
    return shutil.disk_usage(existing).free
