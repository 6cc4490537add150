"""Where the wheels that carry servers are installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def wheel_folder(package: str) -> Path:
    """Folder of an installed package, without importing it (these packages act when imported)."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"neither a server on PATH nor the package {package} is installed")
    return Path(spec.origin).parent
