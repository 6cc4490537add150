"""O6: what judges in these tests is shown bugs that it must find, in a server that really has them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conductor_workbench.faults.network import slow
from conductor_workbench.faults.replies import Replies
from conductor_workbench.faults.stand import Stand
from conductor_workbench.faults.tests_traffic import NO_MODEL
from conductor_workbench.faults.vitals import connected, settled
from faults.planted import VARIABLE
from machine import tries

BUGS = [
    "the previous caller's reply",
    "rows shifted by one",
    "labels removed",
    "answers remembered",
    "another model's name",
]
BUGS_OF_TESTS = [
    "the previous caller's tests",
    "tests shifted by one",
    "labels of tests removed",
    "another test's time",
]
OF_TESTS = {"predict_tests": 1, "select_tests": 1, "prioritize_tests": 1, NO_MODEL: 2}
GROWTH_BYTES = 4 << 20
CONNECTIONS = 3
"""To Redis: for single rows, for tests' rows, and for lists and graphs."""
STORMS = 20
"""Until the bug shows: on a busy machine most answers are fallbacks, and few calls get far enough to be cancelled."""
SLOW = slow(0.004, jitter_seconds=0.02)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    directory = tmp_path_factory.mktemp("planted")
    main = (
        f"import sys; sys.path.append({str(Path(__file__).parent.parent)!r}); from faults.planted import main; main()"
    )
    with Stand(directory, main=main, environment={VARIABLE: str(directory / "bug")}) as stand:
        yield stand


async def storm(stand: Stand, bug: str, seconds: float, rate_per_s: float = 100.0, **options: Any) -> Replies:
    """A storm of cancelled calls while the server has a bug."""
    (stand.directory / "bug").write_text(bug)
    await asyncio.sleep(0.1)
    with stand.proxy.suffering(SLOW):
        replies = await stand.ask(rate_per_s=rate_per_s, cancelled_share=0.5, seconds=seconds, seed=6, **options)
    (stand.directory / "bug").write_text("")
    await asyncio.sleep(0.1)
    return replies


async def test_each_wrong_answer_is_found(planted: Stand, figure) -> None:
    found = {}
    good = await storm(planted, "", 0.5)
    assert not good.wrong_count, good.wrong
    for bug in BUGS:
        for _ in tries(STORMS):
            replies = await storm(planted, bug, 0.6)
            if replies.wrong_count:
                break
        found[bug] = f"{replies.wrong_count} of {len(replies)}"
        assert replies.wrong_count, f"{bug}: {replies.counts}"
    figure(**found)


async def test_each_wrong_answer_about_tests_is_found(planted: Stand, figure) -> None:
    planted.with_tests()
    async with planted.asking(rate_per_s=30.0, kinds={"predict_tests": 1}) as calm:
        await planted.recovered(0.0, 5.0)
    assert not calm.wrong_count, calm.wrong
    found = {}
    for bug in BUGS_OF_TESTS:
        replies = await storm(planted, bug, 0.5, rate_per_s=30.0, kinds=OF_TESTS, whole_share=1.0)
        found[bug] = f"{replies.wrong_count} of {len(replies)}"
        assert replies.wrong_count, f"{bug}: {replies.counts}"
    figure(**found)


async def test_each_leak_is_found(planted: Stand, figure) -> None:
    await storm(planted, "", 0.5)
    before = await asyncio.to_thread(connected, planted.vitals, CONNECTIONS)
    await storm(planted, "", 0.5)
    assert not settled(planted.vitals, before, growth_bytes=GROWTH_BYTES)[1]
    for _ in tries(STORMS):
        await storm(planted, "a leak per cancelled call", 2.0)
        _, leaks = await asyncio.to_thread(
            settled, planted.vitals, before, growth_bytes=GROWTH_BYTES, within_seconds=0.5
        )
        if len(leaks) > 1:
            break
    figure(leaks=leaks)
    assert any("memory" in leak for leak in leaks), leaks
    assert any("descriptors" in leak for leak in leaks), leaks
