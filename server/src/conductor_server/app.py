"""The composition root: the only place that knows the concrete classes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from conductor_features.reader import OnlineReader
from conductor_model_store import ModelStore
from conductor_rpc.server import RpcServer
from conductor_rpc.telemetry import OFF, Telemetry
from conductor_server.features.online import OnlineFeatures
from conductor_server.models.registry import Registry
from conductor_server.models.verifier import Verifier
from conductor_server.models.watcher import ModelWatcher
from conductor_server.prediction import build_duration
from conductor_server.prediction.history import HISTORY_VIEWS
from conductor_server.servicers.prediction import prediction_service
from conductor_server.settings import ServerSettings


@asynccontextmanager
async def application(
    settings: ServerSettings,
    *,
    telemetry: Telemetry = OFF,
    share_port: bool = False,
    known_models_directory: Path | None = None,
) -> AsyncIterator[RpcServer]:
    """A prediction server that listens on ``server.port`` and stops, in reverse order of starting, on the way out.

    Args:
        settings: What to serve, where.
        telemetry: Where spans and metrics go.
        share_port: Let other processes listen on the same port (SO_REUSEPORT).
        known_models_directory: Where processes that share a port note which models were verified.

    Raises:
        SettingsInvalid: the settings do not allow to serve.
        ModelStoreUnavailable: there is no model store at that place.
    """
    async with AsyncExitStack() as stack:
        reader = await stack.enter_async_context(OnlineReader(settings.redis_url, settings.feature_timeout_seconds))
        registry = Registry({build_duration.PREDICTOR: HISTORY_VIEWS})
        predictor = build_duration.BuildDurationPredictor(registry, OnlineFeatures(reader, telemetry), telemetry)
        service = prediction_service(predictor, telemetry)
        server = RpcServer(settings, [service], telemetry=telemetry, share_port=share_port)
        store = await asyncio.to_thread(ModelStore.open, settings.model_store)
        verifier = Verifier(settings.model_verification_seconds, settings.model_memory_bytes, known_models_directory)
        watcher = await stack.enter_async_context(
            ModelWatcher(store, registry, verifier, telemetry, settings.model_poll_seconds)
        )
        await watcher.wait_for_first_pass(settings.model_first_load_seconds)
        await server.start()
        stack.push_async_callback(server.stop)
        yield server
