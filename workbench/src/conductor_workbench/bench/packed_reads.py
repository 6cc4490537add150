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
from conductor_workbench.bench.figures import repeat, spread
from conductor_workbench.bench.thirty_fields import ENTITY_COUNTS, VIEW, entities, event_time, values

_LEAST_SAMPLES = 5
_TIMEOUT_SECONDS = 2.0
_LARGEST = max(ENTITY_COUNTS)


def measure(redis_url: str, seconds: float) -> dict[str, Any]:
    """Latency by number of entities: ``read`` and ``read_block`` of the reader, ``redis_mget`` undecoded."""
    with redis.Redis.from_url(redis_url) as client:
        moment = event_time()
        rows = zip(entities(_LARGEST), values(_LARGEST), strict=True)
        write_rows(client, VIEW, ((entity, moment, row) for entity, row in rows))
        floors = {count: _mget(client, count, seconds) for count in ENTITY_COUNTS}
    found = uvloop.run(_reader(redis_url, seconds))
    return {str(count): found[count] | {"redis_mget": floors[count]} for count in ENTITY_COUNTS}


def _mget(client: redis.Redis, count: int, seconds: float) -> dict[str, Any]:
    keys = [entity_key(VIEW.key, entity) for entity in entities(count)]
    return spread(repeat(seconds, lambda: client.mget(keys)), "ms", 1e3)


async def _reader(redis_url: str, seconds: float) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    # The timeout is not what is measured: on a busy machine a read may take longer than a server would wait.
    async with OnlineReader(redis_url, _TIMEOUT_SECONDS) as reader:
        for count in ENTITY_COUNTS:
            asked = entities(count)
            requests = [(VIEW, entity) for entity in asked]
            rows = await reader.read(requests)
            if not all(isinstance(row, FeatureRow) for row in rows):
                raise RuntimeError("rows are missing that were written just now")
            read: list[float] = []
            block: list[float] = []
            end = perf_counter() + 2 * seconds
            while len(read) < _LEAST_SAMPLES or perf_counter() < end:
                began = perf_counter()
                await reader.read(requests)
                between = perf_counter()
                await reader.read_block(VIEW, asked)
                read.append(between - began)
                block.append(perf_counter() - between)
            found[count] = {"read": spread(read, "ms", 1e3), "read_block": spread(block, "ms", 1e3)}
    return found


if __name__ == "__main__":
    answer_requests(lambda request: measure(request["redis_url"], request["seconds"]))
