from __future__ import annotations

from collections.abc import Iterator

import pytest

from faults.conftest import figure
from faults.scene import Scene

__all__ = ["figure"]


@pytest.fixture(scope="package")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One platform for all faults: each test leaves it as it found it, serving in full."""
    with Scene(tmp_path_factory.mktemp("scene")) as scene:
        yield scene
