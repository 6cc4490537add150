from __future__ import annotations

from rpc.secured import authority, keys, secure

__all__ = ["authority", "keys", "secure"]
