"""One budget: features leave the model its time, and who is too late is worked for no more (F14)."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest

from conductor.prediction.v1.build_duration_pb2 import (
    BatchPredictBuildDurationsRequest,
    StreamBuildDurationPredictionsRequest,
)
from conductor.prediction.v1.provenance_pb2 import PredictionMethod
from conductor_server.models.served_model import ServedModel
from conductor_server.prediction import build_duration
from machine import within
from server.harness import publish, request, serving, write_features

LINES = 1
"""The column that tells requests apart."""
SLACK_SECONDS = 0.02
"""How long after its deadline a request may still be worked for, and this machine may hold us up besides."""


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, list[float]]]:
    """When the model was run, and on whose rows."""
    found: list[tuple[float, list[float]]] = []
    score = ServedModel.score

    def noted(self: ServedModel, inputs: np.ndarray) -> np.ndarray:
        found.append((time.monotonic(), inputs[:, LINES].tolist()))
        return score(self, inputs)

    monkeypatch.setattr(ServedModel, "score", noted)
    return found


class Noise:
    """How long this machine keeps a thread waiting that wants to run."""

    def __init__(self) -> None:
        self._most, self._stopped = 0.0, False
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stopped:
            began = time.monotonic()
            time.sleep(0.001)
            self._most = max(self._most, time.monotonic() - began - 0.001)

    def stop(self) -> float:
        self._stopped = True
        self._thread.join()
        return self._most


async def test_a_slow_read_leaves_the_model_its_time(own_redis, store, monkeypatch):
    """Who is in a hurry is answered without features, in time; who is not waits for them, although asked together."""
    monkeypatch.setattr(build_duration, "MODEL_SECONDS", 2.0)  # this machine takes its time
    publish(store)
    write_features(own_redis.url)
    async with serving(own_redis.url, store, feature_timeout_seconds=10) as server:
        await server.eventually(lambda answer: answer.provenance.method == PredictionMethod.PREDICTION_METHOD_MODEL)
        os.kill(own_redis.pid, signal.SIGSTOP)
        try:
            asked = [server.stub.PredictBuildDuration(request(), timeout=seconds) for seconds in (4, 60)]
            hurried = await asked[0]
        finally:
            os.kill(own_redis.pid, signal.SIGCONT)
        patient = await asked[1]
    assert hurried.provenance.missing_features
    assert hurried.provenance.method != PredictionMethod.PREDICTION_METHOD_MODEL
    assert patient.provenance.method == PredictionMethod.PREDICTION_METHOD_MODEL


async def test_an_expired_request_never_reaches_the_model(redis_url, store, runs):
    publish(store)
    write_features(redis_url)
    chance = random.Random(14)
    deadlines: dict[float, float] = {}
    expired = 0
    async with serving(redis_url, store, minimum_deadline_seconds=0.0) as server:
        await server.predict(request())
        runs.clear()

        async def ask(lines: int, longest: float) -> None:
            nonlocal expired
            message = request(lines=lines)
            message.contribution_count = 0
            seconds = chance.uniform(0.001, longest)
            deadlines[lines] = time.monotonic() + seconds
            try:
                await server.stub.PredictBuildDuration(message, timeout=seconds)
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
                expired += 1

        async def hold_up(until: Callable[[], bool]) -> None:
            """What keeps a loop from running: a long batch, the garbage collector, a neighbour's load."""
            while not until():
                time.sleep(chance.uniform(0, 0.1))  # noqa: ASYNC251 - this is the point
                await asyncio.sleep(chance.uniform(0, 0.01))

        noise, began = Noise(), time.monotonic()
        for number in range(10):
            first, longest = 100 + 300 * number, 0.05 * (number + 1)
            asking = [asyncio.ensure_future(ask(lines, longest)) for lines in range(first, first + 50)]
            for lines in range(first + 50, first + 300):
                await asyncio.sleep(0.001)
                asking.append(asyncio.ensure_future(ask(lines, longest)))
                if lines == first + 100:
                    asking.append(asyncio.ensure_future(hold_up(lambda until=first + 200: len(deadlines) == until)))
            await asyncio.gather(*asking)
            if runs and expired > 20:  # a busy machine answers none in time: they get longer ones
                break
    slack = SLACK_SECONDS + noise.stop()
    after = [moment - deadlines[lines] for moment, rows in runs for lines in rows]
    late = [seconds for seconds in after if not within(seconds, slack, began)]
    assert expired > 20
    assert runs
    assert not late


async def test_a_thread_that_comes_too_late_runs_nothing(redis_url, store, runs):
    """What is answered together is nobody's own call, so nothing cancels it."""
    publish(store)
    write_features(redis_url)

    def items(seconds: float) -> StreamBuildDurationPredictionsRequest:
        """So many that, with the variants that explain them, they are not run on the loop."""
        message = StreamBuildDurationPredictionsRequest()
        for number in range(64):
            item = message.items.add(id=number, request=request(lines=number))
            item.timeout.FromNanoseconds(int(seconds * 1e9))
        return message

    with ThreadPoolExecutor(1) as threads:
        async with serving(redis_url, store) as server:
            await server.predict(request())
            asyncio.get_running_loop().set_default_executor(threads)
            stream = server.stub.StreamBuildDurationPredictions()
            late = grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
            for message, code in ((items(0.1), late), (items(60), 0)):
                runs.clear()
                free = threading.Event()
                busy = threads.submit(free.wait, 60)
                if code == 0:
                    free.set()
                await stream.write(message)
                results: list[Any] = []
                while len(results) < len(message.items):
                    results += (await stream.read()).results
                assert {result.error.code for result in results} == {code}
                free.set()
                await asyncio.wrap_future(busy)
                await asyncio.wrap_future(threads.submit(int))  # what was waiting has had its turn
                assert bool(runs) is (code == 0)


async def test_a_batch_that_is_too_late_stops(redis_url, store, runs, monkeypatch):
    publish(store)
    write_features(redis_url)
    score = ServedModel.score

    def slow(self: ServedModel, inputs: np.ndarray) -> np.ndarray:
        time.sleep(allowed)  # as long as all parts may take together
        return score(self, inputs)  # which notes the run

    asked = [request(lines=lines) for lines in range(1024)]
    for one in asked:
        one.contribution_count = 0
    batch = BatchPredictBuildDurationsRequest(tenant_id="acme", requests=asked)
    async with serving(redis_url, store) as server:
        await server.predict(request())
        runs.clear()
        monkeypatch.setattr(ServedModel, "score", slow)
        for allowed in (0.15, 0.6, 2.4):
            with pytest.raises(grpc.aio.AioRpcError):
                await server.stub.BatchPredictBuildDurations(batch, timeout=allowed)
            await asyncio.sleep(5 * allowed)
            if runs:  # a busy machine begins none in time: it gets a longer one
                break
    assert 0 < sum(len(rows) for _, rows in runs) <= 512
