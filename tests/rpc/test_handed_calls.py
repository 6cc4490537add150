"""What a call waits for, its caller or us, is told by who overtakes it."""

from __future__ import annotations

from conductor_rpc.handed_calls import HandedCalls


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_in_their_order_calls_wait_for_us():
    clock = Clock()
    calls = HandedCalls(clock)
    some = []
    for _ in range(3):
        some.append(calls.handed())
        clock.now += 1
    assert len(calls) == 3
    assert [calls.came(call) for call in some] == [100, 101, 102]
    assert len(calls) == 0


def test_who_is_overtaken_waits_for_its_caller():
    clock = Clock()
    calls = HandedCalls(clock)
    silent, late = calls.handed(), calls.handed()
    clock.now += 10
    soon, later = calls.handed(), calls.handed()
    clock.now += 2
    assert calls.came(soon) == 110
    assert len(calls) == 1, "it has overtaken two"
    clock.now += 5
    assert calls.came(late) == 115, "it waited for us no longer than the one that overtook it"
    assert calls.came(later) == 110, "and has overtaken nobody who came after it"
    calls.left(silent)
    assert len(calls) == 0


def test_who_leaves_waits_no_longer():
    calls = HandedCalls()
    calls.left(calls.handed())
    gone, there = calls.handed(), calls.handed()
    calls.came(there)
    calls.left(gone)
    calls.left(there)
    assert len(calls) == 0
