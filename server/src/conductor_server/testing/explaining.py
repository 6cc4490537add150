"""Why the likeliest tests are likely to fail."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from conductor_server.prediction.answers import Contribution
from conductor_server.prediction.contributions import contributions, effects, variants
from conductor_server.prediction.ports import ModelFailed
from conductor_server.testing.answers import Explanation
from conductor_server.testing.asking import Scored
from conductor_server.testing.reach import Reach

CONTRIBUTIONS = 5


def explanations(scored: Scored, reach: Reach, test_ids: Sequence[str], count: int) -> list[Explanation]:
    """Of the ``count`` likeliest tests, likeliest first. Takes a while, and is fit for a thread."""
    likeliest = np.argsort(-scored.probabilities, kind="stable")[:count].tolist()
    moved = _contributions(scored, likeliest)
    return [Explanation(at, of_one, reach.way(test_ids[at])) for at, of_one in zip(likeliest, moved, strict=True)]


def _contributions(scored: Scored, which: Sequence[int]) -> list[list[Contribution]]:
    if scored.model is None or scored.inputs is None or not which:
        return [[] for _ in which]
    plan = scored.model.plan
    made = variants(plan, scored.inputs.inputs[which])
    if not len(made.rows):
        return [[] for _ in which]
    try:
        [replaced] = scored.model.score(made.rows).T
    except ModelFailed:  # the answer stands; why it is so is not known
        return [[] for _ in which]
    found = effects(plan, made, scored.probabilities[which], replaced)
    return contributions(plan, scored.inputs.values[which], found, [CONTRIBUTIONS] * len(which))
