from __future__ import annotations

from pathlib import Path

import pytest

from faults.conftest import figure, scene
from rpc.harness import Keys
from rpc.secured import authority, secure
from security.installation import KEYS

__all__ = ["authority", "figure", "scene", "secure"]


@pytest.fixture(scope="session")
def keys() -> Keys:
    return KEYS


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Where a model store is made."""
    return tmp_path / "models"
