from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rpc.harness import AUDIENCE, ISSUER, Authority, Keys


@pytest.fixture(scope="session")
def keys() -> Keys:
    return Keys()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


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
