"""What is published of the global model, and its figures tenant by tenant.

It holds nothing that selections could be promised on: a promise is kept on a tenant's own history.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from conductor.model.v1.model_manifest_pb2 import CandidateMetrics, ProbabilityCalibration
from conductor_training.bundles import Bundle
from conductor_training.test_failure import graph
from conductor_training.test_failure.arithmetic import Array, InNumpy
from conductor_training.test_failure.backtest import Backtest
from conductor_training.test_failure.bundle import PREDICTOR
from conductor_training.test_failure.calibration import METHOD, NONE, BetaCalibration
from conductor_training.test_failure.describing import Exported, Origin, probability_bundle
from conductor_training.test_failure.estimator import CANDIDATES
from conductor_training.test_failure.metrics import log_loss, reliability
from conductor_training.test_failure.pooling import FittedGlobal, pooled_frame
from conductor_training.test_failure.selection import order_figures

GLOBAL = ""
"""The tenant of the global model."""


def make_global_bundle(fitted: FittedGlobal, origin: Origin = Origin()) -> Bundle:
    """Export and describe. Figures are means over tenants, each held out. Raises ExportDiffers."""
    estimator, frame = fitted.estimator, pooled_frame(fitted.frames)
    content = graph.export_graph(estimator).SerializeToString(deterministic=True)
    rate = float(np.mean([own.failed.mean() for own in fitted.frames.values()]))
    calibrated = estimator.calibration != BetaCalibration()
    said = fitted.calibrated if calibrated else fitted.raw
    return probability_bundle(
        PREDICTOR,
        GLOBAL,
        estimator.candidate.name,
        Exported(content, graph.PROBABILITY, frame, estimator.predict(frame.inputs)),
        origin,
        rate=rate,
        calibration=ProbabilityCalibration(
            method=METHOD if calibrated else NONE,
            row_count=sum(map(len, said.values())),
            base_rate=rate,
            measured_error=_mean(said, lambda tenant, own: reliability(own, fitted.frames[tenant].failed).error),
        ),
        candidates=_candidates(fitted),
    )


def figures(fitted: FittedGlobal) -> dict[str, object]:
    """By tenant, how the candidates did that were fitted to others."""
    tenants: dict[str, object] = {}
    for tenant, judged in fitted.held_out.items():
        failed = judged.frame.failed
        apfd = order_figures(judged).apfd
        tenants[tenant] = {
            "judged_runs": len(apfd[CANDIDATES[0].name]),
            "apfd": {name: float(values.mean()) if len(values) else None for name, values in apfd.items()},
            "log_loss": log_loss(fitted.raw[tenant], failed),
            "log_loss_calibrated_by_others": log_loss(fitted.calibrated[tenant], failed),
            "expected_calibration_error": reliability(fitted.raw[tenant], failed).error,
            "expected_calibration_error_calibrated_by_others": reliability(fitted.calibrated[tenant], failed).error,
        }
    return {
        "model": fitted.estimator.candidate.name,
        "calibrated": fitted.estimator.calibration != BetaCalibration(),
        "held_out": tenants,
    }


def _candidates(fitted: FittedGlobal) -> list[CandidateMetrics]:
    orders = [order_figures(judged).apfd for judged in fitted.held_out.values()]
    metrics = []
    for candidate in CANDIDATES:
        entry = CandidateMetrics(
            candidate=candidate.name,
            chosen=candidate == fitted.estimator.candidate,
            row_count=sum(len(judged.stretch) for judged in fitted.held_out.values()),
        )
        if fitted.held_out:
            entry.log_loss = float(np.mean([_log_loss(own, candidate.name) for own in fitted.held_out.values()]))
        means = [apfd[candidate.name].mean() for apfd in orders if len(apfd[candidate.name])]
        if means:
            entry.napfd = float(np.mean(means))
        metrics.append(entry)
    return metrics


def _log_loss(judged: Backtest, name: str) -> float:
    said: Array = BetaCalibration().apply(InNumpy(judged.frame.inputs), judged.logits[name])
    return log_loss(said, judged.frame.failed)


def _mean(values: Mapping[str, Any], figure: Callable[[str, Any], float]) -> float:
    """Over tenants; 0 where there are none."""
    return float(np.mean([figure(*item) for item in values.items()])) if values else 0.0
