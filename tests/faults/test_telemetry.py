"""F15: a telemetry collector that accepts and hangs, and one that is not there."""

from __future__ import annotations

import asyncio
import signal
import socket
import time

import pytest

from faults.scene import LATENCY_SECONDS, Reply, Scene, explain, labels, lacking, percentile, wrong
from machine import within

EXIT_SECONDS = 15.0


@pytest.mark.parametrize("collector", ["hangs", "is absent"])
async def test_the_collector(scene: Scene, figure, collector: str) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        if collector == "hangs":
            listening.listen()  # accepted by the kernel, answered by nobody
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{listening.getsockname()[1]}",
            "OTEL_TRACES_SAMPLER": "always_on",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_BSP_MAX_QUEUE_SIZE": "64",
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "16",
            "OTEL_METRIC_EXPORT_INTERVAL": "200",
        }
        async with scene.serving("--grace", "0", **environment) as process:
            start = time.monotonic()
            async with (
                scene.asking(process.address) as asking,  # type: ignore[attr-defined]
                scene.asking() as calm,
            ):
                baseline: list[Reply] = []

                async def during(replies: list[Reply]) -> None:
                    baseline.extend(await calm.load(40, lambda _: asyncio.sleep(2.5)))

                for number in range(len(scene.questions)):
                    await asking.ask(number)
                replies = await asking.load(40, during)
            process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            assert await asyncio.wait_for(process.wait(), 60) == 0
            gone = time.monotonic() - began
            assert within(gone, EXIT_SECONDS)
    found = wrong(scene, replies)
    figure(
        wrong=f"{len(found)} of {len(replies)}", p95=percentile(replies), p95_without=percentile(baseline), exit=gone
    )
    assert not found, explain(found)
    assert not lacking(replies), labels(replies)
    bound = min(LATENCY_SECONDS, 2 * percentile(baseline) + 0.01)
    assert within(percentile(replies), bound, start, share=0.95)
