"""L1, L3 and L5: below what a server can take, at ten times as much, and one tenant at twenty times its share.

All with one generator (``flood.py``) and one server without TLS, that answers tenants by models of their own. C is the
highest fixed rate of calls of which it answers all but a hundredth in its budget. Callers who wait for answers are
answered together, and so more of them than of others; the rates that are tried are shares of what such callers get.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import psutil

from conductor.prediction.v1.build_duration_pb2 import PredictBuildDurationRequest
from conductor_workbench.bench.figures import Figures, significant, spread
from conductor_workbench.bench.flood import Outcome, Stream, flood
from conductor_workbench.bench.model_fleet import copy_features, publish_fleet, tenant_name
from conductor_workbench.bench.scene import Scene
from conductor_workbench.bench.server_process import ServerProcess

_METHOD = "/conductor.prediction.v1.PredictionService/PredictBuildDuration"
_MODELS, _TENANTS = 200, 100
_IN_FLIGHT = 32
_BELOW, _ABOVE, _AFTER = 0.7, 10.0, 0.5
_SHARES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_KEPT_UP = 0.99
_CONNECTIONS = 16
_QUIET_TENANTS, _QUIET_SHARE, _TIMES = 10, 0.03, 20
_TURNS = 5
_RATE_TIMES = 3
"""Of its share: what each tenant may ask where rates are set."""
_BUDGET_SECONDS = 0.1
_RECOVERY_SECONDS = 10.0


def measure_overload(scene: Scene, seconds: float, say: Callable[[str], None]) -> Figures:
    """Each load for so long. Raises ChildFailed: the server did not come up."""
    directory = scene.platform.directory / "overload-models"
    say(f"Publishing {_MODELS} models")
    publish_fleet(directory, scene.model, _MODELS)
    copy_features(scene.platform.redis_url, scene.builds[0], scene.tenant_id, _MODELS)
    environment = dict(scene.platform.environment) | {
        "CONDUCTOR_MODEL_TRUSTED_KEYS": "",
        "CONDUCTOR_MODEL_STORE": str(directory),
    }
    with ServerProcess(environment, scene.logs / "overload.log", keys=None) as server:
        measure = _Measure(scene, server, seconds)
        measure.saturation()  # which loads the models
        say(f"With {_IN_FLIGHT} calls always under way")
        found: Figures = {"saturation": measure.saturation()}
        say("What the server can take of calls at a fixed rate")
        found["rates"] = measure.rates(found["saturation"]["answered_per_s"])
        per_s = _highest_kept_up_with(found["rates"])
        found["capacity_per_s"] = significant(per_s)
        found["most_in_budget_per_s"] = max(rate["answered_in_budget_per_s"] for rate in found["rates"])
        say(f"L1: {_BELOW:g} of it by {_TENANTS} tenants")
        found["below"] = measure.at(_BELOW * per_s)
        say(f"L3: {_ABOVE:g} times as much")
        found["above"] = measure.at(_ABOVE * per_s)
        say("And after that")
        found["after"] = measure.recovery(_AFTER * per_s)
        say(f"L5: one tenant at {_TIMES} times its share")
        found["fairness"] = measure.fairness(per_s)
        found["saturation_at_end"] = measure.saturation()
        found["goodput_share"] = significant(found["above"]["answered_per_s"] / per_s)
        found["goodput_in_budget_share"] = significant(found["above"]["answered_in_budget_per_s"] / per_s)
    environment["CONDUCTOR_TENANT_QUESTIONS_PER_SECOND"] = str(_RATE_TIMES * _QUIET_SHARE * per_s)
    with ServerProcess(environment, scene.logs / "overload-rates.log", keys=None) as server:
        measure = _Measure(scene, server, seconds)
        measure.saturation()
        say(f"L5 where each tenant may ask {_RATE_TIMES} times its share")
        found["fairness_with_rates"] = measure.fairness(per_s)
    return found


def _highest_kept_up_with(rates: Sequence[Figures]) -> float:
    """In calls a second; the lowest one where none was."""
    kept_up = [one for one in rates if one["answered_in_budget_per_s"] >= _KEPT_UP * one["rate_per_s"]]
    return float(max((kept_up or rates[:1]), key=lambda one: one["rate_per_s"])["rate_per_s"])


class _Measure:
    def __init__(self, scene: Scene, server: ServerProcess, seconds: float) -> None:
        self._scene, self._server, self._seconds = scene, server, seconds

    def saturation(self) -> Figures:
        """So many calls always under way."""
        return self._figures(Stream(self._payloads(_TENANTS), in_flight=_IN_FLIGHT, connections=4))

    def rates(self, saturated_per_s: float) -> list[Figures]:
        """Several fixed rates, up to what is answered when callers wait for their answers."""
        return [self.at(share * saturated_per_s) for share in _SHARES]

    def at(self, rate_per_s: float) -> Figures:
        """A fixed rate, answered or not."""
        stream = Stream(self._payloads(_TENANTS), rate_per_s=rate_per_s, connections=_CONNECTIONS)
        return {"rate_per_s": significant(rate_per_s), **self._figures(stream)}

    def recovery(self, rate_per_s: float) -> Figures:
        """After how long the last call was that failed or took more than the budget, of those due right afterwards."""
        stream = Stream(self._payloads(_TENANTS), rate_per_s=rate_per_s, connections=_CONNECTIONS)
        [outcome] = flood(self._server.target, _METHOD, [stream], _RECOVERY_SECONDS)
        late = [one.moment for one in outcome.ended if one.why or one.took > _BUDGET_SECONDS]
        return _told(outcome, _RECOVERY_SECONDS) | {"last_over_budget_s": significant(max(late, default=0.0))}

    def fairness(self, most_per_s: float) -> Figures:
        """Ten tenants beside one that asks for twenty times its share, and without it, by turns."""
        share = _QUIET_SHARE * most_per_s
        quiet = [Stream(self._payloads(1, number), rate_per_s=share, connections=1) for number in range(_QUIET_TENANTS)]
        loud = Stream(self._payloads(1, _QUIET_TENANTS), rate_per_s=_TIMES * share, connections=2)
        turns = []
        for _ in range(_TURNS):
            calm = flood(self._server.target, _METHOD, quiet, self._seconds)
            *beside, flooding = flood(self._server.target, _METHOD, [*quiet, loud], self._seconds)
            turns.append(
                {
                    "calm": _together(calm, self._seconds),
                    "beside": _together(beside, self._seconds),
                    "loud": _told(flooding, self._seconds),
                }
            )
        ratios = [turn["beside"]["answered"]["p95_ms"] / turn["calm"]["answered"]["p95_ms"] for turn in turns]
        return {
            "share_per_s": significant(share),
            "turns": turns,
            "p95_beside_over_calm": significant(statistics.median(ratios)),
            "others_failed": sum(turn["beside"]["sent"] - turn["beside"]["answered"]["count"] for turn in turns),
        }

    def _payloads(self, count: int, first: int = 0) -> tuple[bytes, ...]:
        return tuple(
            PredictBuildDurationRequest(tenant_id=tenant_name(number), build=self._scene.builds[0]).SerializeToString()
            for number in range(first, first + count)
        )

    def _figures(self, stream: Stream) -> Figures:
        process = psutil.Process(self._server.pid)
        before = process.cpu_times()
        [outcome] = flood(self._server.target, _METHOD, [stream], self._seconds)
        after = process.cpu_times()
        spent = after.user + after.system - before.user - before.system
        answered = max(1, len(outcome.answered))
        return _told(outcome, self._seconds) | {"server_cpu_ms_per_answer": significant(spent / answered * 1e3)}


def _together(outcomes: Sequence[Outcome], seconds: float) -> Figures:
    whole = Outcome(sent=sum(outcome.sent for outcome in outcomes))
    for outcome in outcomes:
        whole.ended += outcome.ended
    return _told(whole, seconds)


def _told(outcome: Outcome, seconds: float) -> Figures:
    good = sum(took <= _BUDGET_SECONDS for took in outcome.answered)
    return {
        "sent": outcome.sent,
        "answered_per_s": significant(len(outcome.answered) / seconds),
        "answered_in_budget_per_s": significant(good / seconds),
        "answered": spread(outcome.answered, "ms", 1e3),
        "refused": spread(outcome.refused, "ms", 1e3),
        "ended": outcome.counts(),
    }
