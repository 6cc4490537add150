"""Reads of packed rows, in a process of their own: the server's reader, and redis-py's ``MGET`` of the same bytes."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import redis
import uvloop

from conductor_features.keys import entity_key
from conductor_features.reader import OnlineReader
from conductor_features.rows import FeatureRow
from conductor_features.writer import write_rows
from conductor_workbench.bench.children import answer_requests
from conductor_workbench.bench.figures import MOST_SAMPLES, repeat
from conductor_workbench.bench.thirty_fields import ENTITY_COUNTS, VIEW, entities, event_time, values

_LEAST_SAMPLES = 5
_TIMEOUT_SECONDS = 2.0
_LARGEST = max(ENTITY_COUNTS)


def prepare(redis_url: str) -> None:
    """Write the rows."""
    with redis.Redis.from_url(redis_url) as client:
        moment = event_time()
        rows = zip(entities(_LARGEST), values(_LARGEST), strict=True)
        write_rows(client, VIEW, ((entity, moment, row) for entity, row in rows))


def measure(redis_url: str, count: int, seconds: float) -> dict[str, list[float]]:
    """Seconds of each read of ``count`` entities: ``read`` and ``read_block`` of the reader, ``redis_mget`` undecoded.

    Each is measured for ``seconds``.
    """
    keys = [entity_key(VIEW.key, entity) for entity in entities(count)]
    with redis.Redis.from_url(redis_url) as client:
        client.mget(keys)
        floor = repeat(seconds, lambda: client.mget(keys))
    return uvloop.run(_reader(redis_url, count, seconds)) | {"redis_mget": floor}


async def _reader(redis_url: str, count: int, seconds: float) -> dict[str, list[float]]:
    asked = entities(count)
    requests = [(VIEW, entity) for entity in asked]
    read: list[float] = []
    block: list[float] = []
    # The timeout is not what is measured: on a busy machine a read may take longer than a server would wait.
    async with OnlineReader(redis_url, _TIMEOUT_SECONDS) as reader:
        rows = await reader.read(requests)
        if not all(isinstance(row, FeatureRow) for row in rows):
            raise RuntimeError("rows are missing that were written just now")
        end = perf_counter() + 2 * seconds
        while len(read) < _LEAST_SAMPLES or (perf_counter() < end and len(read) < MOST_SAMPLES):
            began = perf_counter()
            await reader.read(requests)
            between = perf_counter()
            await reader.read_block(VIEW, asked)
            read.append(between - began)
            block.append(perf_counter() - between)
    return {"read": read, "read_block": block}


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    if "count" in request:
        return measure(request["redis_url"], request["count"], request["seconds"])
    prepare(request["redis_url"])
    return {}


if __name__ == "__main__":
    answer_requests(_answer)
