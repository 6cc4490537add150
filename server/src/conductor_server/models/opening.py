"""The model store as a server opens it: it remembers moves, and counts those that it refuses."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from conductor_model_store import ModelStore, ModelStoreError, NoAuthority, PointerMemory
from conductor_model_store.scope import parse_key
from conductor_rpc import names
from conductor_rpc.telemetry import Telemetry
from conductor_server.settings import ServerSettings

if TYPE_CHECKING:
    from conductor_model_store.signatures import Trust

_LOG = logging.getLogger(__name__)


def open_store(settings: ServerSettings, trust: Trust | None, telemetry: Telemetry) -> ModelStore:
    """Open it.

    Raises:
        ModelStoreUnavailable: there is no model store at that place, or the memory of moves can't be used.
    """

    def count(key: str, error: ModelStoreError) -> None:
        parsed = parse_key(key)
        predictor = parsed.predictor if parsed else ""
        telemetry.count(names.MODEL_REFUSALS, {names.PREDICTOR: predictor, names.REASON: type(error).__name__})

    if trust is not None:
        try:
            trust.require_authority()
        except NoAuthority as error:
            _LOG.info("this server follows moves of channels and makes none: %s", error)
    memory = PointerMemory(settings.model_pointer_memory, settings.model_store) if trust is not None else None
    return ModelStore.open(settings.model_store, trust, memory=memory, on_refused=count)
