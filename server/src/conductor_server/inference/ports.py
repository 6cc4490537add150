"""What running tensors needs of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from conductor_rpc.call import NO_DEADLINE, Deadline
from conductor_server.prediction.answers import Fallback, ModelLabel
from conductor_server.prediction.columns import ColumnPlan


class TensorModel(Protocol):
    """A model that is loaded, as its graph sees it."""

    @property
    def label(self) -> ModelLabel:
        """What answers of it are labelled with."""
        ...

    @property
    def plan(self) -> ColumnPlan:
        """Its input columns."""
        ...

    @property
    def input_name(self) -> str:
        """The graph's input."""
        ...

    @property
    def output_names(self) -> tuple[str, ...]:
        """The graph's outputs, in the order of what ``run`` returns."""
        ...

    async def run(self, inputs: NDArray[np.float32], until: Deadline = NO_DEADLINE) -> NDArray[np.float64]:
        """Run rows ``[n, columns]``. Nothing is begun after ``until``.

        Returns:
            The outputs, ``[n, outputs]``.

        Raises:
            ModelFailed: the model can't be run on them.
            DeadlineTooShort: it could not be run in time.
        """
        ...


@dataclass(frozen=True, slots=True)
class Serving:
    """What there is for a tenant."""

    models: tuple[TensorModel, ...]
    """The tenant's model, then the global one; those that are loaded."""
    fallback: Fallback
    """Why the tenant's own model is not among them."""


class TensorModels(Protocol):
    """The models that tensors may be run on."""

    def serving(self, predictor: str, tenant_id: str) -> Serving:
        """What there is for a tenant; nothing for an unknown predictor. Cheap."""
        ...
