"""Simulated builds: the same seed, the same bytes; what is said to be true is true."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conductor.events.v1.build_pb2 import BuildCompleted
from conductor_warehouse.events import Event as Parsed
from conductor_warehouse.events import parse
from conductor_workbench.cli import simulate as simulate_command
from conductor_workbench.simulate.builds import COLD_START_BUILDS, NOISE_SIGMA, Simulation, simulate
from conductor_workbench.simulate.files import write_simulation


def test_the_same_seed_gives_the_same_file_and_another_one_does_not(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        write_simulation(tmp_path / name, None, tenants=2, builds=50, days=5, seed=seed)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


def test_durations_scatter_around_the_told_median_as_told() -> None:
    facts = [fact for _, _, fact in simulate(Simulation(tenants=3, builds=2_000))]
    ordinary = np.array([np.log(f.duration_seconds / f.median_seconds) for f in facts if f.passed and not f.slowed])
    assert abs(float(np.median(ordinary))) < 0.005
    assert float(ordinary.std()) == pytest.approx(NOISE_SIGMA, rel=0.05)
    slowed = [fact for fact in facts if fact.slowed]
    assert 0.02 < len(slowed) / len(facts) < 0.04


def test_the_last_tenant_is_a_cold_start() -> None:
    tenants = [fact.tenant_id for _, _, fact in simulate(Simulation(tenants=3, builds=40))]
    assert tenants.count("tenant-002-cold") == COLD_START_BUILDS
    assert tenants.count("tenant-000") == 40


def test_every_event_is_one_that_the_warehouse_takes() -> None:
    for queued, completed, fact in simulate(Simulation(tenants=2, builds=60)):
        assert all(isinstance(parse(event.to_json().encode()), Parsed) for event in (queued, completed))
        assert isinstance(completed.data, BuildCompleted)
        assert completed.data.duration.ToMicroseconds() / 1e6 == pytest.approx(fact.duration_seconds, abs=1e-6)


def test_without_a_file_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    simulate_command(tenants=1, builds=3, days=1, seed=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [{"tenants": 0}, {"builds": 0}, {"days": 0}])
def test_senseless_settings_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Simulation(**wrong)
