from __future__ import annotations

from pathlib import Path

import pytest

from rpc.secured import keys
from server.harness import publish, serving
from server.many import Fleet
from server.secured import secured_settings
from server.tensors import Secure

__all__ = ["keys"]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Where a model store is made."""
    return tmp_path / "models"


@pytest.fixture
async def secure(redis_url, store, tmp_path, keys):
    """A server with TLS and tokens, and the store it serves from."""
    authority, settings = secured_settings(tmp_path, keys)
    publish(store)
    async with serving(redis_url, store, **settings) as server:
        yield Secure(server.target, authority, keys)


@pytest.fixture
def fleet(store: Path) -> Fleet:
    """Publishes models, and knows what each of them answers."""
    return Fleet(store)
