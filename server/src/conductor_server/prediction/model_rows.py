"""What models with one plan are run on: each model's rows once each, and the variants that explain them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from conductor_server.prediction.answers import Contribution
from conductor_server.prediction.asked import Asked
from conductor_server.prediction.contributions import Variants, contributions, effects, variants
from conductor_server.prediction.gathering import Inputs
from conductor_server.prediction.ports import Model

Outputs = NDArray[np.float64]
"""What a model gives for all that it is run on: ``[rows + variants, 3]``, as ``Model.run`` says."""


class Part(NamedTuple):
    """One model's."""

    model: Model
    asking: list[int]
    """The positions of its questions: those that it can answer."""
    inputs: NDArray[np.float32]
    """What it is run on, ``[rows + variants, columns]``."""
    lines: list[int]
    """Which of those is each question's row."""
    rows: slice
    """Which they are of all models' rows."""
    variants: slice
    """Which they are of all models' variants."""


class ModelRows:
    """Made for all questions at once, whatever model of the plan each is for; cut into parts by model."""

    def __init__(self, models: Sequence[Model], asked: Sequence[Asked], inputs: Inputs) -> None:
        """Of n questions the model, all with one plan; who asks; the input row. At least one can be answered."""
        self._plan, self._asked, self._inputs = models[0].plan, asked, inputs
        by_model: dict[int, list[int]] = {}
        for at in inputs.answerable.nonzero()[0].tolist():
            by_model.setdefault(id(models[at]), []).append(at)
        contents = _contents(inputs.inputs)
        # Those of one model are side by side, the first one's row first.
        distinct = {at: (model, contents[at]) for model, asking in by_model.items() for at in asking}
        rows = {row: number for number, row in enumerate(dict.fromkeys(distinct.values()))}
        self._row_of = {at: rows[row] for at, row in distinct.items()}
        self._rows = np.frombuffer(b"".join([content for _, content in rows]), np.float32).reshape(len(rows), -1)
        self._variants = self._explaining()
        begins = [*(self._row_of[asking[0]] for asking in by_model.values()), len(rows)]
        cuts = [0] * len(begins) if self._variants is None else np.searchsorted(self._variants.of, begins).tolist()
        self.parts: list[Part] = []
        for asking, of_rows, of_variants in zip(by_model.values(), pairwise(begins), pairwise(cuts), strict=True):
            its_rows, its_variants = slice(*of_rows), slice(*of_variants)
            run_on = self._rows[its_rows]
            if self._variants is not None:
                run_on = np.concatenate([run_on, self._variants.rows[its_variants]])
            lines = [self._row_of[at] - its_rows.start for at in asking]
            self.parts.append(Part(models[asking[0]], asking, run_on, lines, its_rows, its_variants))

    def contributions(self, outputs: Sequence[tuple[Part, Outputs]]) -> Iterable[tuple[int, list[Contribution]]]:
        """The positions of questions that want their answer explained, and what moved it; of models that answered."""
        if self._variants is None or not outputs:
            return ()
        medians, replaced = np.full(len(self._rows), math.nan), np.full(len(self._variants.rows), math.nan)
        for part, of_part in outputs:
            count = part.rows.stop - part.rows.start
            medians[part.rows], replaced[part.variants] = of_part[:count, 1], of_part[count:, 1]
        found = effects(self._plan, self._variants, medians, replaced)
        which = [at for part, _ in outputs for at in part.asking if self._asked[at].question.contribution_count]
        values, counts = self._inputs.values[which], [self._asked[at].question.contribution_count for at in which]
        told = contributions(self._plan, values, found[[self._row_of[at] for at in which]], counts)
        return zip(which, told, strict=True)

    def _explaining(self) -> Variants | None:
        """The variants of rows that somebody wants explained; in the order of the rows."""
        explained = [row for at, row in self._row_of.items() if self._asked[at].question.contribution_count]
        if not explained:
            return None
        mask = np.zeros(len(self._rows), np.bool_)
        mask[explained] = True
        return variants(self._plan, self._rows, mask)


def _contents(rows: NDArray[np.float32]) -> list[bytes]:
    """Rows are equal where their bytes are."""
    contents: list[bytes] = rows.view(f"V{rows.shape[1] * rows.itemsize}").ravel().tolist()
    return contents
