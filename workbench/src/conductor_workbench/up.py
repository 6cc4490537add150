"""`conductor up`: the platform in the foreground."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType

import typer

from conductor_client.output import fail
from conductor_workbench.embedded.child import ChildFailed
from conductor_workbench.embedded.platform import Platform, PlatformSettings

_CHECK_SECONDS = 1.0


def run_platform(
    directory: Path,
    *,
    port: int,
    events_port: int,
    admin_http_port: int,
    admin_grpc_port: int,
    workers: int,
    insecure: bool,
) -> None:
    """Run until SIGINT or SIGTERM, or until a part ends by itself; then stop everything in order."""
    stop = threading.Event()

    def ask_to_stop(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask_to_stop)
    settings = PlatformSettings.from_environment(
        directory=directory,
        prediction_port=port,
        events_port=events_port,
        admin_http_port=admin_http_port,
        admin_grpc_port=admin_grpc_port,
        workers=workers,
        insecure=insecure,
    )
    try:
        with Platform(settings, lambda message: typer.echo(f"… {message}", err=True)) as platform:
            typer.echo(_how_to_call(platform))
            while not stop.wait(_CHECK_SECONDS):
                platform.check()
            typer.echo("Stopping", err=True)
    except ChildFailed as error:
        fail(str(error))


def _how_to_call(platform: Platform) -> str:
    authority, directory = platform.keys.ca_certificate, platform.directory
    secure = f"--ca-file {authority} \\\n    --token-file <(conductor token tenant-000 -d {directory})"
    security = "--insecure" if platform.settings.insecure else secure
    return f"""
Conductor is up. Stop it with Ctrl-C.

  predictions   {platform.prediction_target}
  events        {platform.events_target}
  metrics       http://127.0.0.1:{platform.admin_http_port}/metrics (probes: /livez, /readyz)
  channelz      127.0.0.1:{platform.admin_grpc_port}
  database      {platform.database_url}
  Redis         {platform.redis_url}
  models        {platform.model_store}
  logs          {platform.directory / "logs"}

In another shell:

  export CONDUCTOR_DATABASE_URL='{platform.database_url}'
  export CONDUCTOR_REDIS_URL='{platform.redis_url}'
  export CONDUCTOR_MODEL_STORE='{platform.model_store}'
  export CONDUCTOR_MODEL_SIGNING_KEY='{platform.model_signing_key}'
  export CONDUCTOR_MODEL_TRUSTED_KEYS='{":".join(map(str, platform.model_trusted_keys))}'
  conductor simulate --events events.ndjson --end now
  conductor ingest events.ndjson
  conductor train build-duration
  conductor predict build-duration --target {platform.prediction_target} {security} \\
    --tenant tenant-000 --repository tenant-000/service --pipeline ci --branch main
"""
