"""Training and judging test-failure models from event files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter, itemgetter
from pathlib import Path

from conductor.events.v1.test_pb2 import TestCompleted
from conductor_model_store import ModelStore
from conductor_training.bundles import Bundle
from conductor_training.test_failure.bundle import make_bundle
from conductor_training.test_failure.evaluation import Evaluation, evaluate
from conductor_training.test_failure.fit import TooLittleHistory, fit_tenant
from conductor_training.test_failure.frame import Run, frame_of_runs
from conductor_warehouse.event_files import read_event_file
from conductor_warehouse.events import Event, parse

Progress = Callable[[str], None]
Runs = Mapping[str, Sequence[Run]]
"""By tenant."""


@dataclass(frozen=True)
class TrainedTests:
    """What became of one tenant's model."""

    tenant_id: str
    skipped: str = ""
    """Why there is none; empty where there is one."""
    bundle: Bundle | None = None
    version: str = ""
    """Version in the model store; empty when it was not published."""


def read_runs(paths: Iterable[Path]) -> Runs:
    """The test runs of event files; of a run that is told again the greatest event by (time, source, id) counts.

    Raises:
        ValueError: a file can't be read, or holds a test run that the warehouse would reject.
        OSError: a file can't be opened.
    """
    told: dict[tuple[str, str], Event] = {}
    for path in paths:
        for number, line in enumerate(read_event_file(path), start=1):
            event = parse(line)
            if not isinstance(event, Event):
                raise ValueError(f"{path}: event {number}: {event.reason}")
            if isinstance(event.data, TestCompleted):
                key = event.tenant_id, event.data.run_id
                told[key] = max(told.get(key, event), event, key=attrgetter("rank"))
    by_tenant: dict[str, list[Run]] = defaultdict(list)
    for (tenant_id, _), event in sorted(told.items(), key=itemgetter(0)):
        by_tenant[tenant_id].append(Run.of(tenant_id, event.data))
    return by_tenant


def train_tests(runs: Runs, store: ModelStore | None, progress: Progress) -> Iterator[TrainedTests]:
    """Train each tenant's model, and publish it to ``store`` if there is one. Raises ExportDiffers or the store's
    errors."""
    for tenant_id, own in runs.items():
        try:
            fitted = fit_tenant(frame_of_runs(own), partial(_tell, progress, tenant_id))
        except TooLittleHistory as reason:
            yield TrainedTests(tenant_id, skipped=str(reason))
            continue
        bundle = make_bundle(fitted, tenant_id)
        version = store.publish(bundle.manifest, bundle.graph).version if store is not None else ""
        yield TrainedTests(tenant_id, bundle=bundle, version=version)


def evaluate_tests(runs: Runs, progress: Progress) -> Iterator[tuple[str, Evaluation]]:
    """Judge the whole procedure on each tenant's history, from the past only."""
    for tenant_id, own in runs.items():
        yield tenant_id, evaluate(frame_of_runs(own), partial(_tell, progress, tenant_id))


def _tell(progress: Progress, tenant_id: str, step: str) -> None:
    progress(f"{tenant_id}: {step}")
