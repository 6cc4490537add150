"""Answers questions that come in at the same moment together: one read, one run.

Nobody waits for company: a lone question is a batch of one, and is answered at once. What is asked while a batch is
under way is the next one, so the more there is to do, the less each costs. A batch that takes long, because Redis does
not answer say, holds nobody up for long: after a moment the next one begins beside it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

_LOG = logging.getLogger(__name__)
_MOST_TOGETHER = 64
"""Others must not wait for too long a batch."""
_PATIENCE_SECONDS = 0.005
"""How long a batch has the way to itself."""

Q = TypeVar("Q")
A = TypeVar("A")


class Coalescer(Generic[Q, A]):
    """Gathers questions for one function that answers many."""

    def __init__(
        self,
        answer: Callable[[Sequence[Q]], Awaitable[Sequence[A]]],
        begins: Callable[[Sequence[Q]], None] = lambda _: None,
        ends: Callable[[Sequence[Q]], None] = lambda _: None,
        *,
        apart: Callable[[Q], Hashable] = lambda _: None,
    ) -> None:
        """``answer`` gives answers in the order of the questions; ``begins`` is told of a batch before,
        ``ends`` when its answers are there, before any of those who asked goes on.

        ``apart``: questions for which it differs are not answered together, as a batch is ready when its last one is.
        """
        self._answer, self._batch_begins, self._batch_ends, self._apart = answer, begins, ends, apart
        self._waiting: list[tuple[Q, asyncio.Future[A]]] = []
        self._begins: asyncio.Handle | None = None
        """When what is waiting is answered, if nothing changes."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._context = Context()  # a batch is nobody's own call

    async def ask(self, question: Q) -> A:
        """The answer to one question. May be cancelled at any moment; raises what answering raises."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[A] = loop.create_future()
        self._waiting.append((question, future))
        if self._begins is None:
            if self._tasks:
                self._begins = loop.call_later(_PATIENCE_SECONDS, self._begin, context=self._context)
            else:
                self._begins = loop.call_soon(self._begin, context=self._context)
        return await future

    def _begin(self) -> None:
        """Answer all that is waiting."""
        self._begins = None
        waiting, self._waiting = self._waiting, []
        together: dict[Hashable, list[tuple[Q, asyncio.Future[A]]]] = {}
        for question, future in waiting:
            if not future.done():
                together.setdefault(self._apart(question), []).append((question, future))
        for asked in together.values():
            for first in range(0, len(asked), _MOST_TOGETHER):
                task = asyncio.get_running_loop().create_task(self._answer_batch(asked[first : first + _MOST_TOGETHER]))
                self._tasks.add(task)
                task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._begins is not None and not self._tasks:
            self._begins.cancel()
            self._begins = asyncio.get_running_loop().call_soon(self._begin, context=self._context)

    async def _answer_batch(self, asked: Sequence[tuple[Q, asyncio.Future[A]]]) -> None:
        self._batch_begins([question for question, _ in asked])
        await self._give(asked)

    async def _give(self, asked: Sequence[tuple[Q, asyncio.Future[A]]]) -> None:
        try:
            answers = await self._answer([question for question, _ in asked])
        except Exception as error:
            if len(asked) > 1:  # what is wrong with one question must not cost the others their answers
                _LOG.exception("%d questions could not be answered together", len(asked))
                for one in asked:
                    await self._give([one])
                return
            for _, future in asked:
                if not future.done():
                    future.set_exception(error)
        except asyncio.CancelledError:
            for _, future in asked:
                future.cancel()
            raise
        else:
            for (_, future), answer in zip(asked, answers, strict=True):
                if not future.done():
                    future.set_result(answer)
            self._batch_ends([question for question, _ in asked])
