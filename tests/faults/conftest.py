from __future__ import annotations

from collections.abc import Iterator

import pytest

from conductor_workbench.faults.stand import Stand
from faults.scene import Scene


@pytest.fixture(scope="package")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One platform for all faults: each test leaves it as it found it, serving in full."""
    with Scene(tmp_path_factory.mktemp("scene")) as scene:
        yield scene


@pytest.fixture(scope="package")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """A prediction server of two workers with oracle models: each test leaves it as it found it, serving in full."""
    with Stand(tmp_path_factory.mktemp("stand"), workers=2, grace_seconds=0.3) as stand:
        yield stand


@pytest.fixture
def figure(record_property):
    """Records a figure: printed with ``-s``, and kept in ``--junit-xml`` reports."""

    def record(**figures: object) -> None:
        for name, value in figures.items():
            record_property(name, value)
        print("\n    " + ", ".join(f"{n} {v:.4g}" if isinstance(v, float) else f"{n} {v}" for n, v in figures.items()))

    return record
