"""Many predictions on one stream: a call of its own costs more than the prediction."""

import asyncio
import itertools
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self, Unpack

import grpc
import grpc.aio

from conductor.build.v1.build_context_pb2 import BuildContext
from conductor.prediction.v1.build_duration_pb2 import (
    PredictBuildDurationRequest,
    PredictBuildDurationResponse,
    StreamBuildDurationPredictionsRequest,
    StreamBuildDurationPredictionsResult,
)
from conductor_client._aio_status import ServerStatus
from conductor_client.builds import BuildFields
from conductor_client.connection import Attempts, ConnectionSettings
from conductor_client.errors import (
    ConductorError,
    DeadlineExceeded,
    Overloaded,
    Unavailable,
    error_from_rpc,
    error_from_status,
)
from conductor_client.predictions import BuildDurationPrediction, build_duration_prediction
from conductor_client.requests import single_request

_MOST_UNANSWERED = 256
"""Items sent and not answered. More would lie between here and the server, and be answered to nobody."""
_MOST_BYTES = 1 << 20
"""Bytes in one message, about, unless a single item is larger."""
_FRAME_BYTES = 64
"""What an item adds to its request, at most."""
_LONGEST_SECONDS = 1e9
_PATIENCE_SECONDS = 0.5
_JITTER = (0.8, 1.2)
"""As gRPC's own."""


@dataclass(slots=True, eq=False)
class _Asked:
    """A question without an answer."""

    request: PredictBuildDurationRequest
    attempts: Attempts
    answer: asyncio.Future[PredictBuildDurationResponse]
    broken: Counter[grpc.StatusCode] = field(default_factory=Counter)
    """With what the streams ended that it waited on."""

    def fail(self, error: Exception) -> None:
        """Let an error be the answer; whoever asked may be gone already."""
        if not self.answer.done():
            self.answer.set_exception(error)


