"""Streams whose messages carry many requests: each item is answered as a call of its own would be.

A message of requests holds ``items`` (``id``, ``request``, ``timeout``), one of responses ``results`` (``id``, and
``response`` or ``error``). What a call passes through, an item passes through too: see ``Onion.item``.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from google.protobuf.message import Message
from google.rpc import status_pb2  # type: ignore[import-untyped, unused-ignore]

from conductor_rpc.call import Call, Deadline, Identity, current_call
from conductor_rpc.departures import send
from conductor_rpc.exceptions import ConductorError, CredentialsInvalid, InvalidRequest, Stopping, Violation
from conductor_rpc.settings import RpcSettings

Handler = Callable[[Any], Awaitable[Message]]
"""Answers one request."""


class ItemStreams:
    """The streams of a process that are open."""

    def __init__(
        self,
        through: Callable[[Call, Message, Handler], Awaitable[Message]],
        settings: RpcSettings,
        most: Callable[[], int],
    ) -> None:
        """How items are answered.

        Args:
            through: Lets a handler answer as a call's does; an error is a ``google.rpc.Status``, never raised.
            settings: The items' default deadline.
            most: How many items one stream may have under way now.
        """
        self._through, self._settings, self._most = through, settings, most
        self._open: set[_ItemStream] = set()
        self._stopping = False

    def stop(self) -> None:
        """Let every stream answer what it has read, then end."""
        self._stopping = True
        for stream in self._open:
            stream.end(Stopping())

    async def answer(
        self,
        requests: AsyncIterator[Any],
        write: Callable[[Message], Awaitable[None]],
        response: type[Any],
        method: str,
        handler: Handler,
    ) -> None:
        """Answer the items of the stream that this task answers, until its caller ends it.

        Args:
            requests: messages, each checked as it comes: credentials, tenant, rules.
            write: takes a message of responses, and returns once there is room for the next.
            response: the type of such a message.
            method: what an item is counted as: the method that answers the same as a call.
            handler: answers one item's request.

        Raises:
            Stopping: the process stops.
            CredentialsInvalid: the token no longer holds.
            InvalidRequest: a message can't be taken.
            BatchTooLarge: a message holds too many items.
        """
        call = current_call()
        if call is None:
            raise RuntimeError("there is no call to answer items of")

        def answer(request: Message, until: float, waited_since: float) -> Awaitable[Message]:
            deadline = Deadline(min(until, call.deadline.time))
            item = Call(method, call.metadata, deadline, call.identity, waited_since=waited_since)
            return self._through(item, request, handler)

        if self._stopping:
            raise Stopping
        stream = _ItemStream(answer, response, self._settings.default_deadline_seconds, self._most)
        self._open.add(stream)
        expiry = _at_expiry(call.identity, lambda: stream.end(CredentialsInvalid()))
        try:
            await stream.run(requests, write)
        finally:
            self._open.discard(stream)
            expiry.cancel()


class _ItemStream:
    """One open stream. A place is taken by an item from its beginning until its result has been written."""

    def __init__(
        self,
        answer: Callable[[Message, float, float], Awaitable[Message]],
        response: type[Any],
        default_seconds: float,
        most: Callable[[], int],
    ) -> None:
        self._answer, self._default_seconds, self._most = answer, default_seconds, most
        self._taken_count = 0
        self._freed = asyncio.Event()
        self._response_type = response
        self._response = response()
        """What is written next."""
        self._answered: list[int] = []
        """The items that it has results of."""
        self._under_way: set[int] = set()
        self._woken = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None
        self._between_messages = False
        self._error: ConductorError | None = None

    def end(self, error: ConductorError) -> None:
        """Read nothing more, answer what was read, then end with the error."""
        self._error = self._error or error
        if self._reading is not None and self._between_messages:
            self._reading.cancel()

    async def run(self, requests: AsyncIterator[Any], write: Callable[[Message], Awaitable[None]]) -> None:
        """Read, answer and write. Raises ConductorError: what ended the reading, after the last result."""
        async with asyncio.TaskGroup() as tasks:
            self._reading = tasks.create_task(self._read(requests, tasks))
            self._reading.add_done_callback(lambda _: self._woken.set())
            while self._under_way or not self._reading.done():
                await self._woken.wait()
                self._woken.clear()
                if self._answered:
                    await self._write(write)
        if self._error is not None:
            raise self._error

    async def _write(self, write: Callable[[Message], Awaitable[None]]) -> None:
        """Write what is ready. What gets ready meanwhile is the next message."""
        response, self._response = self._response, self._response_type()
        answered, self._answered = self._answered, []
        self._under_way.difference_update(answered)  # the caller may use an id again before the write has returned
        await send(write, response)
        self._taken_count -= len(answered)
        self._freed.set()

    async def _read(self, requests: AsyncIterator[Any], tasks: asyncio.TaskGroup) -> None:
        try:
            while self._error is None and (message := await self._next(requests)) is not None:
                arrived = time.monotonic()
                self._take_ids([item.id for item in message.items])
                for item in message.items:
                    waited = await self._take_place()
                    tasks.create_task(self._answer_item(item, arrived, arrived if waited else 0.0))
        except ConductorError as error:
            self._error = self._error or error

    async def _take_place(self) -> bool:
        """Whether it had to be waited for."""
        waited = False
        while self._taken_count >= self._most():
            self._freed.clear()
            await self._freed.wait()
            waited = True
        self._taken_count += 1
        return waited

    async def _next(self, requests: AsyncIterator[Any]) -> Any:
        self._between_messages = True
        try:
            return await anext(requests, None)
        finally:
            self._between_messages = False

    def _take_ids(self, ids: Sequence[int]) -> None:
        taken = set(ids)
        if len(taken) < len(ids) or not taken.isdisjoint(self._under_way):
            raise InvalidRequest([Violation("items.id", "must not be that of another item without a result")])
        self._under_way |= taken

    async def _answer_item(self, item: Any, arrived: float, waited_since: float) -> None:
        seconds = self._default_seconds
        if item.HasField("timeout"):
            seconds = item.timeout.seconds + item.timeout.nanos / 1e9
        answer = await self._answer(item.request, arrived + seconds, waited_since)
        result = self._response.results.add(id=item.id)
        (result.error if isinstance(answer, status_pb2.Status) else result.response).CopyFrom(answer)
        self._answered.append(item.id)
        self._woken.set()


def _at_expiry(identity: Identity | None, end: Callable[[], None]) -> asyncio.TimerHandle:
    """Calls ``end`` when the credentials expire; never where there are none, or none that do."""
    seconds = identity.expiry_time - time.time() if identity is not None else math.inf
    return asyncio.get_running_loop().call_later(seconds, end)
