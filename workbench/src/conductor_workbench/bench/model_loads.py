"""What loading a model takes, in a process of its own: resident memory, time to load, time to verify."""

from __future__ import annotations

import asyncio
import gc
import time
from pathlib import Path
from typing import Any

import psutil

from conductor_model_store import LoadedModel, ModelStore
from conductor_server.models.served_model import ServedModel
from conductor_server.models.shared_graphs import SharedParts
from conductor_server.models.verifier import Verifier
from conductor_workbench.bench.children import answer_requests
from conductor_workbench.bench.figures import significant, spread
from conductor_workbench.bench.model_fleet import tenant_name

_WARM_UP = 20
_VERIFIED = 50
_VERIFY_SECONDS, _VERIFY_BYTES = 5.0, 1 << 30


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    store = ModelStore.open(Path(request["location"]))
    parts, held, seconds = SharedParts(), [], []
    resident_bytes = 0
    for number in range(request["count"] + _WARM_UP):
        if number == _WARM_UP:
            resident_bytes = _resident_bytes()
        began = time.perf_counter()
        held.append(ServedModel.of(_read(store, number), parts))
        if number >= _WARM_UP:
            seconds.append(time.perf_counter() - began)
    taken = (_resident_bytes() - resident_bytes) / request["count"]
    last = held[-1]
    return {
        "models": request["count"],
        "memory_kb_each": significant(taken / 1e3),
        "reckoned_kb_each": significant((last.memory_bytes + last.graph.memory_bytes) / 1e3),
        "read_and_load": spread(seconds, "ms", 1e3),
        "verify": spread(asyncio.run(_verify(store)), "ms", 1e3),
    }


async def _verify(store: ModelStore) -> list[float]:
    """Seconds that each of some models takes in the verifying process, once that is up."""
    verifier, seconds = Verifier(_VERIFY_SECONDS, _VERIFY_BYTES), []
    for number in range(_VERIFIED + 1):
        model = _read(store, number)
        began = time.perf_counter()
        await verifier.verify(model)
        seconds.append(time.perf_counter() - began)
    await verifier.close()
    return seconds[1:]


def _read(store: ModelStore, number: int) -> LoadedModel:
    pointer = store.resolve("build-duration", tenant_name(number))
    if pointer is None:
        raise RuntimeError(f"{tenant_name(number)} has no model")
    return store.load_pointer(pointer)


def _resident_bytes() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)


if __name__ == "__main__":
    answer_requests(_answer)
