"""Training and judging models of tests: which fail, and which failures are flaky."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from operator import attrgetter, itemgetter
from pathlib import Path

from conductor.events.v1.test_pb2 import TestCompleted
from conductor_model_store import ModelStore
from conductor_training.bundles import Bundle
from conductor_training.test_failure.bundle import PREDICTOR, make_bundle
from conductor_training.test_failure.describing import Origin
from conductor_training.test_failure.evaluation import Evaluation, evaluate
from conductor_training.test_failure.fit import TooLittleHistory, fit_tenant
from conductor_training.test_failure.flaky_fit import PREDICTOR as FLAKINESS
from conductor_training.test_failure.flaky_fit import fit_flaky_tenant, make_flaky_bundle
from conductor_training.test_failure.frame import Run, TestFrame, frame_of_runs
from conductor_training.test_failure.global_bundle import GLOBAL, make_global_bundle
from conductor_training.test_failure.global_bundle import figures as global_figures
from conductor_training.test_failure.pooling import fit_global
from conductor_warehouse.event_files import read_event_file
from conductor_warehouse.events import Event, parse

Progress = Callable[[str], None]
Runs = Mapping[str, Sequence[Run]]
"""By tenant."""
_ACTOR = "conductor train"


@dataclass(frozen=True)
class TrainedTests:
    """What became of one model."""

    tenant_id: str
    """Empty for the global model."""
    predictor: str = PREDICTOR
    skipped: str = ""
    """Why there is none; empty where there is one."""
    bundle: Bundle | None = None
    version: str = ""
    """Version in the model store; empty when it was not stored."""


def read_runs(paths: Iterable[Path], tenant_id: str | None = None, until: datetime | None = None) -> Runs:
    """The test runs of event files: of a tenant (or of all), that ended before ``until``.

    Of a run that is told again the greatest event by (time, source, id) counts.

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
    for (tenant, _), event in sorted(told.items(), key=itemgetter(0)):
        run = Run.of(tenant, event.data)
        if tenant_id in (None, tenant) and (until is None or run.completed < until.timestamp()):
            by_tenant[tenant].append(run)
    return by_tenant


def train_tests(
    runs: Runs,
    store: ModelStore | None,
    progress: Progress,
    *,
    tenant_id: str | None = None,
    with_global: bool = True,
    stage: bool = False,
    origin: Origin = Origin(),
) -> Iterator[TrainedTests]:
    """Train the global model, and the models of failures and of flakiness of a tenant (or of each); publish them to
    ``store`` if there is one. With ``stage`` they are stored and signed, and no channel moves.

    A tenant without enough history is told as skipped. Raises ExportDiffers or the store's errors; a model is published
    whole or not at all.
    """

    def attempt(scope: str, predictor: str, train: Callable[[], Bundle]) -> TrainedTests:
        try:
            bundle = train()
        except TooLittleHistory as reason:
            return TrainedTests(scope, predictor, skipped=str(reason))
        return TrainedTests(scope, predictor, bundle=bundle, version=_store(store, bundle, stage=stage))

    frames = {tenant: frame_of_runs(own) for tenant, own in runs.items()}
    if with_global and frames:
        tell = partial(_tell, progress, "global")
        yield attempt(GLOBAL, PREDICTOR, lambda: make_global_bundle(fit_global(frames, tell), origin))
    for tenant, frame in frames.items():
        if tenant_id in (None, tenant):
            tell = partial(_tell, progress, tenant)
            yield attempt(tenant, PREDICTOR, partial(_train_failures, frame, tenant, tell, origin))
            yield attempt(tenant, FLAKINESS, partial(_train_flakiness, frame, tenant, tell, origin))


def _train_failures(frame: TestFrame, tenant_id: str, progress: Progress, origin: Origin) -> Bundle:
    return make_bundle(fit_tenant(frame, progress), tenant_id, origin)


def _train_flakiness(frame: TestFrame, tenant_id: str, progress: Progress, origin: Origin) -> Bundle:
    progress("flakiness")
    return make_flaky_bundle(fit_flaky_tenant(frame), tenant_id, origin)


def _store(store: ModelStore | None, bundle: Bundle, *, stage: bool) -> str:
    """The version, empty where it is not stored."""
    if store is None:
        return ""
    if stage:
        return store.add(bundle.manifest, bundle.graph)[1]
    return store.publish(bundle.manifest, bundle.graph, actor=_ACTOR).version


def evaluate_global(runs: Runs, progress: Progress) -> dict[str, object] | None:
    """Figures of the global model tenant by tenant, each held out; None where there are not two to learn from."""
    try:
        frames = {tenant: frame_of_runs(own) for tenant, own in runs.items()}
        fitted = fit_global(frames, partial(_tell, progress, "global"))
    except TooLittleHistory:
        return None
    return global_figures(fitted) if fitted.held_out else None


def evaluate_tests(runs: Runs, progress: Progress) -> Iterator[tuple[str, Evaluation]]:
    """Judge the whole procedure on each tenant's history, from the past only."""
    for tenant_id, own in runs.items():
        yield tenant_id, evaluate(frame_of_runs(own), partial(_tell, progress, tenant_id))


def _tell(progress: Progress, tenant_id: str, step: str) -> None:
    progress(f"{tenant_id}: {step}")
