"""The load generator: a process of its own that sends bytes and takes times.

It neither makes nor reads messages, so that its own work is the same for every server, the echo included. Items of a
stream are the exception: ``item_calls.py``.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

import grpc
import grpc.aio
import uvloop

from conductor_workbench.bench.children import answer_requests
from conductor_workbench.bench.item_calls import ItemCalls

_TIMEOUT_SECONDS = 5.0
_WARM_UP_REQUESTS = 60
_WARM_UP_IN_FLIGHT = 4
_MOST_REQUESTS = 200_000
_WINDOWS = 5
_SWITCH_SECONDS = 0.0005

_Call = Callable[[bytes], Any]


@dataclass(frozen=True)
class Endpoint:
    """A method of a server, and what it is called with."""

    target: str
    method: str
    """Full name, with a slash at its beginning."""
    payloads: tuple[bytes, ...]
    """Requests, sent in turn."""
    root_certificates: str = ""
    """PEM text of the authority; empty for no TLS."""
    headers: tuple[tuple[str, str], ...] = ()
    streamed: bool = False
    """Whether the method is a stream of items: the payloads are their requests, and each connection has one stream."""
    connections: int = 1
    """Taken by turns. Processes that share a port share connections out, not calls."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self) | {"payloads": [base64.b64encode(payload).decode() for payload in self.payloads]}

    @classmethod
    def of_json(cls, content: dict[str, Any]) -> Endpoint:
        """The endpoint that :meth:`to_json` told."""
        payloads = tuple(base64.b64decode(payload) for payload in content["payloads"])
        headers = tuple((name, value) for name, value in content["headers"])
        return cls(**(content | {"payloads": payloads, "headers": headers}))


@dataclass
class Measured:
    """What a load gave."""

    latency_seconds: list[float] = field(default_factory=list)
    """Of answered requests. In an open loop from the moment that a request was due, else from sending."""
    late_seconds: list[float] = field(default_factory=list)
    """Open loop: how long after its due moment the generator sent each request. Part of the latency."""
    windows_per_s: list[float] = field(default_factory=list)
    """Closed loop: answers a second, by window."""
    errors: dict[str, int] = field(default_factory=dict)
    """Requests without an answer, by status code."""
    requests: int = 0
    """All that were sent, the warm-up included."""
    elapsed_seconds: float = 0.0
    cpu_seconds: float = 0.0
    """Of the generator, warm-up included."""


def open_loop(endpoint: Endpoint, rate_per_s: float, seconds: float) -> dict[str, Any]:
    """A request for the generator's process: send at a fixed rate, whether answers come or not."""
    return {"endpoint": endpoint.to_json(), "rate_per_s": rate_per_s, "seconds": seconds}


def closed_loop(endpoint: Endpoint, in_flight: int, seconds: float) -> dict[str, Any]:
    """A request for the generator's process: keep so many requests under way."""
    return {"endpoint": endpoint.to_json(), "in_flight": in_flight, "seconds": seconds}


async def _measure(request: dict[str, Any]) -> Measured:
    endpoint = Endpoint.of_json(request["endpoint"])
    measured = Measured()
    async with AsyncExitStack() as stack:
        calls = itertools.cycle([await _open(stack, endpoint) for _ in range(endpoint.connections)])

        def call(payload: bytes) -> Any:
            return next(calls)(payload)

        payloads = itertools.cycle(endpoint.payloads)
        await _warm_up(call, payloads)
        began = time.perf_counter()
        if "rate_per_s" in request:
            await _open_loop(call, payloads, request["rate_per_s"], request["seconds"], measured)
        else:
            await _closed_loop(call, payloads, request["in_flight"], request["seconds"], measured)
        measured.elapsed_seconds = time.perf_counter() - began
    measured.requests += _WARM_UP_REQUESTS
    return measured


