"""Training jobs: from the warehouse to a published model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from conductor_model_store import ModelStore
from conductor_training.build_duration.bundle import PREDICTOR, make_bundle
from conductor_training.build_duration.columns import VIEWS
from conductor_training.build_duration.fit import Fitted, TooLittleHistory, fit_global, fit_tenant
from conductor_training.bundles import Bundle
from conductor_training.frame import BuildFrame, build_frame
from conductor_training.frame_checks import require_fit
from conductor_training.lake_frame import build_frame_from_lake
from conductor_warehouse.lake import Lake, LakeVersion

Progress = Callable[[str], None]
GLOBAL = ""
"""The tenant of the global model."""
_ACTOR = "conductor train"


@dataclass(frozen=True)
class Trained:
    """What became of one model."""

    tenant_id: str
    """Empty for the global model."""
    skipped: str = ""
    """Why there is none; empty where there is one."""
    bundle: Bundle | None = None
    version: str = ""
    """Version in the model store; empty when it was not published."""


ReadFrame = Callable[[str | None], BuildFrame]
"""Reads the frame of a tenant, or of all."""


def warehouse_frames(database_url: str, until: datetime, *, as_served: bool = False) -> ReadFrame:
    """Frames from the warehouse of what was known before ``until``; see ``build_frame``."""
    return lambda tenant_id: build_frame(database_url, VIEWS, until, tenant_id, as_served=as_served)


def lake_frames(lake: Lake, version: LakeVersion, until: datetime, *, as_served: bool = False) -> ReadFrame:
    """The same frames from a version of a lake."""
    return lambda tenant_id: build_frame_from_lake(lake, version, VIEWS, until, tenant_id, as_served=as_served)


def train_build_duration(
    *,
    read_frame: ReadFrame,
    store: ModelStore,
    tenant_id: str | None = None,
    publish: bool = True,
    stage: bool = False,
    progress: Progress = lambda message: None,
) -> Iterator[Trained]:
    """Train from a frame: one tenant's model, or the global one and every tenant's.

    A tenant with too little history is told as skipped, and is served by the global model; where there is none yet, it
    is trained too. Raises what ``read_frame`` raises, FrameRefused, ExportDiffers, or the model store's errors; a model
    is published whole or not at all. With ``stage`` it is stored and signed, and no channel moves.
    """
    progress("features as of their time")
    wants_global = tenant_id is None or store.resolve(PREDICTOR) is None
    frame = read_frame(None if wants_global else tenant_id)
    for finding in require_fit(frame, VIEWS):
        progress(f"{finding.column}: {finding.message}")
    wanted = frame.tenants if tenant_id is None else [tenant_id]
    for scope in ([GLOBAL] if wants_global else []) + wanted:
        name = scope or "global"
        try:
            bundle = _train(frame, scope, lambda step, name=name: progress(f"{name}: {step}"))  # type: ignore[misc]
        except TooLittleHistory as reason:
            yield Trained(scope, skipped=str(reason))
            continue
        version = ""
        if stage:
            version = store.add(bundle.manifest, bundle.graph)[1]
        elif publish:
            version = store.publish(bundle.manifest, bundle.graph, actor=_ACTOR).version
        yield Trained(scope, bundle=bundle, version=version)


def _train(frame: BuildFrame, tenant_id: str, progress: Progress) -> Bundle:
    if frame.rows.empty:
        raise TooLittleHistory("no usable builds")
    rows = frame if tenant_id == GLOBAL else frame.tenant(tenant_id)
    if rows.rows.empty:
        raise TooLittleHistory("no usable builds")
    fitted: Fitted = fit_global(rows, progress) if tenant_id == GLOBAL else fit_tenant(rows, progress)
    progress("export")
    return make_bundle(fitted, rows, tenant_id)
