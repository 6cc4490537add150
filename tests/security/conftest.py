from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from faults.conftest import figure
from faults.scene import Scene
from rpc.harness import AUDIENCE, ISSUER, Authority, Keys
from security.installation import KEYS

__all__ = ["figure"]


@pytest.fixture(scope="package")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One platform for all faults: each test leaves it as it found it, serving in full."""
    with Scene(tmp_path_factory.mktemp("scene")) as scene:
        yield scene


@pytest.fixture(scope="session")
def keys() -> Keys:
    return KEYS


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Where a model store is made."""
    return tmp_path / "models"


@pytest.fixture
def secure(tmp_path: Path, keys: Keys, authority: Authority) -> dict[str, Any]:
    """Settings of a server with TLS and tokens."""
    (tmp_path / "jwks.json").write_text(keys.jwks())
    pair = authority.issue("server")
    return {
        "jwks": str(tmp_path / "jwks.json"),
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "tls_certificate_file": pair.certificate,
        "tls_key_file": pair.key,
    }