async def _open(stack: AsyncExitStack, endpoint: Endpoint) -> _Call:
    """What calls the endpoint over a connection of its own."""
    channel = await stack.enter_async_context(_channel(endpoint))
    if endpoint.streamed:
        return await stack.enter_async_context(ItemCalls(channel, endpoint.method, endpoint.headers))
    method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(endpoint.method)
    return lambda payload: method(payload, timeout=_TIMEOUT_SECONDS, metadata=endpoint.headers)


def _channel(endpoint: Endpoint) -> grpc.aio.Channel:
    options = [("grpc.use_local_subchannel_pool", 1)]  # channels to the same server would share one connection
    if not endpoint.root_certificates:
        return grpc.aio.insecure_channel(endpoint.target, options)
    credentials = grpc.ssl_channel_credentials(endpoint.root_certificates.encode())
    return grpc.aio.secure_channel(endpoint.target, credentials, options)


async def _warm_up(call: _Call, payloads: Iterator[bytes]) -> None:
    """Connect, and let both sides fill their caches. Raises grpc.RpcError: a server that refuses can't be measured."""
    for _ in range(_WARM_UP_REQUESTS // _WARM_UP_IN_FLIGHT):
        await asyncio.gather(*(call(next(payloads)) for _ in range(_WARM_UP_IN_FLIGHT)))


async def _open_loop(
    call: _Call, payloads: Iterator[bytes], rate_per_s: float, seconds: float, measured: Measured
) -> None:
    count = min(_MOST_REQUESTS, max(1, round(rate_per_s * seconds)))
    measured.requests = count
    errors: Counter[str] = Counter()
    tasks: list[asyncio.Task[None]] = []
    all_sent = asyncio.Event()

    async def ask(payload: bytes, due: float) -> None:
        try:
            await call(payload)
        except grpc.RpcError as error:
            errors[_code(error)] += 1
        else:
            measured.latency_seconds.append(time.perf_counter() - due)

    def fire(due: float) -> None:
        measured.late_seconds.append(time.perf_counter() - due)
        tasks.append(loop.create_task(ask(next(payloads), due)))
        if len(tasks) == count:
            all_sent.set()

    def keep_time() -> None:
        # In a thread, because the loop's own timers are right to a millisecond only.
        start = time.perf_counter() + 0.01
        for number in range(count):
            due = start + number / rate_per_s
            time.sleep(max(0.0, due - time.perf_counter()))
            loop.call_soon_threadsafe(fire, due)

    loop = asyncio.get_running_loop()
    threading.Thread(target=keep_time, daemon=True).start()
    await all_sent.wait()
    await asyncio.gather(*tasks)
    measured.errors = dict(errors)


async def _closed_loop(
    call: _Call, payloads: Iterator[bytes], in_flight: int, seconds: float, measured: Measured
) -> None:
    errors: Counter[str] = Counter()
    ends: list[float] = []
    began = time.perf_counter()
    end = began + seconds

    async def ask() -> None:
        while (sent := time.perf_counter()) < end and measured.requests < _MOST_REQUESTS:
            measured.requests += 1
            try:
                await call(next(payloads))
            except grpc.RpcError as error:
                errors[_code(error)] += 1
                continue
            now = time.perf_counter()
            measured.latency_seconds.append(now - sent)
            ends.append(now)

    await asyncio.gather(*(ask() for _ in range(in_flight)))
    width = seconds / _WINDOWS
    counts = [0] * _WINDOWS
    for moment in ends:
        if moment < end:
            counts[min(_WINDOWS - 1, int((moment - began) / width))] += 1
    measured.windows_per_s = [count / width for count in counts]
    measured.errors = dict(errors)


def _code(error: grpc.RpcError) -> str:
    return str(error.code().name) if isinstance(error, grpc.aio.AioRpcError) else type(error).__name__


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    before = time.process_time()
    measured = uvloop.run(_measure(request))
    measured.cpu_seconds = time.process_time() - before
    return asdict(measured)


if __name__ == "__main__":
    sys.setswitchinterval(_SWITCH_SECONDS)
    answer_requests(_answer)
