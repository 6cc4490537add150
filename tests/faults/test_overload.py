"""L3, L5 in short: more calls than the server can take, and one tenant that asks for more than its share.

The long forms, with L1: ``conductor bench --only overload``.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor

import psutil

from conductor.prediction.v1.build_duration_pb2 import PredictBuildDurationRequest, PredictBuildDurationResponse
from conductor_client.predictions import build_duration_prediction
from conductor_workbench.bench.flood import DEADLINE, Outcome, Stream, flood
from faults.scene import LATENCY_SECONDS, Reply, Scene, explain, labels, percentile, wrong
from machine import slowness, tries, within

METHOD = "/conductor.prediction.v1.PredictionService/PredictBuildDuration"
SECONDS = 1.2
MOST_PER_S = 10_000
"""What the generator can send on a shared core."""
MOST_COST = 4
"""CPU for each answer, beside that of a server that is just saturated."""
RECOVERY_SECONDS = 10.0
TRIES = 3
"""Where others kept the machine busy: that does not come back, a slow refusal does."""
REFUSALS = ("1", "8")
"""CANCELLED, by gRPC itself (ADR 23), and RESOURCE_EXHAUSTED."""
LATE = "4"


class Flooding:
    """Sends a tenant's questions by the thousand, and tells what that cost the server."""

    def __init__(self, scene: Scene, tenant_id: str) -> None:
        self._scene = scene
        self._numbers = [at for at, one in enumerate(scene.questions) if one.tenant_id == tenant_id]
        questions = [scene.questions[number] for number in self._numbers]
        self._payloads = tuple(
            PredictBuildDurationRequest(tenant_id=tenant_id, build=one.build).SerializeToString() for one in questions
        )
        self._headers = (("authorization", f"Bearer {scene.platform.keys.token(tenant_id)}"),)
        self._server = psutil.Process(scene.platform.pid("serve"))

    async def flood(self, **options: object) -> tuple[Outcome, float]:
        """What came of it, and the server's CPU seconds for each answer."""
        stream = Stream(self._payloads, headers=self._headers, connections=8, timeout_seconds=slowness(), **options)  # type: ignore[arg-type]
        certificate = self._scene.platform.keys.ca_certificate.read_text()
        before = self._server.cpu_times()
        target = self._scene.platform.prediction_target
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as processes:  # not on our loop's time
            loop = asyncio.get_running_loop()
            [outcome] = await loop.run_in_executor(
                processes, flood, target, METHOD, [stream], SECONDS, certificate, 200
            )
        after = self._server.cpu_times()
        spent = after.user + after.system - before.user - before.system
        return outcome, spent / max(1, len(outcome.answered))

    def replies(self, outcome: Outcome) -> list[Reply]:
        """The answers that were kept."""
        return [
            Reply(
                self._numbers[number % len(self._numbers)],
                0.0,
                0.0,
                build_duration_prediction(PredictBuildDurationResponse.FromString(answer)),
            )
            for number, answer in outcome.answers
        ]


def median(seconds: list[float]) -> float:
    return sorted(seconds)[len(seconds) // 2]


def expired(outcome: Outcome) -> int:
    return sum(one.why == DEADLINE or one.why.startswith(LATE) for one in outcome.ended)


def held(outcome: Outcome, bound: float, since: float) -> bool:
    """Whether what was accepted was answered soon, and what was too much refused soon: without bounds most of it waits
    until it is too late."""
    refused = outcome.refused
    in_time = bool(refused) and expired(outcome) <= len(refused) / 2 and median(refused) <= bound
    return in_time and within(_p95(outcome.answered), bound, since, share=0.95)


async def test_ten_times_as_much_as_it_can_take(scene: Scene, figure) -> None:
    flooding = Flooding(scene, scene.history.tenants[0])
    async with scene.asking() as asking:
        most, calm_cost = await flooding.flood(in_flight=32)
        per_s = min(MOST_PER_S, 10 * len(most.answered) / SECONDS)
        # As long as this machine takes for an answer when it is just saturated, it may take besides.
        bound = LATENCY_SECONDS + median(most.answered)
        for _ in tries(TRIES):
            began = time.monotonic()
            above, cost = await flooding.flood(rate_per_s=per_s)
            if soon := held(above, bound, began):
                break
        began = time.monotonic()
        recovered = 0.0

        async def during(replies: list[Reply]) -> None:
            nonlocal recovered
            recovered = await asking.recovered(replies, began)
            assert within(recovered, RECOVERY_SECONDS, began)

        after = await asking.load(20, during)
    found = wrong(scene, [*flooding.replies(most), *flooding.replies(above), *(one for one in after if one.answer)])
    assert not found, explain(found)
    goodput = len(above.answered) / len(most.answered)
    assert above.refused
    figure(
        wrong=f"{len(found)} of {len(most.answers) + len(above.answers)}", saturated_per_s=len(most.answered) / SECONDS,
        offered_per_s=per_s, goodput=goodput, cpu_ratio=cost / calm_cost, accepted_p95_ms=1e3 * _p95(above.answered),
        refused_p50_ms=1e3 * median(above.refused), refused_p95_ms=1e3 * _p95(above.refused), recovered=recovered,
        ended=above.counts(),
    )  # fmt: skip
    assert all(one.why in ("", DEADLINE) or one.why.startswith((*REFUSALS, LATE)) for one in above.ended)
    # Rates swing with what else the machine does; what an answer costs less so.
    assert cost <= MOST_COST * calm_cost
    assert soon


async def test_one_tenant_at_twenty_times_its_share(scene: Scene, figure) -> None:
    loud, *others = scene.history.tenants
    flooding = Flooding(scene, loud)
    most, _ = await flooding.flood(in_flight=32)
    share = 0.03 * len(most.answered) / SECONDS
    async with scene.asking() as asking:
        quiet = [at for at, one in enumerate(scene.questions) if one.tenant_id in others]

        async def ask_for(seconds: float) -> list[Reply]:
            """Everybody else's questions, at their share."""
            asked, start = [], time.monotonic()
            while (due := start + len(asked) / (share * len(others))) < start + seconds:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                asked.append(asyncio.ensure_future(asking.ask(quiet[len(asked) % len(quiet)], due)))
            return await asyncio.gather(*asked)

        calm = await ask_for(SECONDS)
        start = time.monotonic()
        (outcome, _), beside = await asyncio.gather(flooding.flood(rate_per_s=20 * share), ask_for(SECONDS))
    found = wrong(scene, [*calm, *beside])
    figure(
        wrong=f"{len(found)} of {len(calm) + len(beside)}", share_per_s=share, p50=percentile(beside, 0.5),
        p50_calm=percentile(calm, 0.5), p95=percentile(beside), p95_calm=percentile(calm), loud=outcome.counts(),
    )  # fmt: skip
    assert not found, explain(found)
    assert all(reply.answer for reply in beside), labels(beside)
    assert within(percentile(beside), LATENCY_SECONDS, start, share=0.95)


def _p95(seconds: list[float]) -> float:
    return sorted(seconds)[int(len(seconds) * 0.95)] if seconds else 0.0
