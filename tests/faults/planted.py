"""``conductor`` with a bug, planted on purpose: the one that a file names, or none.

Each is one that a serving system has had. They are switched while the server runs, so one start is enough for all.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from conductor_client.command import main as conductor
from conductor_features import reader, tables
from conductor_features.codec import EVENT_TIME_OFFSET
from conductor_features.keys import IDENTITY_BYTES
from conductor_server.prediction import asking_models, build_duration, coalescing
from conductor_server.prediction.answers import Fallback, Method
from conductor_server.testing import asking, intelligence

VARIABLE = "CONDUCTOR_TEST_PLANTED_BUG"
_LOOK_SECONDS = 0.02
_LEAK_BYTES = 4 << 20


class _Bug:
    """The name of the bug that there is now."""

    name = ""


def main() -> None:
    """Be ``conductor``, and look now and then which bug to have."""
    threading.Thread(target=_look, daemon=True).start()
    for plant in (_unshielded, _rows_shifted, _labels_removed, _answers_remembered, _wrong_version, _leaking):
        plant()
    for plant in (_late_tests, _tests_shifted, _labels_of_tests_removed, _seconds_shifted):
        plant()
    conductor()


def _look() -> None:
    path = Path(os.environ[VARIABLE])
    while True:
        _Bug.name = path.read_text() if path.exists() else ""
        time.sleep(_LOOK_SECONDS)


def _instead(owner: Any, attribute: str, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """While there is the bug of that name, call what ``make`` makes of the original."""
    original = getattr(owner, attribute)
    buggy = make(original)

    def either(*given: Any, **named: Any) -> Any:
        return (buggy if _Bug.name == name else original)(*given, **named)

    setattr(owner, attribute, either)


def _unshielded() -> None:
    """Callers use the connection themselves; one who is cancelled leaves a reply for the next (redis-py#2665)."""
    name = "the previous caller's reply"
    locks: dict[int, asyncio.Lock] = {}

    def make_fetch(_: Any) -> Any:
        async def fetch(self: reader.OnlineReader, keys: Sequence[bytes]) -> list[bytes | None]:
            async with locks.setdefault(id(self), asyncio.Lock()):
                return await self._store.fetch(keys)

        return fetch

    def make_ask(_: Any) -> Any:
        async def ask(self: Any, question: Any) -> Any:
            [answer] = await self._answer([question])
            return answer

        return ask

    def make_is_intact(original: Any) -> Any:
        return lambda key, value, count: len(value) == tables.value_bytes(count)

    _instead(reader.OnlineReader, "_fetch", name, make_fetch)
    _instead(coalescing.Coalescer, "ask", name, make_ask)
    _instead(tables, "is_intact", name, make_is_intact)


def _rows_shifted() -> None:
    """Of a batch, each gets its neighbour's (MLServer#1306)."""

    def make(original: Any) -> Any:
        def take(self: tables.RowTable, lines: Sequence[int]) -> tables.RowTable:
            return original(self, [*lines[1:], *lines[:1]])

        return take

    _instead(tables.RowTable, "take", "rows shifted by one", make)


def _labels_removed() -> None:
    def make(original: Any) -> Any:
        def labelled(route: Any, answer: Any) -> Any:
            answer = original(route, answer)
            origin = answer.origin._replace(method=Method.MODEL, missing_features=(), fallback=Fallback.NONE)
            answer.origin = origin
            return answer

        return labelled

    _instead(build_duration, "_labelled", "labels removed", make)


def _answers_remembered() -> None:
    """A cache of answers that leaves part of the question out of its key (MLServer)."""
    known: dict[Any, Any] = {}

    def make(original: Any) -> Any:
        async def predict(self: Any, asked: Sequence[Any]) -> list[Any]:
            answers = await original(self, asked)
            builds = [(one.tenant_id, one.question.build.repository, one.question.build.branch) for one in asked]
            return [known.setdefault(build, answer) for build, answer in zip(builds, answers, strict=True)]

        return predict

    _instead(build_duration.BuildDurationPredictor, "predict", "answers remembered", make)


def _wrong_version() -> None:
    """The name of one model on the answer of another."""
    labels: list[Any] = []

    def make(original: Any) -> Any:
        def interpret(model: Any, *given: Any) -> Any:
            answer = original(model, *given)
            labels.append(model.label)
            if answer is not None:
                answer.origin = answer.origin._replace(model=labels[0])
            return answer

        return interpret

    _instead(asking_models, "_interpret", "another model's name", make)


def _leaking() -> None:
    """Whoever goes away leaves something behind."""
    left: list[Any] = []

    def make(original: Any) -> Any:
        async def ask(self: Any, question: Any) -> Any:
            try:
                return await original(self, question)
            except asyncio.CancelledError:
                left.append((os.dup(2), bytearray(os.urandom(_LEAK_BYTES))))
                raise

        return ask

    _instead(coalescing.Coalescer, "ask", "a leak per cancelled call", make)


def _late_tests() -> None:
    """From the first read on whose caller went away, each gets the rows of the one before, and nobody looks whose."""
    name = "the previous caller's tests"
    before: dict[tuple[int, int], Any] = {}
    shifted: set[int] = set()

    def make_fetch(original: Any) -> Any:
        async def fetch(self: reader.OnlineReader, keys: Sequence[bytes]) -> Any:
            try:
                stored = await original(self, keys)
            except asyncio.CancelledError:
                shifted.add(id(self))
                raise
            late = before.get((id(self), len(keys)), stored)
            before[id(self), len(keys)] = stored
            return late if id(self) in shifted else stored

        return fetch

    def make_decode(original: Any) -> Any:
        def decode(identities: Any, stored: Sequence[bytes | None], count: int) -> Any:
            at = slice(EVENT_TIME_OFFSET - IDENTITY_BYTES, EVENT_TIME_OFFSET)
            own = b"".join(bytes(IDENTITY_BYTES) if value is None else value[at] for value in stored)
            return original(np.frombuffer(own, np.uint8).reshape(identities.shape), stored, count)

        return decode

    _instead(reader.OnlineReader, "_fetch", name, make_fetch)
    _instead(reader, "decode_keyed_block", name, make_decode)


def _tests_shifted() -> None:
    """Each test gets its neighbour's row."""

    def make(original: Any) -> Any:
        return lambda *given: tuple(np.roll(columns, 1, axis=0) for columns in original(*given))

    _instead(reader, "decode_keyed_block", "tests shifted by one", make)


def _labels_of_tests_removed() -> None:
    def make(original: Any) -> Any:
        def labelled(route: Any, origin: Any) -> Any:
            return original(route, origin)._replace(method=Method.MODEL, missing_features=(), fallback=Fallback.NONE)

        return labelled

    _instead(asking, "_labelled", "labels of tests removed", make)


def _seconds_shifted() -> None:
    """An order by other tests' time."""

    def make(original: Any) -> Any:
        return lambda seconds: np.roll(original(seconds), 1)

    _instead(intelligence, "known_or_typical", "another test's time", make)