class BuildDurationStream:
    """Predicts like `ConductorClient.predict_build_duration`, on a stream that stays open. Share it among tasks.

    What is asked while a message is on its way out goes out together as the next one. A stream that breaks, because its
    server stops or its token expires, is opened again, and what has no answer yet is asked again, as often as a call
    would be and within its own time.
    """

    def __init__(self, settings: ConnectionSettings, open_stream: Callable[..., Any]) -> None:
        """``open_stream``: the stub's method. `ConductorClient.build_duration_stream` makes one."""
        self._settings, self._open_stream = settings, open_stream
        self._asked: dict[int, _Asked] = {}
        self._ids = itertools.count(1)
        self._unsent: deque[int] = deque()
        self._unanswered: set[int] = set()
        """What was sent on the stream that is open; whoever asked may be gone."""
        self._news = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._closing = False

    async def predict(
        self,
        tenant_id: str,
        build: BuildContext | None = None,
        *,
        contribution_count: int | None = None,
        timeout_seconds: float | None = None,
        **fields: Unpack[BuildFields],
    ) -> BuildDurationPrediction:
        """As `ConductorClient.predict_build_duration`. May be cancelled at any moment. Raises ConductorError."""
        if self._running is None or self._closing:
            raise RuntimeError(
                "the stream is not open: use it as `async with client.build_duration_stream() as stream`"
            )
        request = single_request(tenant_id, build, fields, contribution_count)
        if request.ByteSize() + _FRAME_BYTES > self._settings.maximum_message_bytes:
            raise Overloaded(grpc.StatusCode.RESOURCE_EXHAUSTED, "the request is larger than a message may be")
        attempts = Attempts(self._settings.timeout_seconds if timeout_seconds is None else timeout_seconds)
        while True:
            try:
                return build_duration_prediction(await self._ask(request, attempts))
            except ConductorError as error:
                wait = attempts.wait_told(error)
                if wait is None:
                    raise
            await asyncio.sleep(wait)

    async def close(self) -> None:
        """End the stream. What is asked and has no answer yet fails."""
        running, self._closing = self._running, True
        self._fail(ConductorError(grpc.StatusCode.CANCELLED, "the stream was closed"))
        self._news.set()
        if running is not None:
            await asyncio.wait({running}, timeout=_PATIENCE_SECONDS)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _ask(self, request: PredictBuildDurationRequest, attempts: Attempts) -> PredictBuildDurationResponse:
        asked = _Asked(request, attempts, asyncio.get_running_loop().create_future())
        item_id = next(self._ids)
        self._asked[item_id] = asked
        self._unsent.append(item_id)
        self._news.set()
        try:
            async with asyncio.timeout(attempts.timeout()):
                return await asked.answer
        except TimeoutError:
            raise DeadlineExceeded(grpc.StatusCode.DEADLINE_EXCEEDED, "no answer came in time") from None
        finally:
            self._asked.pop(item_id, None)

    async def _run(self) -> None:
        """Keep a stream open while there is something to ask."""
        fruitless_count = 0
        while True:
            while not self._asked and not self._closing:
                self._news.clear()
                await self._news.wait()
            if self._closing:
                return
            try:
                was_of_use, error = await self._talk()
            except Exception as failure:  # the token's source may raise anything: who asks is told
                self._fail(failure)
                continue
            self._broke(error)
            fruitless_count = 0 if was_of_use else fruitless_count + 1
            wait = min(
                self._settings.initial_backoff_seconds * 2**fruitless_count, self._settings.maximum_backoff_seconds
            )
            if self._asked:  # a call's attempts are as far apart: all of them outlast one connection that fails
                await asyncio.sleep(wait * random.uniform(*_JITTER))  # noqa: S311 - no secret

    async def _talk(self) -> tuple[bool, ConductorError]:
        """One stream from its opening to its end: whether it gave any answer, and what it ended with."""
        call = self._open_stream(metadata=self._settings.metadata())
        server_status = ServerStatus(call)
        self._unsent = deque(self._asked)
        self._unanswered.clear()
        sending = asyncio.create_task(self._send(call))
        was_of_use = False
        try:
            while (response := await call.read()) is not grpc.aio.EOF:
                was_of_use = True
                for result in response.results:
                    self._take(result)
                if self._unsent:
                    self._news.set()
        except grpc.RpcError as error:
            return was_of_use, error_from_rpc(await server_status.of(error))
        except asyncio.CancelledError:
            if not _ended_by_server(call):
                raise
            return was_of_use, ConductorError(grpc.StatusCode.CANCELLED, "the server cancelled the stream")
        finally:
            call.cancel()
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        return was_of_use, Unavailable(grpc.StatusCode.UNAVAILABLE, "the server ended the stream")

    async def _send(self, call: Any) -> None:
        while not self._closing:
            self._news.clear()
            if message := self._next_message():
                await call.write(message)
            else:
                await self._news.wait()
        await call.done_writing()

    def _next_message(self) -> StreamBuildDurationPredictionsRequest | None:
        message, size = StreamBuildDurationPredictionsRequest(), 0
        while self._unsent and len(self._unanswered) < _MOST_UNANSWERED:
            item_id = self._unsent[0]
            asked = self._asked.get(item_id)
            if asked is not None:
                size += asked.request.ByteSize() + _FRAME_BYTES
                if message.items and size > _MOST_BYTES:
                    break
                item = message.items.add(id=item_id, request=asked.request)
                seconds = asked.attempts.timeout()
                if seconds is not None:
                    item.timeout.FromNanoseconds(int(min(seconds, _LONGEST_SECONDS) * 1e9))
                self._unanswered.add(item_id)
            self._unsent.popleft()
        return message if message.items else None

    def _take(self, result: StreamBuildDurationPredictionsResult) -> None:
        self._unanswered.discard(result.id)
        asked = self._asked.pop(result.id, None)
        if asked is None:  # whoever asked is gone
            return
        if result.WhichOneof("result") == "error":
            asked.fail(error_from_status(result.error))
        elif not asked.answer.done():
            asked.answer.set_result(result.response)

    def _broke(self, error: ConductorError) -> None:
        """Fail what has been asked often enough."""
        often = self._settings.maximum_attempts
        limits = {
            grpc.StatusCode.UNAVAILABLE: often,
            grpc.StatusCode.CANCELLED: often,  # crossed with a server's stop
            grpc.StatusCode.UNAUTHENTICATED: min(often, 2),  # expired: the next stream has another token
        }
        for item_id, asked in list(self._asked.items()):
            asked.broken[error.code] += 1
            if asked.broken[error.code] >= limits.get(error.code, 1):
                del self._asked[item_id]
                asked.fail(error)

    def _fail(self, error: Exception) -> None:
        """Fail all that is asked."""
        asked, self._asked = self._asked, {}
        for one in asked.values():
            one.fail(error)


def _ended_by_server(call: Any) -> bool:
    """Whether a cancellation is the call's own status: gRPC raises the same for that and for a cancelled task."""
    task = asyncio.current_task()
    return bool(call.done()) and task is not None and not task.cancelling()
