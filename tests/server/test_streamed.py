"""What a stream answers is what a call would have been answered."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import islice

import numpy as np

from conductor.prediction.v1.build_duration_pb2 import StreamBuildDurationPredictionsRequest
from rpc.harness import from_status
from server.harness import QUEUED, publish, request, serving, write_features

TENANTS = ("acme", "acme2", "other")
COUNT = 600


async def test_every_answer_is_that_of_a_call(redis_url, store):
    """Three tenants with models of their own and without; rows, none and old ones; bad items among good ones."""
    publish(store, 10.0)
    publish(store, 1000.0, tenant_id="acme2")
    for number, tenant in enumerate(TENANTS):
        for repository in range(8):
            write_features(redis_url, tenant, repository=f"r{repository}", recent=1000.0 * number + 100.0 * repository)
    random = np.random.default_rng(7)

    def question():
        fields = {"repository": f"r{int(random.integers(10))}", "lines": int(random.integers(-1, 50))}
        message = request(TENANTS[int(random.integers(3))], **fields)
        message.contribution_count = int(random.integers(0, 4))
        if random.random() < 0.2:  # nothing of what is known now was known then
            message.build.queued_time.FromDatetime(QUEUED - timedelta(days=2))
        return message

    questions = {number: question() for number in range(COUNT)}
    async with serving(redis_url, store, max_in_flight_count=1024) as server:
        await server.eventually(lambda answer: answer.provenance.model_name.endswith("acme2"), request("acme2"))
        stream = server.stub.StreamBuildDurationPredictions()
        found = {}

        async def send():
            ids = iter(random.permutation(COUNT).tolist())
            while together := list(islice(ids, int(random.integers(1, 40)))):
                items = [{"id": item_id, "request": questions[item_id]} for item_id in together]
                await stream.write(StreamBuildDurationPredictionsRequest(items=items))
            await stream.done_writing()

        sending = asyncio.ensure_future(send())
        async for response in stream:
            for result in response.results:
                assert result.id not in found
                found[result.id] = result
        await sending
        assert found.keys() == questions.keys()
        failed = 0
        for item_id, message in questions.items():
            result = found[item_id]
            if message.build.change.added_line_count < 0:
                failed += 1
                assert set(from_status(result.error).fields) == {"build.change.added_line_count"}
            else:
                assert _plain(result.response) == _plain(await server.predict(message))
        assert failed


def _plain(response):
    """The answer without what is each answer's own."""
    assert response.provenance.prediction_id
    response.provenance.ClearField("prediction_id")
    response.provenance.ClearField("prediction_time")
    return response
