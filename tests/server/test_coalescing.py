"""Who is asked together, and who must not wait for whom."""

from __future__ import annotations

import asyncio

from conductor_server.prediction.coalescing import Coalescer


async def test_what_is_asked_together_is_answered_at_once_and_what_is_apart_waits_for_nobody():
    batches: list[list[str]] = []
    slow = asyncio.Event()

    async def answer(questions):
        batches.append(list(questions))
        if "patient" in questions:
            await slow.wait()
        return [question.upper() for question in questions]

    together = Coalescer(answer, apart=lambda question: question == "hurried")
    patient, second = (asyncio.ensure_future(together.ask(who)) for who in ("patient", "as patient"))
    assert await asyncio.wait_for(together.ask("hurried"), 5) == "HURRIED"
    assert not patient.done()
    slow.set()
    assert await asyncio.gather(patient, second) == ["PATIENT", "AS PATIENT"]
    assert batches == [["patient", "as patient"], ["hurried"]]
