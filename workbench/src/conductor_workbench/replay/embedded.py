"""Replay against a Conductor of one's own: started for the run, empty at its beginning."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from conductor_workbench.embedded.platform import Platform
from conductor_workbench.replay.history import History
from conductor_workbench.replay.operations import Settle, Trainer, latest_before
from conductor_workbench.replay.run import Progress, Replay
from conductor_workbench.replay.scores import Answer, summarise
from conductor_workbench.replay.target import Target


@dataclass(frozen=True)
class ReplayResult:
    """What a replay gave."""

    answers: list[Answer]
    cuts: dict[str, datetime]
    trainer: Trainer | None
    steps_behind: int = 0
    """Times that the replay went on although features were behind: their answers may lack what had happened."""

    def summary(self) -> dict[str, Any]:
        """Every figure."""
        summary = summarise(self.answers)
        summary["steps_behind"] = self.steps_behind
        summary["train_until"] = {tenant: cut.isoformat() for tenant, cut in self.cuts.items()}
        if self.trainer is not None:
            summary["training_seconds"] = self.trainer.seconds
            summary["models"] = [_model(trained) for trained in self.trainer.trained]
        return summary


def _model(trained: Any) -> dict[str, Any]:
    if trained.bundle is None:
        return {"tenant": trained.tenant_id, "skipped": trained.skipped}
    manifest = trained.bundle.manifest
    return {
        "tenant": trained.tenant_id,
        "version": trained.version,
        "digest": manifest.graph.digest,
        "algorithm": manifest.algorithm,
        "size_bytes": manifest.graph.size_bytes,
        "training_rows": manifest.training_data.row_count,
        "measured_coverage": manifest.calibration.measured_coverage,
        "export_difference_seconds": manifest.export_difference_seconds,
        "candidates": {
            candidate.candidate: {"mae_seconds": candidate.mae_seconds, "mape": candidate.mape}
            for candidate in manifest.candidates
        },
    }


def platform_target(platform: Platform, settle: Settle) -> Target:
    """The servers of an embedded platform."""
    secure = not platform.settings.insecure
    return Target(
        prediction_target=platform.prediction_target,
        events_target=platform.events_target,
        token_for=platform.keys.token if secure else None,
        root_certificates=platform.keys.ca_certificate.read_bytes() if secure else None,
        settle=settle,
        train=None,
    )


def replay_on(
    platform: Platform,
    history: History,
    share: float,
    *,
    rate: float | None = None,
    progress: Progress = lambda what, done, total: None,
    say: Callable[[str], None] = lambda message: None,
) -> ReplayResult:
    """Replay on a platform that is running and empty."""
    return asyncio.run(_replay_on(platform, history, share, rate, progress, say))


async def _replay_on(
    platform: Platform,
    history: History,
    share: float,
    rate: float | None,
    progress: Progress,
    say: Callable[[str], None],
) -> ReplayResult:
    cuts = history.cuts(share)
    settle = Settle(platform.database_url)
    async with platform_target(platform, settle) as target:
        trainer = Trainer(
            database_url=platform.database_url,
            store=platform.open_models(),
            predictions=target.predictions,
            latest=latest_before(history, cuts),
            progress=say,
        )
        target.train = trainer
        answers = await Replay(history, cuts, target, rate=rate, progress=progress).run()
    settle.close()
    return ReplayResult(answers, cuts, trainer, settle.given_up_count)
