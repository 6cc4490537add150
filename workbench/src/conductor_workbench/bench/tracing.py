"""What tracing costs a prediction: processor time of servers with and without it, measured in turns."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

from conductor_workbench.bench.calls import Caller
from conductor_workbench.bench.children import Child
from conductor_workbench.bench.figures import Figures, significant
from conductor_workbench.bench.load import Endpoint
from conductor_workbench.bench.scene import Scene
from conductor_workbench.bench.server_process import ServerProcess
from conductor_workbench.demo.spans import SpanReceiver

_TURNS = 30
_TURN_SHARE = 0.2
"""Of ``seconds``."""
WITHOUT, BY_DEFAULT, EVERY = "without", "by_default", "every_call"


def measure_tracing(scene: Scene, endpoint: Endpoint, generator: Child, seconds: float) -> Figures:
    """Unary predictions of three servers: without tracing, with it as it is by default, and with a trace of every call.

    All run all the time, and spans go to a receiver on this machine. One minute differs from the next by more than
    tracing costs, so each of many short turns saturates all three, in changing order, and the turns' ratios are told.

    Raises:
        ChildFailed: a server did not come up.
    """
    with ExitStack() as stack:
        spans = stack.enter_context(SpanReceiver())
        added: dict[str, Mapping[str, str]] = {
            WITHOUT: {},
            BY_DEFAULT: spans.environment,
            EVERY: spans.environment_of_every_call,
        }
        callers = {}
        for name, more in added.items():
            environment = dict(scene.platform.environment) | dict(more)
            log = scene.logs / f"traced-{name}.log"
            server = stack.enter_context(ServerProcess(environment, log, keys=scene.platform.keys))
            callers[name] = Caller(generator, replace(endpoint, target=server.target), server.pid)
        found = callers[BY_DEFAULT].brief(seconds)
        turns = [_turn(callers, turn, seconds * _TURN_SHARE) for turn in range(_TURNS)]
        stages = spans.stages()
    return found | {
        "cpu_over_untraced": {name: _ratio(turns, name) for name in (BY_DEFAULT, EVERY)},
        "server_cpu_ms_per_request_by_turn": turns,
        "stages": {
            name: {"count": stage["count"]} | {f"{key}_ms": significant(stage[key] * 1e3) for key in ("p50", "p95")}
            for name, stage in stages.items()
        },
    }


def _turn(callers: Mapping[str, Caller], turn: int, seconds: float) -> dict[str, float]:
    """Processor time of a request by server. Who is first changes from turn to turn."""
    first = turn % len(callers)
    names = [*callers][first:] + [*callers][:first]
    return {name: callers[name].saturate(seconds)["server_cpu_ms_per_request"] for name in names}


def _ratio(turns: Sequence[Mapping[str, float]], name: str) -> Figures:
    ratios = [turn[name] / turn[WITHOUT] for turn in turns]
    lower, median, upper = statistics.quantiles(ratios, n=4)
    return {
        "median": significant(median),
        "lower_quartile": significant(lower),
        "upper_quartile": significant(upper),
    }
