"""The composition root: the only place that knows the concrete classes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from conductor_features.changes.graph_cache import ImpactGraphs
from conductor_features.listings import Listings
from conductor_features.reader import OnlineReader
from conductor_features.views import TEST_FLAKINESS as TEST_FLAKINESS_VIEW
from conductor_rpc.server import RpcServer
from conductor_rpc.telemetry import OFF, Telemetry
from conductor_server.features.blocks import Blocks
from conductor_server.features.flaky_tests import OnlineFlakyTests
from conductor_server.features.online import OnlineFeatures
from conductor_server.features.tests import OnlineTests
from conductor_server.inference.serving import ServingModels
from conductor_server.models.canary_guard import CanaryGuard
from conductor_server.models.comparison import Comparison
from conductor_server.models.control import ModelControl
from conductor_server.models.key_watch import KeyWatch
from conductor_server.models.loader import ModelLoader
from conductor_server.models.metrics import observe_models
from conductor_server.models.opening import open_store
from conductor_server.models.registry import Registry
from conductor_server.models.verifier import Verifier
from conductor_server.models.watcher import ModelWatcher
from conductor_server.prediction import build_duration
from conductor_server.prediction.history import HISTORY_VIEWS
from conductor_server.prediction.ports import Models
from conductor_server.servicers.inference import inference_service
from conductor_server.servicers.models import model_service
from conductor_server.servicers.prediction import prediction_service
from conductor_server.servicers.testing import testing_service
from conductor_server.settings import ServerSettings
from conductor_server.testing import flakiness, intelligence
from conductor_server.testing.promises import Promises
from conductor_server.testing.questions import TEST_FAILURE, TEST_FLAKINESS
from conductor_server.testing.reach import Reaching

_LOADING_SECONDS = 10.0
"""Longest that a list of tests or a graph of code may take to be read, beside the requests."""


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
        InvalidKey: a trusted key can't be read.
        ModelStoreUnavailable: there is no model store at that place.
    """
    async with AsyncExitStack() as stack:
        reader = await stack.enter_async_context(OnlineReader(settings.redis_url, settings.feature_timeout_seconds))
        registry = Registry(
            {
                build_duration.PREDICTOR: HISTORY_VIEWS,
                TEST_FAILURE: intelligence.VIEWS,
                TEST_FLAKINESS: flakiness.VIEWS,
            },
            memory_budget_bytes=settings.model_memory_budget_bytes,
            pinned_tenants=settings.model_pinned_tenants,
        )
        trust = settings.trust()
        store = await asyncio.to_thread(open_store, settings, trust, telemetry)
        guard = CanaryGuard(store, registry, telemetry, settings.canary_bounds())
        stack.push_async_callback(guard.close)
        comparison = await stack.enter_async_context(Comparison(telemetry, guard.judge))
        features = OnlineFeatures(reader, telemetry)
        predictor = build_duration.BuildDurationPredictor(registry, features, telemetry, comparison)
        tests = await stack.enter_async_context(test_intelligence(settings, reader, registry, telemetry))
        watch = store.watch()
        control = ModelControl(store, watch, registry.predictors)
        stack.callback(control.close)
        tensor_models = ServingModels(registry, registry.predictors)
        services = [
            prediction_service(predictor, telemetry, lambda: server.item_streams),
            inference_service(tensor_models, telemetry, lambda: server.is_serving),
            testing_service(tests.intelligence, tests.flakiness, telemetry),
            model_service(control, comparison, lambda: server.is_serving),
        ]
        server = RpcServer(settings, services, telemetry=telemetry, share_port=share_port)
        stack.push_async_callback(server.admin.stop)
        await server.start_admin()
        verifier = Verifier(settings.model_verification_seconds, settings.model_memory_bytes, known_models_directory)
        loader = await stack.enter_async_context(ModelLoader(store, watch, registry, verifier, telemetry))
        registry.on_miss(loader.ask)
        observe_models(registry, telemetry)
        watcher = await stack.enter_async_context(
            ModelWatcher(
                watch,
                registry,
                loader,
                control.moved,
                poll_seconds=settings.model_poll_seconds,
                load_all_count=settings.model_load_all_count,
            )
        )
        await stack.enter_async_context(KeyWatch(trust, store, watch, registry, loader))
        await watcher.wait_for_first_pass(settings.model_first_load_seconds)
        await server.start()
        stack.push_async_callback(server.stop)
        yield server


class TestAnswers(NamedTuple):
    """What answers about tests."""

    intelligence: intelligence.TestIntelligence
    flakiness: flakiness.Flakiness


@asynccontextmanager
async def test_intelligence(
    settings: ServerSettings, reader: OnlineReader, models: Models, telemetry: Telemetry
) -> AsyncIterator[TestAnswers]:
    """Test intelligence, with readers of its own: what it reads is large, and must not hold up single rows."""
    async with AsyncExitStack() as stack:
        blocks = await stack.enter_async_context(
            OnlineReader(settings.redis_url, settings.test_feature_timeout_seconds)
        )
        loader = await stack.enter_async_context(OnlineReader(settings.redis_url, _LOADING_SECONDS))
        listings, graphs = Listings(loader), ImpactGraphs(reader, loader)
        # A test may be quarantined, or fixed, for longer than others are remembered.
        flaky_listings = Listings(loader, seen_within=TEST_FLAKINESS_VIEW.maximum_age)
        for held in (listings, flaky_listings, graphs):
            stack.push_async_callback(held.close)
        features, reaching = OnlineTests(Blocks(blocks, telemetry), listings), Reaching(graphs)
        yield TestAnswers(
            intelligence.TestIntelligence(
                models,
                features,
                reaching,
                Promises(settings.test_selection_calibration_max_age_days),
                telemetry,
            ),
            flakiness.Flakiness(
                models,
                features,
                OnlineFlakyTests(flaky_listings, settings.test_feature_timeout_seconds),
                reaching,
                telemetry,
            ),
        )
