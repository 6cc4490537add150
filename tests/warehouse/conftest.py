"""A migrated warehouse for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from conductor_warehouse.lake import Lake


@pytest.fixture
def warehouse(warehouse_url: str) -> Iterator[psycopg.Connection]:
    """A connection to a migrated and empty database."""
    with psycopg.connect(warehouse_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """An empty one, in a folder."""
    return Lake.open(tmp_path / "lake")
