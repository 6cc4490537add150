"""A prediction server with TLS and tokens, of the test's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rpc.harness import Authority, Keys
from rpc.secured import secured


def secured_settings(folder: Path, keys: Keys) -> tuple[Authority, dict[str, Any]]:
    """Who vouches for the server, and its settings; models may be unsigned."""
    authority = Authority(folder)
    return authority, {"insecure": False, "allow_unsigned_models": True, **secured(folder, keys, authority)}
