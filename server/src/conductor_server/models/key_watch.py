"""Follows the files of trusted keys: what a key vouched for serves no longer once the key is gone."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from conductor_model_store import ModelStore, ModelStoreUnavailable, PointerWatch, UntrustedModel
from conductor_model_store.signed_version import SignedVersion
from conductor_server.models.background import Background
from conductor_server.models.loader import ModelLoader
from conductor_server.models.registry import Registry
from conductor_server.models.resident import Place
from conductor_server.models.served_model import ServedModel

if TYPE_CHECKING:
    from conductor_model_store.signatures import Trust

_LOOK_SECONDS = 1.0
_LOG = logging.getLogger(__name__)


class KeyWatch(Background):
    """Looks for other keys, whether the store answers or not. Use as ``async with``."""

    def __init__(
        self, trust: Trust | None, store: ModelStore, watch: PointerWatch, registry: Registry, loader: ModelLoader
    ) -> None:
        """Without ``trust`` there is nothing to follow."""
        self._trust, self._store, self._watch, self._registry, self._loader = trust, store, watch, registry, loader

    async def _run(self) -> None:
        while (trust := self._trust) is not None:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                if await asyncio.to_thread(trust.refresh):
                    await self._look_again()
            except Exception:  # it must outlive whatever it meets
                _LOG.exception("looking at models again after a change of keys failed")

    async def _look_again(self) -> None:
        """Drop what no key vouches for any more; then let everything be asked for anew, what was refused too."""
        for place, model in self._registry.resident.items():
            if not self._store.trusts(model.signed_by):
                await self._check(place, model)
        self._watch.forget()

    async def _check(self, place: Place, model: ServedModel) -> None:
        """Keep it if another trusted key has signed it since it was loaded."""
        signed = SignedVersion(place[0], model.label.version, model.manifest_digest, model.graph.digest)
        try:
            signed_by = await asyncio.to_thread(self._store.signed_by, signed)
        except UntrustedModel as error:
            await self._loader.drop(place, error)
        except ModelStoreUnavailable as error:
            await self._loader.drop(place, UntrustedModel(f"its key is trusted no longer, and {error}"))
        else:
            if self._registry.get(place) is model:
                self._registry.put(place, replace(model, signed_by=signed_by))
