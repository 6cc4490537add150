"""What a server holds after many requests."""

from __future__ import annotations

from collections.abc import Callable

from conductor_workbench.bench.children import Child
from conductor_workbench.bench.figures import Figures, significant
from conductor_workbench.bench.predictions import PredictionMeasurements
from conductor_workbench.bench.scene import Scene
from conductor_workbench.bench.server_process import memory

REQUESTS = 1_000_000
_ROUND_SECONDS = 20.0


def measure_endurance(scene: Scene, say: Callable[[str], None], requests: int = REQUESTS) -> Figures:
    """Memory of the server's process over so many predictions, by calls and streamed by turns, as many as it can take.

    The first tenth warms it up: what grows after it, grows with the requests.
    """
    server_id = scene.platform.pid("serve")
    held = [{"requests": 0, **memory(server_id)}]
    errors = 0
    with Child("conductor_workbench.bench.load", scene.logs / "load.log") as generator:
        measure = PredictionMeasurements(scene, generator, _ROUND_SECONDS, lambda _: None)
        while held[-1]["requests"] < requests:
            found = measure.saturated(streamed=len(held) % 2 == 0)
            errors += sum(found["errors"].values())
            held.append({"requests": held[-1]["requests"] + found["latency"]["count"], **memory(server_id)})
            say(f"{held[-1]['requests']:,} of {requests:,} requests, {held[-1]['rss_mb']:.0f} MB")
    warm = next(one for one in held if one["requests"] >= requests / 10)
    rest = held[-1]["requests"] - warm["requests"]
    return {
        "requests": held[-1]["requests"],
        "errors": errors,
        "memory": held,
        "growth_mb_per_million": significant((held[-1]["rss_mb"] - warm["rss_mb"]) / rest * 1e6) if rest else None,
    }
