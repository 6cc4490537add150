"""What the figures were measured on. Nothing that names the machine, its folders or its network."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import psutil

from conductor_workbench.bench.figures import Figures

_PACKAGES = ("grpcio", "uvloop", "protobuf", "onnxruntime", "numpy", "redis", "hiredis", "feast")


def machine() -> Figures:
    """Cores, memory, system, versions."""
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "processor": _processor(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": platform.system(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in _PACKAGES},
    }


def load_average() -> float:
    """Processes that wanted a core, on average over the last minute, ours included."""
    return round(os.getloadavg()[0], 2)


def busy_cores(seconds: float) -> float:
    """Cores in use during so many seconds in which the bench itself rests: what others take from it."""
    psutil.cpu_percent()
    return round(psutil.cpu_percent(seconds) / 100 * (psutil.cpu_count() or 1), 2)


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
