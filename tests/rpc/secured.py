"""A server with TLS and tokens, of the test's own: its settings, and those who vouch for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rpc.harness import AUDIENCE, ISSUER, Authority, Keys


def secured(directory: Path, keys: Keys, authority: Authority) -> dict[str, Any]:
    """Settings of such a server, whose files are made in the directory."""
    pair = authority.issue("server")
    (directory / "jwks.json").write_text(keys.jwks())
    return {
        "jwks": str(directory / "jwks.json"),
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "tls_certificate_file": pair.certificate,
        "tls_key_file": pair.key,
    }


@pytest.fixture(scope="session")
def keys() -> Keys:
    """The keys of an issuer of tokens."""
    return Keys()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def secure(tmp_path: Path, keys: Keys, authority: Authority) -> dict[str, Any]:
    """Settings of a server with TLS and tokens."""
    return secured(tmp_path, keys, authority)
