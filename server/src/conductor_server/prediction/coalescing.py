"""Answers questions that come in at the same moment together: one read, one run.

Nobody waits for company. What has been asked by the time that the event loop gets round to answering is one batch: a
lone request is a batch of one, and the more there is to do, the less each costs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

_LOG = logging.getLogger(__name__)
_MOST_TOGETHER = 64
"""Others must not wait for too long a batch."""

Q = TypeVar("Q")
A = TypeVar("A")


class Coalescer(Generic[Q, A]):
    """Gathers questions for one function that answers many."""

    def __init__(self, answer: Callable[[Sequence[Q]], Awaitable[Sequence[A]]]) -> None:
        """``answer`` gives answers in the order of the questions."""
        self._answer = answer
        self._waiting: list[tuple[Q, asyncio.Future[A]]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._context = Context()  # a batch is nobody's own call

    async def ask(self, question: Q) -> A:
        """The answer to one question. May be cancelled at any moment; raises what answering raises."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[A] = loop.create_future()
        self._waiting.append((question, future))
        if len(self._waiting) == 1:
            loop.call_soon(self._flush, context=self._context)
        return await future

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        asked = [(question, future) for question, future in waiting if not future.done()]
        for begin in range(0, len(asked), _MOST_TOGETHER):
            task = asyncio.get_running_loop().create_task(self._give(asked[begin : begin + _MOST_TOGETHER]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

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
