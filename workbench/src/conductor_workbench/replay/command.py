"""`conductor replay`."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import psycopg

from conductor_client import ConductorError
from conductor_client.output import OutputFormat, fail, print_json
from conductor_model_store import ModelStoreError
from conductor_model_store.settings import ModelStoreSettings
from conductor_workbench.embedded.child import ChildFailed
from conductor_workbench.embedded.platform import Platform, PlatformSettings
from conductor_workbench.keys import EmbeddedKeys
from conductor_workbench.progress import ProgressDisplay
from conductor_workbench.replay.embedded import ReplayResult, replay_on
from conductor_workbench.replay.history import History, read_history
from conductor_workbench.replay.operations import Settle, Trainer, latest_before
from conductor_workbench.replay.run import Replay
from conductor_workbench.replay.scores import Answer
from conductor_workbench.replay.tables import print_summary
from conductor_workbench.replay.target import Target


@dataclass(frozen=True)
class RemoteOptions:
    """How to reach a running Conductor."""

    target: str
    events_target: str
    keys: Path
    token_file: Path | None
    ca_file: Path | None
    insecure: bool


def run_replay(
    events: Sequence[Path],
    share: float,
    rate: float | None,
    remote: RemoteOptions | None,
    directory: Path,
    keep: bool,
    predictions: Path | None,
    output: OutputFormat,
) -> None:
    """Replay, print the figures, and write the predictions if asked to. Ends with exit code 1 where it can't."""
    try:
        with ProgressDisplay() as display:
            history = read_history(events)
            if not history.builds:
                fail("there is no build.queued event in these files")
            if remote is None:
                with Platform(PlatformSettings(directory=directory, keep=keep), display.say) as platform:
                    result = replay_on(platform, history, share, rate=rate, progress=display.step, say=display.say)
            else:
                result = asyncio.run(_replay_remote(remote, history, share, rate, display))
    except (ConductorError, ChildFailed, ModelStoreError, ValueError, OSError, psycopg.Error, grpc.RpcError) as error:
        fail(str(error))
    if predictions is not None:
        write_predictions(result.answers, predictions)
    summary = result.summary()
    if output is OutputFormat.JSON:
        print_json(summary)
    else:
        print_summary(summary)


def write_predictions(answers: Sequence[Answer], path: Path) -> None:
    """Write every prediction beside what came of it, one JSON object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for answer in answers:
            file.write(json.dumps(_plain(answer.to_dict())) + "\n")


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    # JSON has no NaN: a prediction that was not given is null.
    return {key: None if value != value else value for key, value in record.items()}  # noqa: PLR0124


async def _replay_remote(
    remote: RemoteOptions, history: History, share: float, rate: float | None, display: ProgressDisplay
) -> ReplayResult:
    cuts = history.cuts(share)
    database_url, model_store = os.environ.get("CONDUCTOR_DATABASE_URL"), os.environ.get("CONDUCTOR_MODEL_STORE")
    settle = Settle(database_url) if database_url else None
    trainer: Trainer | None = None
    async with _remote_target(remote, settle) as target:
        if database_url and model_store:
            trainer = Trainer(
                database_url=database_url,
                store=ModelStoreSettings(model_store=model_store).open(),
                predictions=target.predictions,
                latest=latest_before(history, cuts),
                progress=display.say,
            )
            target.train = trainer
        answers = await Replay(history, cuts, target, rate=rate, progress=display.step).run()
    if settle is not None:
        settle.close()
    return ReplayResult(answers, cuts, trainer, settle.given_up_count if settle else 0)


def _remote_target(remote: RemoteOptions, settle: Settle | None) -> Target:
    keys = EmbeddedKeys(remote.keys)
    token = remote.token_file.read_text().strip() if remote.token_file else None
    authority = remote.ca_file or keys.ca_certificate
    return Target(
        prediction_target=remote.target,
        events_target=remote.events_target,
        token_for=None if remote.insecure else (lambda tenant: token or keys.token(tenant)),
        root_certificates=None if remote.insecure else authority.read_bytes(),
        settle=settle or _do_not_wait,
        train=None,
    )


async def _do_not_wait() -> None:
    """A target whose database is out of reach can't be asked how far it is."""
