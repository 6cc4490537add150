"""How long a server takes to serve, with models in its store."""

from __future__ import annotations

from conductor_workbench.bench.figures import Figures, significant
from conductor_workbench.bench.scene import Scene
from conductor_workbench.bench.server_process import ServerProcess, memory

RUNS = 3


def measure_start_up(scene: Scene, runs: int = RUNS) -> Figures:
    """Seconds from spawning ``conductor serve`` to SERVING, and the memory that it then holds.

    The files lie in the system's cache; what is measured is imports, verifying and warming the models, TLS.
    """
    seconds: list[float] = []
    held: list[Figures] = []
    for _ in range(runs):
        log = scene.logs / "start-up.log"
        with ServerProcess(scene.platform.environment, log, keys=scene.platform.keys) as server:
            seconds.append(server.start_up_seconds)
            held.append(memory(server.pid))
    ordered = sorted(seconds)
    return {
        "runs": runs,
        "median_seconds": significant(ordered[runs // 2]),
        "least_seconds": significant(ordered[0]),
        "most_seconds": significant(ordered[-1]),
        "memory_when_serving": held[-1],
    }
