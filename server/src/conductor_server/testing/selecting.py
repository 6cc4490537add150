"""Which tests to run, in arrays: pure, the same for the same arguments."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from conductor_server.testing.answers import Choice, Numbers
from conductor_server.testing.questions import TestRun
from conductor_server.testing.rows import Array, Mask

Choices = NDArray[np.int64]

_UNDECIDED = 0
_ROUNDS = 16
_ROUNDING = 1 + 1e-9
"""Sums of the same times in another order must not differ."""


def is_run(choices: Choices) -> Mask:
    """Of each test whether it is to be run."""
    return choices < Choice.UNLIKELY


def ruled(must_run: Mask, reached: Mask, never_ran: Mask, unreadable: Mask) -> Choices:
    """What is run whatever the goal is; 0 for what is left to it."""
    return np.select(
        [must_run, reached, unreadable, never_ran],
        [Choice.MUST_RUN, Choice.REACHED, Choice.HISTORY_UNREADABLE, Choice.NEVER_RAN],
        _UNDECIDED,
    ).astype(np.int64)


def above(choices: Choices, probabilities: Array, threshold: float) -> Choices:
    """Decide the rest by a threshold of their probability."""
    by_threshold = np.where(probabilities >= threshold, Choice.LIKELY_ENOUGH, Choice.UNLIKELY)
    return np.where(choices == _UNDECIDED, by_threshold, choices)


def everything(choices: Choices) -> Choices:
    """Run the rest, too."""
    return np.where(choices == _UNDECIDED, Choice.EVERYTHING, choices)


def within(choices: Choices, seconds: Array, order: Numbers, budget: float) -> Choices:
    """Decide the rest by a budget of time, which what is decided counts against: what is worth most comes first.

    Args:
        choices: what is decided.
        seconds: what each test takes.
        order: the tests, those worth most first.
        budget: seconds in all.
    """
    choices = choices.copy()
    left = budget * _ROUNDING - float(seconds[choices != _UNDECIDED].sum())
    waiting = order[choices[order] == _UNDECIDED]
    choices[waiting] = Choice.OUT_OF_TIME
    for _ in range(_ROUNDS):
        # What comes first and fits; then, without what is too long for the time left, again.
        waiting = waiting[seconds[waiting] <= left]
        spent = np.cumsum(seconds[waiting])
        fitting = int(np.searchsorted(spent, left, side="right"))
        if not fitting:
            break
        choices[waiting[:fitting]] = Choice.WORTH_ITS_TIME
        left -= float(spent[fitting - 1])
        waiting = waiting[fitting:]
    return choices


def audited(choices: Choices, share: float, run: TestRun, goal: float) -> Choices:
    """Draw some of those left out, each with the probability ``share``: the same for the same run and goal."""
    what = repr((run.tenant_id, run.repository, run.commit_sha, run.moment_us, goal)).encode()
    seed = int.from_bytes(hashlib.blake2b(what, digest_size=16).digest())
    drawn = np.random.default_rng(seed).random(len(choices)) < share
    return np.where(drawn & ~is_run(choices), Choice.AUDIT, choices)
