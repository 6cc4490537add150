"""S1: spoilt messages and metadata, to every method of every service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager

import grpc
import pytest
from google.protobuf.message import Message
from grpc_status import rpc_status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faults.scene import Scene
from security.attacked import ATTACK_SECONDS, Attacked, bearer, channel, require_good, undocumented
from security.raw_http2 import PREDICT
from security.requests import spoilt, valid_requests

TENANT = "fuzzer"
"""It has no models and no builds: what is stored for it is nobody's."""
PREDICTION, EVENTS = valid_requests(TENANT)
METHODS = sorted({(True, method) for method in PREDICTION} | {(False, method) for method in EVENTS})
EXAMPLES = int(12 + 5 * ATTACK_SECONDS)
WATCHES = ("Watch", "WatchModels")  # they have no end
FUZZED = settings(
    max_examples=EXAMPLES,
    derandomize=ATTACK_SECONDS == 0,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
PATIENCE_SECONDS = 30.0
Call = Callable[[str, bytes, tuple[tuple[str, str | bytes], ...]], str]


def calling(calls: grpc.Channel) -> Call:
    """Calls a method with bytes, and tells what is wrong with what comes back; empty for nothing."""

    def call(method: str, content: bytes, metadata: tuple[tuple[str, str | bytes], ...]) -> str:
        watches = method.rpartition("/")[2] in WATCHES
        try:
            calls.unary_unary(method)(content, timeout=0.05 if watches else PATIENCE_SECONDS, metadata=metadata)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and not watches:
                return "no answer in time"
            if error.code() is grpc.StatusCode.UNAVAILABLE and rpc_status.from_call(error) is None:
                return f"the connection was lost: {error.details()}"
            return undocumented(error)
        return ""

    return call


@contextmanager
def attacked(scene: Scene, of_predictions: bool) -> Iterator[Call]:
    """Somebody who calls, the process being looked at before and after."""
    name, target = ("serve", None) if of_predictions else ("warehouse-serve", scene.platform.events_target)
    server = Attacked(scene.platform.pid(name))
    with channel(scene, target) as calls, channel(scene) as others:
        call = calling(calls)
        call(PREDICT, b"", bearer(scene, TENANT))
        before = server.held()
        yield call
        require_good(scene, others)
        server.require_back(before, megabytes=30)


@pytest.mark.parametrize(("of_predictions", "method"), METHODS)
def test_spoilt_messages(scene: Scene, of_predictions: bool, method: str) -> None:
    request: Message = (PREDICTION if of_predictions else EVENTS)[method]
    metadata = bearer(scene, TENANT)
    with attacked(scene, of_predictions) as call:

        @FUZZED
        @given(content=spoilt(request.SerializeToString()), known=st.booleans())
        def fuzz(content: bytes, known: bool) -> None:
            assert not call(method, content, metadata if known else ())

        assert not call(method, request.SerializeToString(), metadata)
        fuzz()


_KEYS = st.sampled_from(
    [
        "authorization", "x", "traceparent", "tracestate", "baggage", "server-timing", "grpc-timeout",
        "grpc-encoding", "grpc-accept-encoding", "te", "user-agent", "x-bin", "authorization-bin", "content-length",
    ]
)  # fmt: skip
_TEXT = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=300)
_PAIRS = st.lists(st.tuples(_KEYS, _TEXT), max_size=8)


def test_spoilt_metadata(scene: Scene) -> None:
    content = PREDICTION[PREDICT].SerializeToString()
    good = bearer(scene, TENANT)
    with attacked(scene, True) as call:

        @FUZZED
        @given(pairs=_PAIRS, known=st.booleans(), often=st.sampled_from([1, 1, 1, 40]))
        def fuzz(pairs: list[tuple[str, str]], known: bool, often: int) -> None:
            more = [(key, value.encode() if key.endswith("-bin") else value) for key, value in pairs] * often
            problem = call(PREDICT, content, (*more, *(good if known else ())))
            # A client's own library sends no such key; then nothing reached the server.
            assert not problem or "illegal" in problem.lower()

        fuzz()
        for size in (9_000, 17_000, 60_000, 1_000_000):
            assert not call(PREDICT, content, (*good, ("x", "y" * size)))


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (0, 0)])
def test_credentials_that_stand_twice_are_none(scene: Scene, order: tuple[int, int]) -> None:
    """Else a proxy could believe the one, and we the other."""
    choice = (bearer(scene, "tenant-000")[0], bearer(scene, "tenant-001")[0])
    with channel(scene) as calls:
        for method, request in PREDICTION.items():
            if method == PREDICT:
                with pytest.raises(grpc.RpcError) as refused:
                    calls.unary_unary(method)(
                        request.SerializeToString(),
                        timeout=PATIENCE_SECONDS,
                        metadata=tuple(choice[at] for at in order),
                    )
                assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


class _Careless(grpc.GenericRpcHandler):
    """The planted bugs: what a server without our layers tells, and one that hangs."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        async def raises(request: bytes, context: object) -> bytes:
            if details.method == "/hangs":
                await asyncio.sleep(600)
            if details.method == "/tells":
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no such file: /usr/lib/model.onnx")  # type: ignore[attr-defined]
            raise ValueError(request)

        return grpc.unary_unary_rpc_method_handler(raises)


def test_the_check_finds_what_is_planted() -> None:
    async def serve(ready: futures.Future[int], stop: futures.Future[asyncio.Event]) -> None:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((_Careless(),))
        ready.set_result(server.add_insecure_port("127.0.0.1:0"))
        await server.start()
        stopping = asyncio.Event()
        stop.set_result(stopping)
        await stopping.wait()
        await server.stop(None)

    ready: futures.Future[int] = futures.Future()
    stop: futures.Future[asyncio.Event] = futures.Future()
    with futures.ThreadPoolExecutor(1) as pool:
        loop = asyncio.new_event_loop()
        running = pool.submit(loop.run_until_complete, serve(ready, stop))
        stopping = stop.result(60)
        try:
            with grpc.insecure_channel(f"127.0.0.1:{ready.result(60)}") as calls:
                call = calling(calls)
                assert "<class" in call("/raises", b"x", ())
                assert "/usr/" in call("/tells", b"x", ())
        finally:  # the pool waits for it
            loop.call_soon_threadsafe(stopping.set)
        running.result(60)
        loop.close()
