"""A server with TLS and tokens, of the test's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rpc.harness import AUDIENCE, ISSUER, Authority, Keys


def secured_settings(folder: Path, keys: Keys) -> tuple[Authority, dict[str, Any]]:
    """Who vouches for the server, and its settings; models may be unsigned."""
    authority = Authority(folder)
    pair = authority.issue("server")
    (folder / "jwks.json").write_text(keys.jwks())
    return authority, {
        "insecure": False,
        "allow_unsigned_models": True,
        "jwks": str(folder / "jwks.json"),
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "tls_certificate_file": pair.certificate,
        "tls_key_file": pair.key,
    }
